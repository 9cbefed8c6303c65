"""The one order in which squares are summed, on every backend, whoever computes them.

Within a row or a span, numbers have places in a fixed number of lanes. Sums of spans are then
added without rounding, so that their order is of no account.
"""

from __future__ import annotations

import math

import numpy as np

SUMS = 32
"""Lanes of a row, in float64: element j adds to number j modulo this, in order; then the upper
half of them is added to the lower half, until one is left."""

SPAN = 16384
"""Elements of a span of an array (or rows of a gradient), counted from its first."""

LANES = 256
"""As `SUMS`, of a span."""

MOST = 2.0**24
"""Spans that can be added exactly."""

EXPONENT = 0x7FF0000000000000
"""The bits of a float64 that hold its power of two."""

NORMAL = 2.0**-1022
"""The smallest normal number."""

LARGEST = 2.0**970
"""Sums of squares from here on are taken for infinite."""


def total(partial: np.ndarray) -> float:
    """The sum of float64 numbers that are not negative, the same in any order.

    Each is cut into a multiple of a coarse unit and one of a fine unit, so that no sum of
    either kind needs rounding (Demmel and Nguyen, Fast Reproducible Floating-Point Summation,
    2013, with two bins). NaN if there is one, infinity if a number is too large.
    """
    top = float(partial.max(initial=0.0))
    if not top < LARGEST:
        return top if math.isnan(top) else math.inf
    # The largest power of two in it; adding and subtracting one that is larger rounds.
    power = float((np.float64(top).view(np.int64) & np.int64(EXPONENT)).view(np.float64))
    coarse = 3 * MOST * max(power, NORMAL)
    fine = coarse * 2.0**-53 * 2 * MOST
    upper = (partial + coarse) - coarse
    lower = ((partial - upper) + fine) - fine
    return float(upper.sum() + lower.sum())


def factor(norm: float, most: float) -> float:
    """What gradients with a norm are multiplied by to have at most another."""
    return 1.0 if norm <= most or most == math.inf else most / norm
