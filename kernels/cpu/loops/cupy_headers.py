"""The addresses of many CuPy arrays, read from their objects in memory.

``MEMORY``, ``DTYPE`` and ``SHAPE`` are offsets in bytes of fields of ``cupy.ndarray``: a memory
pointer, a dtype, and the addresses of the first length and behind the last. ``ADDRESS`` and
``DEVICE`` are offsets in the memory pointer.
"""

from numba import njit, types

from .interface import ADDRESS, DEVICE, DTYPE, ENTRY, ITEMS, MEMORY, OPTIONS, SHAPE, TYPE
from .object_fields import AHEAD, fetch, lies_apart, read, read_int, same_dtype


@njit(**OPTIONS)
def has_shape(array, lengths):
    """Whether an array has this shape."""
    first = read(array + SHAPE)
    same = read(array + SHAPE + 8) - first == 8 * lengths.size
    d = 0
    while same and d < lengths.size:
        same = read(first + 8 * d) == lengths[d]
        d += 1
    return same


LIST = types.Array(types.int64, 1, "C")


@njit([types.intp(*[LIST] * 10, types.intp, types.intp, LIST)], **ENTRY)
def addresses(
    classes, starts, lengths, sizes, kinds, dtypes, orders, itemsizes, begins, ends, device, arrays,
    found,
):  # fmt: skip
    """Write the address of each array of a list, or 0 where it is not as expected.

    classes (n,): the address of the Python type of each array. starts (n + 1,): where its shape
    begins and ends in lengths. sizes (n,): its number of elements. kinds (n,): its kind. dtypes,
    orders, itemsizes (kinds,): the address of a dtype, 0 where none is expected, the offset of the
    flag of the order, the bytes of an element. begins, ends (m,), ascending: memory that no array
    may alias. device: its number. arrays: the address of the list. found (n,): the result. Returns
    how many are 0.
    """
    missing = 0
    items = read(arrays + ITEMS)
    for k in range(found.size):
        missing += 1
        found[k] = 0
        array = read(items + 8 * k)
        if k + AHEAD < found.size:
            fetch(read(items + 8 * (k + AHEAD)) + TYPE)
            fetch(read(items + 8 * (k + AHEAD)) + SHAPE)
        kind = kinds[k]
        if dtypes[kind] == 0 or read(array + TYPE) != classes[k]:
            continue
        if not has_shape(array, lengths[starts[k] : starts[k + 1]]):
            continue
        if not same_dtype(read(array + DTYPE), dtypes[kind]):
            continue
        memory = read(array + MEMORY)
        if read_int(array + orders[kind]) == 0 or read_int(memory + DEVICE) != device:
            continue
        low = read(memory + ADDRESS)
        if low != 0 and lies_apart(low, low + sizes[k] * itemsizes[kind], begins, ends):
            found[k] = low
            missing -= 1
    return missing
