"""The sums of squares and the largest magnitudes of rows' gradients, duplicates merged.

Arguments: the scale that gradients are divided by; max_norm, before that, for the magnitudes alone;
squared (n,) and largest (n,), out, at the first key of each row.
"""

import numpy as np
from numba import njit, types

from ..intrinsics import borrowed, opaque, part
from .interface import OPTIONS, SUMS, T
from .merged_gradient import merged_gradient
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


NUMBERS = types.Array(types.float64, 1, "C")
ARGUMENTS = types.Tuple([types.float64, types.float64, NUMBERS, NUMBERS])


@njit(**OPTIONS)
def thread_storage(arguments):
    return ()


@njit(**OPTIONS)
def thread_arguments(arguments, storage):
    scale, max_norm, squared, largest = arguments
    return T(opaque(scale)), max_norm, borrowed(squared), borrowed(largest)


@njit(**OPTIONS)
def prefetch_row(arguments, row, width):
    pass


@njit(**OPTIONS)
def process_row(arguments, batch, i, end, row, k):
    scale, max_norm, squared, largest = arguments
    x, partial = merged_gradient(batch, i, end, k), batch[-1]
    sums, tops = part(partial, k, 0, SUMS), part(partial, k, SUMS, 2 * SUMS)
    squared[i] = squares_and_largest(x, scale, sums, tops)
    if max_norm < np.inf:
        largest[i] = largest_clipped(x, scale, max_norm, sums, tops)
    else:
        largest[i] = fold_largest(tops)
