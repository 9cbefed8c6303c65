"""The addresses of many NumPy arrays, checked in one call of `loops/array_headers.py`.

In Python the type, shape, flags and address of a thousand arrays take 1.5 ms; in memory, some
microseconds. The fields of an array are those of `kernels.addresses`; those of a list are in
Python's public C interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..addresses import DATA, HEAD
from ..array_types import HostArray
from . import compile

DIMENSIONS, SHAPE, DTYPE, FLAGS = DATA + 8, DATA + 16, DATA + 40, DATA + 48

TYPE = HEAD - 8

ITEMS = HEAD + 8
"""The offset in a list (``PyListObject``) of the address of its items."""

ALIGNED, WRITEABLE = 0x100, 0x400
ORDERS = {"C": 0x1, "F": 0x2}


@cache
def _kernel() -> Callable[..., int]:
    names = ("DATA", "DIMENSIONS", "SHAPE", "DTYPE", "FLAGS", "ITEMS", "WRITEABLE")
    fields = [f"{name} = {globals()[name]}" for name in (*names, "TYPE")]
    text = compile.link("array headers", "\n".join(fields), "array_headers")
    compiled: Callable[..., int] = compile.load("array_headers", text).addresses
    return compiled


class ArrayHeaders:
    """The expected gradients: contiguous and aligned arrays that alias no memory of the optimizer.

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

    def __init__(
        self,
        updated: Sequence[HostArray],
        expected: Sequence[tuple[HostArray, str] | None],
        ranges: Sequence[tuple[int, int]],
    ) -> None:
        self._kernel = _kernel()
        self._objects = list(updated)
        self._updated = np.array([id(array) for array in updated], np.int64)
        # Views, so that nobody else can change their shapes. Their dtype is the object that arrays
        # usually have; arrays that were unpickled have others.
        given = {id(of[0]): of[0] for of in expected if of}
        self._views = {key: array.view(array.dtype.type) for key, array in given.items()}
        sizes = {key: view.nbytes for key, view in self._views.items()}
        rows = [
            (id(self._views[id(of[0])]), ORDERS[of[1]] | ALIGNED, sizes[id(of[0])])
            if of
            else (0, 0, 0)
            for of in expected
        ]
        columns = np.array(rows, np.int64).reshape(-1, 3).T.copy()
        self._expected, self._flags, self._nbytes = columns
        self._begins, self._ends = np.array(ranges, np.int64).reshape(-1, 2).T.copy()

    def addresses(self, gradients: list[Any]) -> tuple[HostArray, int]:
        """Return the addresses of gradients and how many of them are 0.

        The address is 0 if the gradient is not as expected, or if its parameter is read-only.
        """
        found = np.empty(len(self._updated), np.int64)
        if len(gradients) != len(found):
            raise ValueError(f"got {len(gradients)} gradients of {len(found)} parameters")
        missing = self._kernel(
            id(gradients), self._updated, self._expected, self._flags, self._nbytes,
            self._begins, self._ends, found,
        )  # fmt: skip
        return found, missing
