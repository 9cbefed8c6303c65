"""The text of every kernel: all traversals of all backends by their public names."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from .errors import SourceError
from .formats import Formats, uniform
from .language import javascript
from .language.rule import SOURCES, Rule

TYPES = ("float32", "float64")


def source(rule: Rule, backend: str, traversal: str | None, dtype: Any) -> str:
    """Write the text of a kernel; see `Rule.source`."""
    formats = _formats(rule, dtype)
    if backend == "javascript":
        if traversal is not None:
            raise SourceError(f"no traversal {traversal!r}: JavaScript has one element's update")
        if not formats.uniform:
            raise SourceError(f"dtype: JavaScript has no formats, only {' and '.join(TYPES)}")
        return javascript.source(rule, formats.compute)
    text: str = _module(rule, backend, traversal).source(rule, formats)
    return text


def _formats(rule: Rule, dtype: Any) -> Formats:
    if isinstance(dtype, Formats):
        return dtype
    try:
        name = str(np.dtype(dtype))
    except TypeError:
        name = ""
    if name not in TYPES:
        raise SourceError(f"dtype: got {dtype!r}, expected {', '.join(TYPES)} or Formats")
    return uniform(rule, np.dtype(name))


def _module(rule: Rule, backend: str, traversal: str | None) -> ModuleType:
    """Return the module that writes the kernel of a traversal."""
    if backend not in BACKENDS:
        raise SourceError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}, javascript")
    traversals = BACKENDS[backend]()
    by_rows = bool(rule.row_states)
    traversal = traversal or ("rows" if by_rows else "many")
    if traversal not in traversals:
        there = ", ".join(traversals)
        raise SourceError(f"no traversal {traversal!r} on backend {backend!r}; there are {there}")
    if by_rows and traversal not in ("rows", "exact"):
        raise SourceError(f"{rule.name} works on whole rows: its traversals are rows and exact")
    return traversals[traversal]


# Imported when they are asked for: importing gpuadapt does not import Numba.


def _cpu() -> dict[str, ModuleType]:
    from .cpu import exact_rows, multi_tensor, rows, strided

    return {"many": multi_tensor, "dense": strided, "rows": rows, "exact": exact_rows}


def _cuda() -> dict[str, ModuleType]:
    from .cuda import exact_rows, multi_tensor, rows, strided

    return {"many": multi_tensor, "dense": strided, "rows": rows, "exact": exact_rows}


BACKENDS = {"cpu": _cpu, "cuda": _cuda}
"""By the name of a backend: its traversals."""

SOURCES[:] = [source]
