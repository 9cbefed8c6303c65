"""The history of the steps of a table with exact rows, on the CPU; see `catchup.plan`."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np

from ..array_types import HostArray
from ..catchup.plan import CatchUpPlan, history_layout, history_length, refresh_period
from ..commit import Call
from ..formats import Formats
from ..language.rule import Rule
from . import compile, generate


@cache
def compiled() -> ModuleType:
    """Compile `loops/history.py`."""
    return compile.load("history", generate.history())


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
    now : int
        Number of steps so far.
    last : ndarray of int64, shape (rows,)
        The last step that each row has taken.
    history : ndarray of the compute type, shape (length, k)
        The coefficients of each step, up to `HistoryLayout.decay`.
    moments : ndarray of float64, shape (length, k)
        The moments of the segment that begins with each step, see `catchup.plan.SHRINK`.
    ends : ndarray of int64, shape (length,)
        The last step of the segment that begins with each step; the step before, if none does.
    """

    def __init__(
        self, rule: Rule, formats: Formats, plan: CatchUpPlan | None, rows: int, updates: int
    ) -> None:
        self.rule, self.plan = rule, plan
        self._layout = history_layout(rule, plan)
        length, columns = history_length(rows), plan.moment_columns if plan else 0
        self.last: HostArray = np.full(rows, updates, np.int64)
        self.history: HostArray = np.zeros((length, self._layout.decay), formats.compute)
        self.moments: HostArray = np.zeros((length, columns))
        self.ends: HostArray = np.full(length, updates)
        self._before: HostArray = np.full(self._layout.width - self._layout.decay, np.nan)
        """The scalars of the last step from `HistoryLayout.decay` on."""
        self.now = updates
        self._states = len(rule.states)
        # Compiled before any step, not when its arrays have been written.
        self._append = compiled().append if plan else None
        self._period, self._due = refresh_period(rows, length)

    def due(self, now: int) -> tuple[int, int]:
        """(first, stop) of the rows that step ``now`` refreshes."""
        rows = len(self.last)
        first = now % self._period * self._due
        return min(first, rows), min(first + self._due, rows)

    def append_calls(self, numbers: HostArray, offset: int) -> list[Call]:
        """The calls that append a step; ``numbers[offset]`` is its first coefficient."""
        layout, now = self._layout, self.now + 1
        count = layout.displacement
        # The number of the step is between the coefficients and the other scalars.
        scalars = numbers[offset + 1 + count : offset + 1 + layout.width].copy()
        row = np.empty(layout.decay, self.history.dtype)
        with np.errstate(over="ignore"):  # a scale of wider gradients; it divides zero here
            row[:count] = numbers[offset : offset + count]
            row[count:] = scalars[: layout.decay - count]
        calls: list[Call] = [(self.history.__setitem__, now & (len(self.history) - 1), row)]
        if self._append is not None:
            later = scalars[layout.decay - count :]
            given = self.moments, self.ends, later, self._before, now, self._states
            calls.append((self._append, *given))
        return [*calls, (setattr, self, "now", now)]
