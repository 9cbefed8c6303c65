"""The history of the steps of a table with exact rows, on a GPU; see `catchup.plan`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from ..array_types import DeviceArray
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

THREADS = 256
"""Threads of a block."""


def source() -> str:
    """Write the kernels of ``step_history.cuh``."""
    macros = {"skip": SKIP, "no_end": f"{NO_END}LL", "min_product": repr(MIN_PRODUCT)}
    return compile.link(macros, "", "step_history.cuh")


@cache
def kernel(name: str) -> Callable[..., None]:
    """Compile a kernel of `source`."""
    return compile.built(source(), name)


class StepHistory:
    """A ring buffer of the steps of a table; step t is at t modulo its length.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    plan : CatchUpPlan or None
        How skipped steps are interpolated; None for replay.
    rows : int
        Number of rows of the table.
    updates : int
        Number of steps that the table has had.

    Attributes
    ----------
    now : CuPy array of int64, shape (1,)
        Number of steps so far.
    last : CuPy array of int32, shape (rows,)
        The last step that each row has taken.
    history : CuPy array of float64, shape (width + 2, length)
        The columns of `HistoryLayout`, then the ratio of each displacement to that of the step
        before, for the product of powers and for the correction.
    products : CuPy array of float64, shape (states + 2, length)
        As the CPU's.
    ends : CuPy array of int64, shape (length,)
        The last step of each step's segment.
    """

    def __init__(
        self, rule: Rule, formats: Formats, plan: CatchUpPlan | None, rows: int, updates: int
    ) -> None:
        import cupy

        self.rule, self.plan = rule, plan
        self._layout = history_layout(rule, plan)
        self.length, states = history_length(rows), len(rule.states)
        self.last: DeviceArray = cupy.full(rows, updates, np.int32)
        self.history: DeviceArray = cupy.zeros((self._layout.width + 2, self.length), np.float64)
        self.products: DeviceArray = cupy.full(
            (states + 2 if plan else 1, self.length), 1.0, np.float64
        )
        self.ends: DeviceArray = cupy.full(self.length, NO_END, np.int64)
        self.now: DeviceArray = cupy.full(1, updates, np.int64)
        self._start = updates
        self._period, self._due_count = refresh_period(rows, self.length)
        self._due: DeviceArray = cupy.zeros(self._due_count, np.uint64)
        names = ("append", "count", "rows_due")
        self._append, self._count, self._rows_due = (kernel(f"gpuadapt_{n}") for n in names)

    def append(self, numbers: DeviceArray, offset: int) -> None:
        """Append a step, unless it was skipped; ``numbers[offset]`` is its first coefficient."""
        layout = self._layout
        columns = (layout.displacement, layout.decay, layout.scale, layout.width)
        self._append(
            (-(-self.length // THREADS),),
            (THREADS,),
            (numbers, *map(np.int64, (offset, *columns, self.length - 1, self._start)), self.now,
             self.history, self.products, self.ends),
        )  # fmt: skip
        self._count((1,), (1,), (numbers, self.now))

    def rows_due(self) -> DeviceArray:
        """Return the keys of the rows that this step refreshes, without positions: uint64, (k,)."""
        self._rows_due(
            (-(-self._due_count // THREADS),),
            (THREADS,),
            (self.now, np.int64(self._period), np.int64(self._due_count), self._due),
        )
        return self._due
