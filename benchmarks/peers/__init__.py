"""The candidates of the benchmarks: gpuadapt, the expressions of the papers, other libraries.

`gpuadapt.benchmark.peers` has the other libraries, and says what a module of a candidate has.
"""

from __future__ import annotations

from gpuadapt.benchmark import peers as others
from gpuadapt.benchmark.candidates import Make, MakeRows
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.benchmark.peers import deepspeed, fbgemm, installed, optax, thinc, torch

from . import numpy, ours

DENSE, ROWS, ALL = ((*each, numpy) for each in (others.DENSE, others.ROWS, others.ALL))

__all__ = [
    "ALL", "deepspeed", "fbgemm", "installed", "makers", "numpy", "optax", "ours", "rows", "thinc",
    "torch", "versions",
]  # fmt: skip


def versions() -> dict[str, str | None]:
    """The version of each; None where it is not installed."""
    return others.versions(ALL)


def makers(
    method: str,
    backend: str,
    only: tuple[str, ...] = (),
    dtype: str = "float32",
    kept: str = "",
    errors: Errors | None = None,
) -> dict[str, Make]:
    """gpuadapt first, then whoever is installed and has this method, backend and type.

    ``kept`` is how gpuadapt keeps its numbers, if not in ``dtype``; torch's bfloat16 is then
    beside its float32. ``errors`` takes what a library raises when it is asked, by its name.
    """
    found = ours.makers(method, backend, kept)
    if kept and torch.library() is not None:
        with noted(errors, torch.NAME):
            found |= torch.makers_of_few_bits(method, backend)
    offered = others.makers(method, backend, dtype, errors, DENSE)
    return found | {name: make for name, make in offered.items() if not only or name in only}


def rows(method: str, backend: str, errors: Errors | None = None) -> dict[str, MakeRows]:
    """gpuadapt first, then whoever updates a table by rows, and is installed."""
    return ours.row_makers(method, backend) | others.rows(method, backend, errors, ROWS)
