"""The sum of squares over a row that a row-wise rule reads."""

import numpy as np
from numba import njit

from .interface import OPTIONS, SUMS, squared_value
from .summation import fold


@njit(**OPTIONS)
def row_squares(arrays, scalars, partial):
    gradient = arrays[-1]
    partial[:] = 0
    for start in range(0, gradient.size, SUMS):
        for k in range(min(SUMS, gradient.size - start)):
            value = np.float64(squared_value(start + k, arrays, scalars))
            partial[k] += value * value
    return fold(partial)
