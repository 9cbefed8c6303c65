"""What is remembered of the steps of a table's rows, on the CPU."""

from __future__ import annotations

import numpy as np

from ..formats import Formats
from ..missed import Missed, columns, remembered, turns
from ..rule import Rule


class Clock:
    """Which steps the rows of a table have had, and what they were.

    Attributes
    ----------
    now : int
        How many steps there were: the parameter's updates.
    last : ndarray of int32, shape (rows,)
        How many of them each row has had.
    history, fading : ndarray of float64, shape (k, remembered)
        See `gpuadapt.kernels.missed`: a step's numbers; and the products of those of all steps
        since, of states and motion, and the largest that the last one has been.
    """

    def __init__(
        self, rule: Rule, formats: Formats, followed: Missed | None, rows: int, updates: int
    ) -> None:
        self.rule, self.followed = rule, followed
        self._columns, self._dtype = columns(rule, followed), np.dtype(formats.compute)
        size, states = remembered(rows), len(rule.states)
        self.last = np.full(rows, updates, np.int32)
        self.history = np.zeros((self._columns.width, size))
        self.fading = np.ones((states + 2 if followed else 0, size))
        self.now = updates

    def advance(self, numbers: np.ndarray, first: int) -> None:
        """Remember a step that was taken; ``numbers[first]`` is its first coefficient."""
        where = self._columns
        self.now += 1
        here = self.now & (self.history.shape[1] - 1)
        row, before = self.history[:, here], self.history[:, here - 1]
        row[: where.rule] = numbers[first : first + where.rule]
        if self.followed is None:
            return
        after = first + where.rule + 1  # the step's number lies between
        row[where.rule :] = numbers[after : after + where.width - where.rule]
        # Kernels multiply states by rounded numbers.
        row[where.fades : where.ratio] = row[where.fades : where.ratio].astype(self._dtype)
        with np.errstate(all="ignore"):
            row[where.ratio : where.start] /= before[where.start :]
            row[where.ratio + 1] = row[where.ratio] / row[where.ratio + 1]
            self.fading[:-1] *= row[where.fades : where.ratio + 1, None]
            np.maximum(self.fading[-1], self.fading[-2], out=self.fading[-1])
        self.fading[:, here] = 1

    def due(self) -> tuple[int, int]:
        """The rows that are to be brought up to date with this step; see `turns`."""
        rows = len(self.last)
        turn, each = turns(rows, self.history.shape[1])
        start = self.now % turn * each
        return min(start, rows), min(start + each, rows)
