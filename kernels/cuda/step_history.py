"""The history of the steps of a table with exact rows, on a GPU; see `catchup.plan`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from ..array_types import DeviceArray
from ..catchup import plan as catchup
from ..catchup.plan import CatchUpPlan, history_layout, history_length, refresh_period
from ..commit import Call
from ..formats import Formats
from ..language.rule import Rule
from . import compile, scalars
from .scalars import StepNumbers

THREADS = 256
"""Threads of a block."""


def source() -> str:
    """Write the kernel of ``step_history.cuh``."""
    macros = {name: repr(getattr(catchup, name)) for name in catchup.OF_HISTORY}
    return compile.link({**scalars.UPDATE_MACROS, **macros}, "", "step_history.cuh")


@cache
def kernel() -> Callable[..., None]:
    """Compile the kernel of `source`."""
    return compile.built(source(), "gpuadapt_append")


class StepHistory:
    """A ring buffer of the steps of a table; step t is at t modulo its length.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    plan : CatchUpPlan or None
        The closed form of skipped steps; None for replay.
    rows : int
        Number of rows of the table.
    updates : int
        Number of steps that the table has had.

    Attributes
    ----------
    now : CuPy array of int64, shape (1,)
        Number of steps so far.
    last : CuPy array of int64, shape (rows,)
        The last step that each row has taken.
    history : CuPy array of float64, shape (width, length)
        The columns of `HistoryLayout`.
    moments : CuPy array of float64, shape (length, k)
        As the CPU's.
    ends : CuPy array of int64, shape (length,)
        As the CPU's.
    """

    def __init__(
        self, rule: Rule, formats: Formats, plan: CatchUpPlan | None, rows: int, updates: int
    ) -> None:
        import cupy

        self.rule, self.plan = rule, plan
        self._layout = history_layout(rule, plan)
        self.length, columns = history_length(rows), plan.moment_columns if plan else 1
        self.last: DeviceArray = cupy.full(rows, updates, np.int64)
        # Of a step without a form, NaN, no segment goes on.
        self.history: DeviceArray = cupy.full((self._layout.width, self.length), np.nan, np.float64)
        self.moments: DeviceArray = cupy.zeros((self.length, columns), np.float64)
        self.ends: DeviceArray = cupy.full(self.length, updates, np.int64)
        self.now: DeviceArray = cupy.full(1, updates, np.int64)
        self._period, count = refresh_period(rows, self.length)
        first = updates % self._period * count
        self._due: DeviceArray = cupy.arange(first, first + count, 1, np.uint64)
        self._kernel = compile.ready(kernel())

    def append_call(self, numbers: StepNumbers, offset: int) -> tuple[Call, DeviceArray]:
        """The launch that appends a step if it is taken, as a call, and the keys of rows.

        ``numbers[offset]`` is the step's first coefficient. The keys, uint64 of shape (n,) and
        without positions, are those of the rows that the step refreshes; the launch writes them.
        """
        layout, due = self._layout, self._due
        columns = (layout.displacement, layout.decay, layout.shrink, layout.scale, layout.width)
        places = (offset, *columns, self.length - 1, self._period, due.size)
        arguments = (
            *numbers.of_update(), *map(np.int64, places), self.now, self.history, self.moments,
            self.ends, due,
        )  # fmt: skip
        grid = (-(-max(self.length, due.size) // THREADS),)
        return (self._kernel, grid, (THREADS,), arguments), due
