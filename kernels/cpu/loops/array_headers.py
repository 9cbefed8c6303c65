"""The addresses of many NumPy arrays, read from their headers in memory.

``DATA`` and the other constants are offsets in bytes of fields of ``PyArrayObject_fields`` and
``PyListObject``; ``WRITEABLE`` is a flag of NumPy's.
"""

import numpy as np
from numba import njit, types

from .interface import (
    BASE,
    DATA,
    DIMENSIONS,
    DTYPE,
    ENTRY,
    FLAGS,
    ITEMS,
    OPTIONS,
    SHAPE,
    STRIDES,
    TYPE,
    WRITEABLE,
)
from .object_fields import AHEAD, fetch, lies_apart, read, read_int, same_dtype


@njit(**OPTIONS)
def alike(array, expected, wanted):
    """Whether an array has the Python type and shape of another, and the wanted dtype."""
    if read(array + TYPE) != read(expected + TYPE):
        return False
    if not same_dtype(read(array + DTYPE), wanted):
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
        if lies_apart(low, low + sizes[k] * itemsizes[kind], begins, ends):
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
