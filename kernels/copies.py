"""Arrays with gaps, for updates that go by C's order: copied before, and written back after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Copies:
    """Arrays without gaps in the place of some.

    Parameters
    ----------
    arrays : sequence of arrays
    whole : function of an array
        Whether it has no gaps.
    empty : function of (shape, dtype)
        Makes an array.

    Attributes
    ----------
    arrays : list of arrays
        Those that are whole, and copies of the others.
    """

    def __init__(
        self, arrays: Sequence[Any], whole: Callable[[Any], bool], empty: Callable[..., Any]
    ) -> None:
        self.arrays = [
            array if whole(array) else empty(array.shape, array.dtype) for array in arrays
        ]
        self._pairs = [
            (array, copy)
            for array, copy in zip(arrays, self.arrays, strict=True)
            if array is not copy
        ]

    def read(self) -> None:
        """Fill the copies."""
        for array, copy in self._pairs:
            copy[...] = array

    def write(self) -> None:
        """Write the copies back."""
        for array, copy in self._pairs:
            array[...] = copy
