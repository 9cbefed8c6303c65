"""Measure the gradients of a step: sums of squares, and largest magnitudes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuadapt.kernels.numerics.overflow import CHECKS, Measured

from .launch import StepScalars

Launch = tuple[Any, Any, Any]
"""An `Update`, its gradient, and the offset of its coefficients."""


def measure(launches: Sequence[Launch], scalars: StepScalars, numbers: Any) -> Measured:
    """Compute partial sums of squares and largest magnitudes of unscaled gradients.

    Parameters
    ----------
    launches : sequence of Launch
        Of one device, which is the current one.
    scalars : StepScalars
        Of this device; it has memory for the results.
    numbers
        What the updates take as the scalars of the step.
    """
    # The sums have the same total in any order.
    ordered = sorted(launches, key=lambda one: one[0].overflow_check)
    counts = [update.partials(gradient) for update, gradient, _ in ordered]
    total, start = sum(counts), 0
    ends = [0] * CHECKS
    partial = scalars.partial_sums(2 * total)
    for (update, gradient, _), count in zip(ordered, counts, strict=True):
        stop = start + count
        sums, peaks = partial[start:stop], partial[total + start : total + stop]
        update.squares(gradient, numbers, sums, peaks)
        ends[update.overflow_check :] = [stop] * (CHECKS - update.overflow_check)
        start = stop
    return Measured(partial, tuple(ends))
