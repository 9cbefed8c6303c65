"""Contiguous copies of arrays with gaps, for kernels that number elements in C order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .array_types import Array
from .commit import Call


class ContiguousCopies:
    """Arrays, with contiguous copies in the place of others.

    Parameters
    ----------
    arrays : sequence of arrays
    is_contiguous : function of an array
    empty : function of (shape, dtype)

    Attributes
    ----------
    arrays : list of arrays
        Contiguous arrays themselves, and copies of the others.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        is_contiguous: Callable[[Array], bool],
        empty: Callable[..., Array],
    ) -> None:
        self.arrays = [a if is_contiguous(a) else empty(a.shape, a.dtype) for a in arrays]
        pairs = zip(arrays, self.arrays, strict=True)
        self._pairs = [(array, copy) for array, copy in pairs if array is not copy]

    def read(self) -> None:
        """Fill the copies from the arrays."""
        for array, copy in self._pairs:
            copy[...] = array

    def writes(self) -> list[Call]:
        """The calls that write the copies back to the arrays."""
        return [(array.__setitem__, ..., copy) for array, copy in self._pairs]
