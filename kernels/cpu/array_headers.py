"""The addresses of many NumPy arrays, checked in one call of `loops/array_headers.py`.

In Python the type, shape, flags and address of a thousand arrays take 1.5 ms; in memory, some
microseconds. The fields of an array are those of `kernels.addresses`; those of a list are in
Python's public C interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..addresses import DATA, HEAD
from ..array_types import HostArray
from . import compile

DIMENSIONS, SHAPE, DTYPE, FLAGS = DATA + 8, DATA + 16, DATA + 40, DATA + 48

TYPE = HEAD - 8

SCALAR_TYPE, BYTE_ORDER = HEAD, HEAD + 10
"""Offsets in a dtype (``PyArray_Descr``) of its scalar type's address and of its byte order."""

ITEMS = HEAD + 8
"""The offset in a list (``PyListObject``) of the address of its items."""

ALIGNED, WRITEABLE = 0x100, 0x400
ORDERS = {"C": 0x1, "F": 0x2}


@cache
def _kernel() -> Callable[..., int]:
    names = ("DATA", "DIMENSIONS", "SHAPE", "DTYPE", "FLAGS", "ITEMS", "WRITEABLE", "TYPE",
             "SCALAR_TYPE", "BYTE_ORDER")  # fmt: skip
    fields = [f"{name} = {globals()[name]}" for name in names]
    text = compile.link("array headers", "\n".join(fields), "array_headers")
    compiled: Callable[..., int] = compile.load("array_headers", text).addresses
    return compiled


class AddressFinder(NamedTuple):
    """The check of many NumPy gradients, and what it reads."""

    find: Callable[[int, HostArray], int]
    """(``id`` of a list of gradients, int64 array of the same length) -> number of zeros.

    It writes the address of each gradient; 0 for one that is not as expected, or whose parameter
    is read-only.
    """
    objects: list[Any]
    """The arrays whose headers it reads, kept alive."""


def address_finder(
    updated: Sequence[HostArray],
    expected: Sequence[tuple[HostArray, str] | None],
    ranges: Sequence[tuple[int, int]],
) -> AddressFinder:
    """Make the check that gradients are contiguous, aligned, and alias no memory of the optimizer.

    Parameters
    ----------
    updated : sequence of ndarray
        The parameters as their owner has them, who may make them read-only.
    expected : sequence of (ndarray, {"C", "F"}) or None
        An array of the type, dtype and shape of the gradient, and the order of its memory; None if
        there is no address to find.
    ranges : sequence of (int, int)
        First and last address of memory that no gradient may alias, ascending.
    """
    headers = np.array(
        [
            (id(of[0]), ORDERS[of[1]] | ALIGNED, of[0].nbytes) if of else (0, 0, 0)
            for of in expected
        ],
        np.int64,
    ).reshape(-1, 3).T.copy()  # fmt: skip
    begins, ends = np.array(ranges, np.int64).reshape(-1, 2).T.copy()
    parameters = np.array([id(array) for array in updated], np.int64)
    find = partial(_kernel(), parameters, *headers, begins, ends)
    return AddressFinder(find, [*updated, *(of[0] for of in expected if of)])
