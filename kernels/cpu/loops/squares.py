"""Sums of squares of many arrays, and their largest magnitudes: two numbers for each chunk.

Arguments: addresses (arrays,) or 0 for zeros, the scale that elements are divided by first,
partial (chunks,) for the sums and peaks (chunks,) for the largest magnitudes.
"""

import numpy as np
from numba import njit, types

from ..intrinsics import opaque
from .interface import INLINE, LANES, OPTIONS, T, elements_at, value_of
from .summation import fold, fold_largest

ARGUMENTS = types.Tuple(
    [
        types.Array(types.int64, 1, "C"),
        types.float64,
        types.Array(types.float64, 1, "C"),
        types.Array(types.float64, 1, "C"),
    ]
)


@njit(**INLINE)
def accumulate(k, number, lanes, tops):
    value = np.float64(number)
    lanes[k] += value * value
    size = np.abs(number)
    tops[k] = size if size > tops[k] else tops[k]


@njit(**OPTIONS)
def add(x, lanes, tops):
    for k in range(x.size):
        accumulate(k, value_of(x, k), lanes, tops)


@njit(**OPTIONS)
def add_scaled(x, scale, lanes, tops):
    for k in range(x.size):
        accumulate(k, value_of(x, k) / scale, lanes, tops)


@njit(**OPTIONS)
def run_chunks(first, last, chunks, arguments):
    addresses, scale, partial, peaks = arguments
    rounded = T(opaque(scale))
    lanes, tops = np.empty(LANES, np.float64), np.empty(LANES, T)
    for c in range(first, last):
        array, start, size = chunks[c, 0], chunks[c, 1], chunks[c, 2]
        partial[c] = 0
        peaks[c] = 0
        if addresses[array] == 0:
            continue
        lanes[:] = 0
        tops[:] = 0
        for j in range(start, start + size, LANES):
            x = elements_at(addresses[array], j, min(LANES, start + size - j))
            if scale == 1:
                add(x, lanes, tops)
            else:
                add_scaled(x, rounded, lanes, tops)
        partial[c] = fold(lanes)
        peaks[c] = fold_largest(tops)
