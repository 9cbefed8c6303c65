"""The order of sums: lanes, folded in halves; see `gpuadapt.kernels.numerics.summation`."""

import numpy as np
from numba import njit

from .interface import OPTIONS


@njit(**OPTIONS)
def fold(lanes):
    """Add the upper half of the lanes to the lower half, until one is left."""
    half = lanes.size // 2
    while half > 0:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]


@njit(**OPTIONS)
def fold_largest(lanes):
    """As `fold`, with the larger of two numbers in place of their sum."""
    half = lanes.size // 2
    while half > 0:
        for k in range(half):
            lanes[k] = lanes[k + half] if lanes[k + half] > lanes[k] else lanes[k]
        half //= 2
    return np.float64(lanes[0])
