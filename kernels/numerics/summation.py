"""The order in which squares are summed, the same on every backend and for any threads.

Element j of a row or a chunk is added to lane j modulo the number of lanes. Sums of chunks are
added without rounding, so that their order does not matter.
"""

from __future__ import annotations

import math

import numpy as np

SUMS = 32
"""Lanes of a row, float64. At the end the upper half of the lanes is added to the lower half, until
one is left."""

CHUNK = 16384
"""Elements of an array, or rows of a `RowGrad`, that are summed together."""

LANES = 256
"""Lanes of a chunk."""

MAX_CHUNKS = 2.0**24
"""The number of chunks that can be added exactly."""

EXPONENT = 0x7FF0000000000000
"""The bits of a float64 that hold its power of two."""

NORMAL = 2.0**-1022
"""The smallest normal number."""

LARGEST = 2.0**970
"""Larger sums of squares are infinite."""


def total(partial: np.ndarray) -> float:
    """Add nonnegative numbers, with the same result in any order.

    Each number is split into a multiple of a coarse unit and a multiple of a fine unit, so that
    no sum of either needs rounding (Demmel & Nguyen, Fast Reproducible Floating-Point Summation,
    2013, with two bins).

    Parameters
    ----------
    partial : ndarray of float64, shape (n,), n <= 2**24

    Returns
    -------
    float
        NaN if there is one; infinity if a number is `LARGEST` or more.
    """
    top = float(partial.max(initial=0.0))
    if not top < LARGEST:
        return top if math.isnan(top) else math.inf
    # The largest power of two in it; adding and subtracting one that is larger rounds.
    power = float((np.float64(top).view(np.int64) & np.int64(EXPONENT)).view(np.float64))
    coarse = 3 * MAX_CHUNKS * max(power, NORMAL)
    fine = coarse * 2.0**-53 * 2 * MAX_CHUNKS
    upper = (partial + coarse) - coarse
    lower = ((partial - upper) + fine) - fine
    return float(upper.sum() + lower.sum())


def clip_factor(norm: float, max_norm: float) -> float:
    """Return the factor that limits a norm: ``max_norm / norm``, or 1 for smaller norms."""
    return 1.0 if norm <= max_norm or max_norm == math.inf else max_norm / norm
