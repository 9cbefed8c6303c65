"""What the memory of a machine does: a copy, a read and a write of a long array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.arrays import namespace
from gpuadapt.benchmark.timing import interleaved

SIZES = {"cpu": 2**26, "cuda": 2**30}
"""Elements of float32."""


class Case(NamedTuple):
    """An array's length."""

    size: int

    @property
    def name(self) -> str:
        return f"memory, {self.size:,} elements of float32"


def run(case: Case, backend: str, rounds: int) -> dict[str, Any]:
    """As `update.run`; "bytes" is what the copy moves, read and written."""
    xp = namespace(backend)
    source, target = xp.ones(case.size, np.float32), xp.ones(case.size, np.float32)
    candidates: dict[str, Callable[[], Any]] = {
        "copy": lambda: xp.copyto(target, source),
        "read": read(backend, case.size),
        "write": lambda: target.fill(1),
    }
    return {
        "name": case.name,
        "case": "memory",
        "size": case.size,
        "backend": backend,
        "bytes": 8 * case.size,
        "times": interleaved(candidates, backend, rounds),
    }


def read(backend: str, size: int) -> Callable[[], Any]:
    """One read of float32 elements: on the CPU as integers, whose sum needs no order."""
    xp = namespace(backend)
    if backend == "cuda":
        ones = xp.ones(size, xp.float32)
        return lambda: ones.max()
    found: dict[str, Any] = {}
    exec(_READ, found)  # noqa: S102
    numbers, sums = np.ones(size, np.int32), np.zeros(-(-size // 2**16), np.int32)
    return lambda: found["read"](numbers, sums)


_READ = """
from numba import njit, prange

@njit(parallel=True)
def read(numbers, sums):
    for k in prange(sums.size):
        part = numbers[k * 65536:k * 65536 + 65536]
        total = sums[k] * 0
        for i in range(part.size):
            total ^= part[i]
        sums[k] = total
"""


def rate(result: dict[str, Any], name: str) -> float:
    """Bytes per second of a copy (read and written), a read or a write."""
    moved = result["bytes"] if name == "copy" else result["bytes"] / 2
    return float(moved / result["times"][name]["median"])
