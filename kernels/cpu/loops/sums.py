"""Sums of one number a row, in the order of sums of squares: one for each chunk.

Arguments: addresses (arrays,), partial (chunks,).
"""

import numpy as np
from numba import njit, types

from .interface import LANES, OPTIONS, elements_at, value_of
from .summation import fold

ARGUMENTS = types.Tuple([types.Array(types.int64, 1, "C"), types.Array(types.float64, 1, "C")])


@njit(**OPTIONS)
def run_chunks(first, last, chunks, arguments):
    addresses, partial = arguments
    lanes = np.empty(LANES, np.float64)
    for c in range(first, last):
        array, start, size = chunks[c, 0], chunks[c, 1], chunks[c, 2]
        lanes[:] = 0
        for j in range(start, start + size, LANES):
            x = elements_at(addresses[array], j, min(LANES, start + size - j))
            for k in range(x.size):
                lanes[k] += np.float64(value_of(x, k))
        partial[c] = fold(lanes)
