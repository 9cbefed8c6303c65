"""The numbers of a step on the CPU, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..numerics.overflow import Measured, Verdict, judged
from ..numerics.scalar_layout import FIRST


def numbers(coefficients: Sequence[float]) -> np.ndarray:
    """Numbers of an update that nobody skips or scales."""
    return np.array([0.0, 1.0, *coefficients])


class Control:
    """Where the host keeps a step's numbers; every decision is made at once."""

    def __init__(self) -> None:
        self.numbers = np.zeros(FIRST)
        self._partial = np.empty(0)
        self._report = (math.nan, 1.0, False)

    def restart(self, step: int) -> None:
        """The host counts steps."""

    def load(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        """Take the numbers of the step at hand."""
        self.numbers = np.array(rows[0])

    def begin(self, scale: Any, places: Sequence[int], times: int = 1) -> None:
        """The scale is among the numbers."""

    def partial(self, count: int) -> np.ndarray:
        """Memory for so many numbers of what is measured, kept."""
        if count > self._partial.size:
            self._partial = np.empty(count)
        return self._partial[:count]

    def fetch(self, partial: np.ndarray) -> np.ndarray:
        """They are here."""
        return partial

    def judge(
        self,
        measured: Measured,
        known: Verdict | None,
        most: float,
        limit: float,
        skip: bool,
        places: Sequence[int],
        adapted: Any,
    ) -> bool:
        """From what is measured to the factor, in these places; whether to skip the step.

        ``known`` is the verdict, if it has been made of what other devices measured, too.
        """
        verdict = known or judged([measured], most, limit)
        skipped = skip and not verdict.finite
        self._report = (verdict.norm, verdict.factor, skipped)
        for place in places:
            self.numbers[place] = verdict.factor
        return skipped

    def report(self) -> tuple[float, float, bool]:
        """Norm, factor and whether it was skipped, of the last step that was judged."""
        return self._report
