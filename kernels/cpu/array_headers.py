"""What is in the headers of many NumPy arrays, read in one call of `loops/array_headers.py`.

In Python the type, shape, flags and address of a thousand arrays take 1.5 ms; in memory, some
microseconds. The fields of an array are those of `kernels.addresses`; those of a list are in
Python's public C interface.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from operator import attrgetter
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ..addresses import DATA, HEAD, Layouts
from ..array_types import HostArray
from . import compile

DIMENSIONS, SHAPE, STRIDES, BASE, DTYPE, FLAGS = (DATA + n for n in (8, 16, 24, 32, 40, 48))

TYPE = HEAD - 8

SCALAR_TYPE, BYTE_ORDER = HEAD, HEAD + 10
"""Offsets in a dtype (``PyArray_Descr``) of its scalar type's address and of its byte order."""

SWAPPED = ord(">" if sys.byteorder == "little" else "<")
"""The byte order of a dtype that this machine has not."""

ITEMS = HEAD + 8
"""The offset in a list (``PyListObject``) of the address of its items."""

ALIGNED, WRITEABLE = 0x100, 0x400
ORDERS = {"C": 0x1, "F": 0x2}


@cache
def _kernels() -> ModuleType:
    names = ("DATA", "DIMENSIONS", "SHAPE", "STRIDES", "BASE", "DTYPE", "FLAGS", "ITEMS",
             "WRITEABLE", "TYPE", "SCALAR_TYPE", "BYTE_ORDER", "SWAPPED")  # fmt: skip
    fields = [f"{name} = {globals()[name]}" for name in names]
    text = compile.link("array headers", "\n".join(fields), "array_headers")
    return compile.load("array_headers", text)


def layouts(arrays: list[HostArray]) -> Layouts:
    """Return where arrays lie in memory."""
    found = np.empty((6, len(arrays)), np.int64)
    _kernels().layouts(id(arrays), found)
    addresses, lows, highs, sizes, flags, bases = found
    highs += np.fromiter(map(attrgetter("itemsize"), arrays), np.int64, len(arrays))
    orders = {name: flags & (bit | ALIGNED) == bit | ALIGNED for name, bit in ORDERS.items()}
    return Layouts(addresses, lows, highs, sizes, orders, bases)


class AddressFinder(NamedTuple):
    """The check of many NumPy gradients, and what it reads."""

    find: Callable[[int, HostArray], int]
    """(``id`` of a list of gradients, int64 array of the same length) -> number of zeros.

    It writes the address of each gradient; 0 for one that is not as expected, or whose parameter
    is read-only or has other memory.
    """
    dtypes: list[np.dtype]
    """Those whose headers it reads, kept alive; who holds the parameters keeps these alive."""


def address_finder(
    updated: Sequence[HostArray],
    like: Sequence[HostArray],
    sizes: HostArray,
    expected: Sequence[tuple[np.dtype, str] | None],
    kinds: HostArray,
    begins: HostArray,
    ends: HostArray,
) -> AddressFinder:
    """Make the check that gradients are contiguous, aligned, and alias no memory of the optimizer.

    Parameters
    ----------
    updated : sequence of ndarray
        The parameters as their owner has them, who may make them read-only, or resize them.
    like : sequence of ndarray
        Views of them, of the type and shape of the gradients.
    sizes : ndarray of int64, shape (n,)
        Their number of elements.
    expected : sequence of (dtype, {"C", "F"}) or None
        Kinds of gradients: the dtype, and the order of the memory. None for a kind that has no
        address to find.
    kinds : ndarray of int64, shape (n,)
        The index of each gradient's kind.
    begins, ends : ndarray of int64, shape (m,)
        First and last address of memory that no gradient may alias, ascending.
    """
    table = [
        (id(of[0]), ORDERS[of[1]] | ALIGNED, of[0].itemsize) if of else (0, 0, 0) for of in expected
    ]
    of_kinds = np.array(table, np.int64).reshape(-1, 3).T.copy()
    headers = [np.fromiter(map(id, arrays), np.int64, len(arrays)) for arrays in (updated, like)]
    find = partial(_kernels().addresses, *headers, sizes, kinds, *of_kinds, begins, ends)
    return AddressFinder(find, [of[0] for of in expected if of])
