"""The order of sums: lanes, folded in halves; see `gpuadapt.kernels.numerics.summation`.

The number of lanes is hidden from the compiler. Where it was known, the machine code of the rows'
kernel left out four of 32 lanes on an EPYC (Zen 3) with llvmlite 0.50; `fold` by itself was right.
"""

import numpy as np
from numba import njit

from ..intrinsics import opaque
from .interface import OPTIONS


@njit(**OPTIONS)
def fold(lanes):
    """Add the upper half of the lanes to the lower half, until one is left."""
    half = opaque(lanes.size) // 2
    while half > 0:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]


@njit(**OPTIONS)
def fold_largest(lanes):
    """As `fold`, with the larger of two numbers in place of their sum."""
    half = opaque(lanes.size) // 2
    while half > 0:
        for k in range(half):
            lanes[k] = lanes[k + half] if lanes[k + half] > lanes[k] else lanes[k]
        half //= 2
    return np.float64(lanes[0])
