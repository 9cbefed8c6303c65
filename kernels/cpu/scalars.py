"""The scalars of a step on the CPU: coefficients, norm, clip factor, and whether to skip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..commit import Call
from ..numerics.overflow import Measured, Verdict, decide
from ..numerics.scalar_layout import FIRST


def numbers(coefficients: Sequence[float]) -> np.ndarray:
    """The scalars of an unscaled update that is not skipped; float64."""
    return np.array([0.0, 1.0, *coefficients])


class StepScalars:
    """The scalars of a step; the interface is `gpuadapt.launch.StepScalars`."""

    def __init__(self) -> None:
        self.numbers = np.zeros(FIRST)
        self._partial = np.empty(0)
        self._report = (math.nan, 1.0, False)

    def restart(self, step: int) -> None:
        """Do nothing: the host counts steps."""

    def load(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        """Take the scalars of the current step, the first row."""
        self.numbers = np.array(rows[0])

    def select_step(
        self, scale: Any, indices: Sequence[int], micro_batches: int, measured: bool
    ) -> list[Call]:
        """Do nothing: the scale is among the scalars."""
        return []

    def last_numbers(self) -> np.ndarray:
        """The scalars of the step, as for its other updates."""
        return self.numbers

    def end_step(self) -> list[Call]:
        """Do nothing: the host counts steps."""
        return []

    def last_scalars(self) -> np.ndarray:
        """The scalars of the last step."""
        return self.numbers

    def partial_sums(self, count: int) -> np.ndarray:
        """Memory of ``count`` float64, kept for the next step."""
        if count > self._partial.size:
            self._partial = np.empty(count)
        return self._partial[:count]

    def to_host(self, partial: np.ndarray) -> np.ndarray:
        """Return the array: it is on the host."""
        return partial

    def finish_norm(
        self,
        measured: Measured,
        known: Verdict | None,
        max_norm: float,
        max_value: float,
        skip: bool,
        indices: Sequence[int],
        loss_scale: Any,
    ) -> tuple[bool, list[Call]]:
        """Compute norm and clip factor; returns whether to skip the step, and no calls."""
        decided = known or decide([measured], max_norm, max_value)
        skipped = skip and not decided.finite
        self._report = (decided.norm, decided.clip_factor, skipped)
        for index in indices:
            self.numbers[index] = decided.clip_factor
        return skipped, []

    def result(self) -> tuple[float, float, bool]:
        """Norm, clip factor and whether the step was skipped, of the last measured step."""
        return self._report
