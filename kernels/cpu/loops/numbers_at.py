"""Numbers that lie by themselves in memory, each at an address of its own."""

import numpy as np
from numba import njit, types

from ..intrinsics import memory
from .interface import ENTRY

LIST = types.Array(types.int64, 1, "C")
MASK = types.Array(types.boolean, 1, "C")
NUMBERS = types.Array(types.float64, 1, "C")


@njit([types.boolean(LIST, MASK, MASK, NUMBERS)], **ENTRY)
def read_numbers(addresses, wide, used, numbers):
    """Read numbers of float32, or of float64 where ``wide``; tells if all of them are equal.

    addresses, wide, used, numbers (n,): only those that are used, and have an address, are read;
    others become NaN.
    """
    first, alike = np.nan, True
    for k in range(addresses.size):
        numbers[k] = np.nan
        if used[k] and addresses[k] != 0:
            if wide[k]:
                numbers[k] = memory(np.float64, addresses[k], 1)[0]
            else:
                numbers[k] = np.float64(memory(np.float32, addresses[k], 1)[0])
            if first != first:
                first = numbers[k]
            alike = alike and numbers[k] == first
    return alike


@njit([types.boolean(LIST, MASK, MASK, NUMBERS)], **ENTRY)
def successors(addresses, wide, used, numbers):
    """As `read_numbers`, of the numbers plus 1, rounded to their type."""
    alike = read_numbers(addresses, wide, used, numbers)
    for k in range(addresses.size):
        if wide[k]:
            numbers[k] += 1.0
        else:
            numbers[k] = np.float64(np.float32(numbers[k] + 1.0))
    return alike


@njit([types.void(LIST, MASK, MASK, NUMBERS)], **ENTRY)
def write_numbers(addresses, wide, used, numbers):
    """Write numbers where `read_numbers` reads them."""
    for k in range(addresses.size):
        if used[k] and addresses[k] != 0:
            if wide[k]:
                memory(np.float64, addresses[k], 1)[0] = numbers[k]
            else:
                memory(np.float32, addresses[k], 1)[0] = np.float32(numbers[k])
