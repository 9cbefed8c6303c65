"""What is remembered of the steps of a table's rows, on the CPU."""

from __future__ import annotations

import numpy as np

from ..formats import Formats
from ..missed import SPAN, Missed, columns, remembered, turns
from ..rule import Rule


class Clock:
    """Which steps the rows of a table have had, and what they were.

    Attributes
    ----------
    now : int
        How many steps there were: the parameter's updates.
    last : ndarray of int32, shape (rows,)
        How many of them each row has had.
    history : ndarray of the compute type, shape (remembered, k)
        The coefficients of each step; see `gpuadapt.kernels.missed`.
    paces : ndarray of float64, shape (k, remembered + SPAN)
        What each step multiplies states by, then its `Columns.ratio` and the number after it. The
        first steps of the ring come again at its end, so that neighbours have no gap.
    fading : ndarray of float64, shape (k, remembered)
        Products of all steps since, of states and motion, and the largest that the last has been.
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
        self._motions = np.zeros(2)
        """Of large and small states, in the last step."""
        self.now = updates

    def advance(self, numbers: np.ndarray, first: int) -> None:
        """Remember a step that was taken; ``numbers[first]`` is its first coefficient."""
        where, size = self._columns, len(self.history)
        self.now += 1
        here = self.now & (size - 1)
        with np.errstate(over="ignore"):  # a scale of wider gradients; it divides zero here
            self.history[here, : where.rule] = numbers[first : first + where.rule]
        if self.followed is None:
            return
        given = numbers[first + 1 :]  # the step's number lies between
        self.history[here, where.rule :] = given[where.rule : where.fades]
        pace = np.empty(len(self.paces))
        # Kernels multiply states by rounded numbers.
        pace[:-2] = given[where.fades : where.ratio].astype(self.history.dtype)
        with np.errstate(all="ignore"):
            large, small = given[where.ratio : where.start] / self._motions
            pace[-2:] = large, large / small
            self.fading[:-1] *= pace[:-1, None]
            np.maximum(self.fading[-1], self.fading[-2], out=self.fading[-1])
        self._motions = np.array(given[where.start : where.width])
        self.fading[:, here] = 1
        self.paces[:, here] = pace
        if here < SPAN:
            self.paces[:, size + here] = pace

    def due(self) -> tuple[int, int]:
        """The rows that are to be brought up to date with this step; see `turns`."""
        rows = len(self.last)
        turn, each = turns(rows, len(self.history))
        start = self.now % turn * each
        return min(start, rows), min(start + each, rows)
