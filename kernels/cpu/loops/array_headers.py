"""The addresses of many NumPy arrays, read from their headers in memory.

``DATA`` and the other constants are offsets in bytes of fields of ``PyArrayObject_fields``,
``PyArray_Descr`` and ``PyListObject``; ``WRITEABLE`` is a flag of NumPy's.
"""

import numpy as np
from numba import njit, types

from ..intrinsics import memory, prefetch
from .interface import (
    BASE,
    BYTE_ORDER,
    DATA,
    DIMENSIONS,
    DTYPE,
    ENTRY,
    FLAGS,
    ITEMS,
    OPTIONS,
    SCALAR_TYPE,
    SHAPE,
    STRIDES,
    TYPE,
    WRITEABLE,
)

AHEAD = 16
"""Headers are fetched so many arrays ahead: they lie anywhere in memory. 1.35 times as fast."""


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
def alike(array, expected, wanted):
    """Whether an array has the Python type and shape of another, and the wanted dtype."""
    if read(array + TYPE) != read(expected + TYPE):
        return False
    dtype = read(array + DTYPE)
    # Arrays that were unpickled have dtype objects of their own, of the same type and byte order.
    if dtype != wanted and (
        read(dtype + SCALAR_TYPE) != read(wanted + SCALAR_TYPE)
        or memory(np.uint8, dtype + BYTE_ORDER, 1)[0] != memory(np.uint8, wanted + BYTE_ORDER, 1)[0]
    ):
        return False
    dimensions = read_int(expected + DIMENSIONS)
    if read_int(array + DIMENSIONS) != dimensions:
        return False
    for d in range(dimensions):
        if read(read(array + SHAPE) + 8 * d) != read(read(expected + SHAPE) + 8 * d):
            return False
    return True


@njit(**OPTIONS)
def in_place(array, view, size):
    """Whether an array still has the memory of a view of it, which has so many elements."""
    if read(array + DATA) != read(view + DATA):
        return False
    found = np.int64(1)
    for d in range(read_int(array + DIMENSIONS)):
        found *= read(read(array + SHAPE) + 8 * d)
    return found == size


LIST = types.Array(types.int64, 1, "C")


@njit([types.intp(*[LIST] * 9, types.intp, LIST)], **ENTRY)
def addresses(updated, like, sizes, kinds, dtypes, flags, itemsizes, begins, ends, arrays, found):
    """Write the address of each array of a list, or 0 where it is not as expected.

    updated, like, sizes (n,): addresses of the headers of parameters and of views of them, which
    have the type and shape of gradients, and their number of elements. kinds (n,): the kind of each
    gradient. dtypes, flags, itemsizes (kinds,): the address of its dtype, 0 where none is expected,
    the flags that it must have, the bytes of an element. begins, ends (m,), ascending: memory that
    no array may alias. arrays: the address of the list. found (n,): the result. Returns how many
    are 0.
    """
    missing = 0
    items = read(arrays + ITEMS)
    for k in range(found.size):
        missing += 1
        found[k] = 0
        array = read(items + 8 * k)
        if k + AHEAD < found.size:
            fetch(read(items + 8 * (k + AHEAD)) + TYPE)
            fetch(read(items + 8 * (k + AHEAD)) + FLAGS)
            fetch(like[k + AHEAD] + DIMENSIONS)
            fetch(updated[k + AHEAD] + FLAGS)
        kind = kinds[k]
        if dtypes[kind] == 0 or not alike(array, like[k], dtypes[kind]):
            continue
        if read_int(array + FLAGS) & flags[kind] != flags[kind]:
            continue
        if not (
            read_int(updated[k] + FLAGS) & WRITEABLE and in_place(updated[k], like[k], sizes[k])
        ):
            continue
        low = read(array + DATA)
        high = low + sizes[k] * itemsizes[kind]
        first, last = np.intp(0), begins.size
        while first < last:  # how many ranges begin before this array ends
            middle = (first + last) // 2
            if begins[middle] < high:
                first = middle + 1
            else:
                last = middle
        if first == 0 or ends[first - 1] <= low:
            found[k] = low
            missing -= 1
    return missing


@njit([types.void(types.intp, types.Array(types.int64, 2, "C"))], **ENTRY)
def layouts(arrays, found):
    """Write the addresses of each array's first, lowest and highest element, its size, flags, base.

    arrays: the address of a list. found (6, n): the result.
    """
    items = read(arrays + ITEMS)
    for k in range(found.shape[1]):
        array = read(items + 8 * k)
        low = high = read(array + DATA)
        size = np.int64(1)
        for d in range(read_int(array + DIMENSIONS)):
            length = read(read(array + SHAPE) + 8 * d)
            extent = (length - 1) * read(read(array + STRIDES) + 8 * d)
            low, high = low + min(extent, 0), high + max(extent, 0)
            size *= length
        found[0, k], found[1, k], found[2, k] = read(array + DATA), low, high
        found[3, k], found[4, k], found[5, k] = size, read_int(array + FLAGS), read(array + BASE)
