"""The text of every kernel: all traversals of both backends by their public names."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from .formats import Formats, uniform
from .language.rule import SOURCES, Rule


def source(rule: Rule, backend: str, traversal: str, dtype: str | Formats) -> str:
    """Write the text of a kernel; see `Rule.source`."""
    backends = {"cpu": _cpu, "cuda": _cuda}
    traversals = backends[backend]() if backend in backends else {}
    if traversal not in traversals:
        raise ValueError(f"no traversal {traversal!r} on backend {backend!r}")
    formats = dtype if isinstance(dtype, Formats) else uniform(rule, np.dtype(dtype))
    text: str = traversals[traversal].source(rule, formats)
    return text


# Imported when they are asked for: importing gpuadapt does not import Numba.


def _cpu() -> dict[str, ModuleType]:
    from .cpu import exact_rows, multi_tensor, rows, strided

    return {"many": multi_tensor, "dense": strided, "rows": rows, "exact": exact_rows}


def _cuda() -> dict[str, ModuleType]:
    from .cuda import exact_rows, multi_tensor, rows, strided

    return {"many": multi_tensor, "dense": strided, "rows": rows, "exact": exact_rows}


SOURCES[:] = [source]
