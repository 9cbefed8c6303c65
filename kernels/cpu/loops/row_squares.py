"""The sum of squares and the largest magnitude of a row's merged gradient x."""

import numpy as np
from numba import njit

from .interface import OPTIONS, SUMS, T
from .row_gradients import squares
from .summation import fold, fold_largest


@njit(**OPTIONS)
def squares_and_largest(x, scale, partial, tops):
    """The sum of squares of x / scale; ``tops`` (SUMS,) gets largest magnitudes."""
    partial[:] = 0
    tops[:] = 0
    for start in range(0, x.size, SUMS):
        for k in range(min(SUMS, x.size - start)):
            value = np.float64(x[start + k] / scale)
            partial[k] += value * value
            size = np.abs(value)
            tops[k] = size if size > tops[k] else tops[k]
    return fold(partial)


@njit(**OPTIONS)
def largest_clipped(x, scale, max_norm, partial, tops):
    """The largest magnitude of x / scale after clipping x to ``max_norm``."""
    norm = np.sqrt(squares(x, partial))
    if norm > max_norm:
        factor = T(max_norm / norm)
        tops[:] = 0
        for start in range(0, x.size, SUMS):
            for k in range(min(SUMS, x.size - start)):
                size = np.abs(np.float64(x[start + k] * factor / scale))
                tops[k] = size if size > tops[k] else tops[k]
    return fold_largest(tops)
