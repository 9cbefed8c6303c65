"""The addresses of NumPy arrays, read from their headers.

The fields of an array are in NumPy's public C interface (``PyArrayObject_fields``), the same in
NumPy 1 and 2.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from .array_types import HostArray

HEAD = object.__basicsize__
"""Bytes before an object's own fields; the last 8 of them are the address of its type."""

DATA = HEAD
"""The offset in an array's header of the address of its data."""

_read = ctypes.c_int64.from_address


def address(array: HostArray) -> int:
    """Return the address of an array's data: ``array.ctypes.data``, several times as fast."""
    return _read(id(array) + DATA).value


def same_memory(array: HostArray, view: HostArray) -> bool:
    """Whether an array still has the memory of a view of all of it, which was made earlier."""
    now, then = _read(id(array) + DATA).value, _read(id(view) + DATA).value
    return bool(now == then and array.nbytes == view.nbytes)


class Layouts(NamedTuple):
    """The memory of many arrays; ndarrays of int64, shape (arrays,), orders of bool."""

    addresses: HostArray
    """The address of the first element."""
    lows: HostArray
    """The address of the lowest element."""
    highs: HostArray
    """The address behind the highest element."""
    sizes: HostArray
    """Number of elements."""
    orders: dict[str, HostArray]
    """For "C" and "F": is the array contiguous in that order, and aligned?"""
    bases: HostArray
    """The ``id`` of the object whose memory a NumPy array is a view of; 0 for none."""
