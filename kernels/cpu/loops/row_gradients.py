"""The gradient of one row: occurrences added in order, divided, clipped."""

import numpy as np
from numba import njit

from .interface import OPTIONS, SUMS, W, value_of
from .summation import fold


@njit(**OPTIONS)
def copy(target, gradient):
    for j in range(target.size):
        target[j] = value_of(gradient, j)


@njit(**OPTIONS)
def add(target, gradient):
    for j in range(target.size):
        target[j] += value_of(gradient, j)


@njit(**OPTIONS)
def copy_merged(target, source):
    for j in range(target.size):
        target[j] = source[j]


@njit(**OPTIONS)
def divide(x, count):
    for i in range(x.size):
        x[i] /= count


@njit(**OPTIONS)
def squares(x, partial):
    """The sum of squares; ``partial`` (SUMS,) is scratch."""
    partial[:] = 0
    for start in range(0, x.size, SUMS):
        for k in range(min(SUMS, x.size - start)):
            value = np.float64(x[start + k])
            partial[k] += value * value
    return fold(partial)


@njit(**OPTIONS)
def clip(x, max_norm, partial):
    norm = np.sqrt(squares(x, partial))
    if norm > max_norm:
        factor = W(max_norm / norm)
        for i in range(x.size):
            x[i] *= factor
