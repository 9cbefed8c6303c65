"""Many NumPy arrays looked at in one call: where they are, if they are what they should be.

Asking a thousand arrays for their type, shape, flags and address takes Python a millisecond
and a half; reading the same from memory takes microseconds. The fields of an array are part of
NumPy's public C interface (``PyArrayObject_fields``), the same in NumPy 1 and 2; those of a list
are part of Python's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from . import compile

HEAD = object.__basicsize__
"""Bytes before an object's own fields; the last 8 of them say what type it is."""

DATA, DIMENSIONS, SHAPE, DTYPE, FLAGS = HEAD, HEAD + 8, HEAD + 16, HEAD + 40, HEAD + 48

TYPE = HEAD - 8

ITEMS = HEAD + 8
"""Where a list (``PyListObject``) has the address of its items."""

ALIGNED, WRITEABLE = 0x100, 0x400
ORDERS = {"C": 0x1, "F": 0x2}


def address(array: np.ndarray) -> int:
    """Where an array's data begins: ``array.ctypes.data``, nine times as fast."""
    return ctypes.c_int64.from_address(id(array) + DATA).value


@cache
def _kernel() -> Callable[..., int]:
    names = ("DATA", "DIMENSIONS", "SHAPE", "DTYPE", "FLAGS", "ITEMS", "WRITEABLE")
    fields = [f"{name} = {globals()[name]}" for name in (*names, "TYPE")]
    text = compile.link("array headers", "\n".join(fields), "array_headers")
    compiled: Callable[..., int] = compile.load("array_headers", text).addresses
    return compiled


class ArrayHeaders:
    """What gradients should be: arrays like these, without gaps, aligned, apart from places.

    Parameters
    ----------
    updated : sequence of ndarray
        The parameters, as their owner has them: it may make them read-only.
    wanted : sequence of (ndarray, {"C", "F"}) or None
        An array, and the order of memory; None for what has no address here.
    places : sequence of (int, int)
        Where memory begins and ends that they may not share, ascending.
    """

    def __init__(
        self,
        updated: Sequence[np.ndarray],
        wanted: Sequence[tuple[np.ndarray, str] | None],
        places: Sequence[tuple[int, int]],
    ) -> None:
        self._kernel = _kernel()
        self._objects = list(updated)
        self._updated = np.array([id(array) for array in updated], np.int64)
        # Views, so that nobody else can change their shapes; and of the type that arrays usually
        # have: there is one object for each, but for arrays that were unpickled.
        self._arrays = [
            (of[0].view(of[0].dtype.type), ORDERS[of[1]]) if of else None for of in wanted
        ]
        self._wanted, self._flags, self._nbytes = np.array(
            [
                (id(of[0]), of[1] | ALIGNED, of[0].nbytes) if of else (0, 0, 0)
                for of in self._arrays
            ],
            np.int64,
        ).reshape(-1, 3).T.copy()  # fmt: skip
        self._begins, self._ends = np.array(places, np.int64).reshape(-1, 2).T.copy()

    def addresses(self, given: list[Any]) -> tuple[np.ndarray, int]:
        """Where the given arrays are, and how many have no address.

        That is 0 for what is not such an array, and where the parameter is read-only.
        """
        found = np.empty(len(self._updated), np.int64)
        if len(given) != len(found):
            raise ValueError(f"got {len(given)} gradients of {len(found)} parameters")
        missing = self._kernel(
            id(given), self._updated, self._wanted, self._flags, self._nbytes,
            self._begins, self._ends, found,
        )  # fmt: skip
        return found, missing
