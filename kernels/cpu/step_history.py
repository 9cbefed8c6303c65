"""What is remembered of the steps of a table's rows, on the CPU."""

from __future__ import annotations

import numpy as np

from ..catchup.plan import FAINT, OPEN, SPAN, Missed, columns, remembered, turns
from ..formats import Formats
from ..language.rule import Rule


class StepHistory:
    """Which steps the rows of a table have had, and what they were.

    Attributes
    ----------
    now : int
        How many steps there were: the parameter's updates.
    last : ndarray of int32, shape (rows,)
        How many of them each row has had.
    history : ndarray of the compute type, shape (remembered, k)
        The coefficients of each step; see `gpuadapt.kernels.catchup.plan`.
    paces : ndarray of float64, shape (k, remembered + SPAN)
        What each step multiplies states by, then the first part of motions, then their bend. The
        first steps of the ring come again at its end, so that neighbours have no gap.
    fading : ndarray of float64, shape (k, remembered)
        Products of all steps of the stretch since, of states and of the first part of motions;
        then all motions of the stretch from this step on, as multiples of its own.
    ends : ndarray of int64, shape (remembered,)
        The last step of the stretch that goes on from each step.
    """

    def __init__(
        self, rule: Rule, formats: Formats, followed: Missed | None, rows: int, updates: int
    ) -> None:
        self.rule, self.followed = rule, followed
        self._columns = columns(rule, followed)
        size, kinds = remembered(rows), len(rule.states) + 2 if followed else 0
        self.last = np.full(rows, updates, np.int32)
        self.history = np.zeros((size, self._columns.fades), formats.compute)
        self.paces = np.zeros((kinds, size + SPAN))
        self.fading = np.ones((kinds, size))
        self.ends = np.full(size, OPEN)
        self._before: np.ndarray | None = None
        """The numbers of the last step from `Columns.fades` on."""
        self._start = self.now = updates
        """From which step on the stretch has gone on."""

    def advance(self, numbers: np.ndarray, first: int) -> None:
        """Remember a step that was taken; ``numbers[first]`` is its first coefficient."""
        where, size = self._columns, len(self.history)
        self.now += 1
        here = self.now & (size - 1)
        with np.errstate(over="ignore"):  # a scale of wider gradients; it divides zero here
            self.history[here, : where.rule] = numbers[first : first + where.rule]
        if self.followed is None:
            return
        given = numbers[first + 1 + where.rule : first + 1 + where.width]  # beside its own number
        self.history[here, where.rule :] = given[: where.fades - where.rule]
        taken = given[where.fades - where.rule :].copy()
        pace, goes_on = _goes_on(taken, self._before)
        self._before = taken
        if goes_on:
            with np.errstate(all="ignore"):
                for part in _ring(self._start, self.now, size):
                    self.fading[:-1, part] *= pace[:-1, None]
                    self.fading[-1, part] += self.fading[-2, part]
        else:
            for part in _ring(self._start, self.now, size):
                self.ends[part] = self.now - 1
            self._start = self.now
        self.fading[:, here], self.ends[here] = 1, OPEN
        self.paces[:, here] = pace
        if here < SPAN:
            self.paces[:, size + here] = pace

    def due(self) -> tuple[int, int]:
        """The rows that are to be brought up to date with this step; see `turns`."""
        rows = len(self.last)
        turn, each = turns(rows, len(self.history))
        start = self.now % turn * each
        return min(start, rows), min(start + each, rows)


def _goes_on(taken: np.ndarray, before: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """What a step multiplies by, and whether it goes on from the one before, if there was one.

    Of both the numbers are those from `Columns.fades` on.
    """
    scale, bend, kind = taken[-3:]
    pace = taken[:-3].copy()
    pace[-2:] = 1
    if before is None:
        return pace, bool(kind == kind and abs(scale) >= FAINT)
    scale_later, bend_later, old_scale, old_bend, old_kind = before[-5:]
    with np.errstate(all="ignore"):
        pace[-2] = scale / old_scale * scale_later
        if bend != 0 or old_bend != 0:
            pace[-1] = bend / old_bend * bend_later
    goes_on = bool(
        kind == old_kind
        and abs(scale) >= FAINT
        and 0 <= pace[-2] < np.inf
        and 1 <= pace[-1] < np.inf
    )
    return pace, goes_on


def _ring(start: int, stop: int, size: int) -> list[slice]:
    """Where a ring has the steps from ``start`` on, before ``stop``."""
    start = max(start, stop - size)
    first, count = start & (size - 1), stop - start
    whole = [slice(first, min(first + count, size)), slice(0, max(0, first + count - size))]
    return [part for part in whole if part.stop > part.start]
