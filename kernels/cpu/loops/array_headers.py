"""The addresses of many NumPy arrays, read from their headers in memory.

``DATA`` and the other constants are offsets in bytes of fields of ``PyArrayObject_fields``,
``PyArray_Descr`` and ``PyListObject``; ``WRITEABLE`` is a flag of NumPy's.
"""

import numpy as np
from numba import njit, types

from ..intrinsics import memory
from .interface import (
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
    TYPE,
    WRITEABLE,
)


@njit(**OPTIONS)
def read(address):
    return memory(np.int64, address, 1)[0]


@njit(**OPTIONS)
def read_int(address):
    return np.int64(memory(np.int32, address, 1)[0])


@njit(**OPTIONS)
def alike(array, expected):
    """Whether two arrays have one Python type, dtype and shape."""
    if read(array + TYPE) != read(expected + TYPE):
        return False
    dtype, wanted = read(array + DTYPE), read(expected + DTYPE)
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


LIST = types.Array(types.int64, 1, "C")


@njit([types.intp(*[LIST] * 6, types.intp, LIST)], **ENTRY)
def addresses(updated, expected, flags, nbytes, begins, ends, arrays, found):
    """Write the address of each array of a list, or 0 where it is not as expected.

    updated, expected (n,): addresses of parameters and of arrays with the type, dtype and shape of
    gradients, 0 for none. arrays: the address of the list. flags, nbytes (n,): what an array must
    have. begins, ends (m,), ascending: memory that no array may alias. found (n,): the result.
    Returns how many are 0.
    """
    missing = 0
    items = read(arrays + ITEMS)
    for k in range(found.size):
        missing += 1
        found[k] = 0
        array = read(items + 8 * k)
        if expected[k] == 0 or not alike(array, expected[k]):
            continue
        if read_int(array + FLAGS) & flags[k] != flags[k]:
            continue
        if not read_int(updated[k] + FLAGS) & WRITEABLE:
            continue
        low = read(array + DATA)
        first, last = np.intp(0), begins.size
        while first < last:  # how many ranges begin before this array ends
            middle = (first + last) // 2
            if begins[middle] < low + nbytes[k]:
                first = middle + 1
            else:
                last = middle
        if first == 0 or ends[first - 1] <= low:
            found[k] = low
            missing -= 1
    return missing
