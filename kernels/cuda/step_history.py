"""The history of the steps of a table with exact rows, on a GPU; see `catchup.plan`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..catchup.plan import (
    MIN_PRODUCT,
    NO_END,
    CatchUpPlan,
    history_layout,
    history_length,
    refresh_period,
)
from ..formats import Formats
from ..language.rule import Rule
from ..numerics.scalar_layout import SKIP
from . import compile

BLOCK = 256


def source() -> str:
    """Write the kernels of ``step_history.cuh``."""
    macros = {"skip": SKIP, "open": f"{NO_END}LL", "faint": repr(MIN_PRODUCT)}
    return compile.link(macros, "", "step_history.cuh")


@cache
def kernel(name: str) -> Callable[..., None]:
    """Compile a kernel of `source`."""
    return compile.built(source(), name)


class StepHistory:
    """A ring buffer of the steps of a table; see the CPU's."""

    def __init__(
        self, rule: Rule, formats: Formats, plan: CatchUpPlan | None, rows: int, updates: int
    ) -> None:
        import cupy

        self.rule, self.plan = rule, plan
        self._layout = history_layout(rule, plan)
        self.size, states = history_length(rows), len(rule.states)
        self.last = cupy.full(rows, updates, np.int32)
        # Each step's scalars, then two ratios of displacements; see the CPU's `factors`.
        self.history = cupy.zeros((self._layout.width + 2, self.size), np.float64)
        self.products = cupy.full((states + 2 if plan else 1, self.size), 1.0, np.float64)
        self.ends = cupy.full(self.size, NO_END, np.int64)
        self._start = updates
        self.now = cupy.full(1, updates, np.int64)
        self._period, self._count = refresh_period(rows, self.size)
        self._due = cupy.zeros(self._count, np.uint64)
        self._kernels = [kernel(f"gpuadapt_{name}") for name in ("advance", "count", "due")]

    def append(self, numbers: Any, first: int) -> None:
        """Append a step, if it was taken; ``numbers[first]`` is its first coefficient."""
        layout = self._layout
        advance, count, _ = self._kernels
        advance(
            (-(-self.size // BLOCK),),
            (BLOCK,),
            (numbers,
             *map(np.int64, (first, layout.displacement, layout.decay, layout.scale, layout.width)),
             np.int64(self.size - 1), np.int64(self._start), self.now, self.history, self.products,
             self.ends),
        )  # fmt: skip
        count((1,), (1,), (numbers, self.now))

    def rows_due(self) -> Any:
        """Return keys, without positions, of the rows that this step refreshes."""
        *_, due = self._kernels
        due(
            (-(-self._count // BLOCK),),
            (BLOCK,),
            (self.now, np.int64(self._period), np.int64(self._count), self._due),
        )
        return self._due
