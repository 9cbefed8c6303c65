"""What is remembered of the steps of a table's rows, on a GPU; as the CPU's `clock`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..catchup.plan import FAINT, OPEN, Missed, columns, remembered, turns
from ..formats import Formats
from ..language.rule import Rule
from ..numerics.scalar_layout import SKIP
from . import compile

BLOCK = 256


def source() -> str:
    """Write the kernels of ``step_history.cuh``."""
    macros = {"skip": SKIP, "open": f"{OPEN}LL", "faint": repr(FAINT)}
    return compile.link(macros, "", "step_history.cuh")


@cache
def kernel(name: str) -> Callable[..., None]:
    """Compile a kernel of `source`."""
    return compile.built(source(), name)


class StepHistory:
    """Which steps the rows of a table have had, and what they were; see the CPU's."""

    def __init__(
        self, rule: Rule, formats: Formats, followed: Missed | None, rows: int, updates: int
    ) -> None:
        import cupy

        self.rule, self.followed = rule, followed
        self._columns = columns(rule, followed)
        self.size, states = remembered(rows), len(rule.states)
        self.last = cupy.full(rows, updates, np.int32)
        # Beside the numbers of a step there is what motions are multiplied by; see the CPU's paces.
        self.history = cupy.zeros((self._columns.width + 2, self.size), np.float64)
        self.fading = cupy.full((states + 2 if followed else 1, self.size), 1.0, np.float64)
        self.ends = cupy.full(self.size, OPEN, np.int64)
        self._start = updates
        self.now = cupy.full(1, updates, np.int64)
        self._turn, self._each = turns(rows, self.size)
        self._due = cupy.zeros(self._each, np.uint64)
        self._kernels = [kernel(f"gpuadapt_{name}") for name in ("advance", "count", "due")]

    def advance(self, numbers: Any, first: int) -> None:
        """Remember a step, if it was taken; ``numbers[first]`` is its first coefficient."""
        where = self._columns
        advance, count, _ = self._kernels
        advance(
            (-(-self.size // BLOCK),),
            (BLOCK,),
            (numbers, *map(np.int64, (first, where.rule, where.fades, where.scale, where.width)),
             np.int64(self.size - 1), np.int64(self._start), self.now, self.history, self.fading,
             self.ends),
        )  # fmt: skip
        count((1,), (1,), (numbers, self.now))

    def due(self) -> Any:
        """Keys of the rows that are to be brought up to date with this step, without positions."""
        *_, due = self._kernels
        due(
            (-(-self._each // BLOCK),),
            (BLOCK,),
            (self.now, np.int64(self._turn), np.int64(self._each), self._due),
        )
        return self._due
