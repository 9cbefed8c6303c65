"""What the memory of a machine does: a copy, a read and a write of a long array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import limits
from .timing import interleaved
from .training import library

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
    xp = library(backend)
    source, target = xp.ones(case.size, np.float32), xp.ones(case.size, np.float32)
    candidates: dict[str, Callable[[], Any]] = {
        "copy": lambda: xp.copyto(target, source),
        "read": limits.read(backend, case.size),
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


def rate(result: dict[str, Any], name: str) -> float:
    """Bytes per second of a copy (read and written), a read or a write."""
    moved = result["bytes"] if name == "copy" else result["bytes"] / 2
    return float(moved / result["times"][name]["median"])
