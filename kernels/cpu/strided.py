"""The update of one array of any strides, by the kernel of `multi_tensor` in contiguous parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..addresses import address
from ..array_types import HostArray
from ..copies import ContiguousCopies
from ..formats import Formats, Operand
from ..language.rule import Rule
from ..numerics.overflow import check_of
from ..numerics.scalar_layout import SCALE
from ..numerics.summation import CHUNK
from . import multi_tensor
from .calling import Threads
from .multi_tensor import kernel, source  # noqa: F401  (the same for one array)
from .squares import Squares


class Strided:
    """Updates one array in place.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    operand : Operand
        Arrays of one shape, with any strides.
    threads : Threads, optional
        See `calling.Threads`; parts of an array with gaps are updated by the calling thread.
    """

    def __init__(
        self, rule: Rule, formats: Formats, operand: Operand, threads: Threads = None
    ) -> None:
        self._arrays, self._rule, self._formats = operand.arrays, rule, formats
        self.overflow_check = check_of(rule, formats)
        copied = () if formats.uniform else self._arrays
        self._copies = ContiguousCopies(copied, _contiguous, np.empty)
        arrays = self._arrays if formats.uniform else self._copies.arrays
        self._whole = None
        if all(map(_contiguous, arrays)) and arrays[0].size:
            operands = [operand._replace(arrays=arrays)]
            self._whole = multi_tensor.MultiTensor(rule, formats, operands, threads)
        multi_tensor.kernel(rule, formats)  # compiled before anything is written

    def __call__(self, gradient: HostArray, offset: int, numbers: HostArray) -> None:
        """Update; ``numbers[offset]`` is the first coefficient."""
        offsets = np.array([offset], np.int64)
        if self._whole and not self._formats.uniform:
            gradient = np.require(gradient, requirements=["C", "A"])
        if self._whole and gradient.flags.c_contiguous and gradient.flags.aligned:
            self._copies.read()
            self._whole(_address(gradient), offsets, numbers)
            self._copies.write()
        elif self._arrays[0].size:
            self._by_parts([self._arrays[0], gradient, *self._arrays[1:]], offsets, numbers)

    def _by_parts(
        self, operands: Sequence[HostArray], offsets: HostArray, numbers: HostArray
    ) -> None:
        """Update the contiguous parts that NumPy's iterator makes.

        They are views where that is possible, else copies of ``buffersize`` elements, which the
        iterator writes back.
        """
        flags: list[Any] = [["readwrite", "contig", "aligned"] for _ in operands]
        flags[1] = ["readonly", "contig", "aligned"]
        iterator = np.nditer(
            operands,
            flags=["external_loop", "buffered"],
            op_flags=flags,
            buffersize=multi_tensor.CHUNK,
        )
        part = multi_tensor.Part(self._rule, self._formats)
        with iterator:
            for parts in iterator:
                part(parts, offsets, numbers)

    def partials(self, gradient: HostArray) -> int:
        """Return the length of each result of `squares`."""
        return -(-gradient.size // CHUNK)

    def squares(
        self, gradient: HostArray, numbers: HostArray, partial: HostArray, peaks: HostArray
    ) -> None:
        """Write sums of squares and largest magnitudes of the unscaled gradient, in C order."""
        formats = self._formats
        for k in range(self.partials(gradient)):
            part = gradient.flat[k * CHUNK : (k + 1) * CHUNK]
            squares = Squares(formats.wide, formats.gradient, [part.size])
            squares(_address(part), numbers[SCALE], partial[k : k + 1], peaks[k : k + 1])


def _contiguous(array: HostArray) -> bool:
    return array.flags.carray


def _address(array: HostArray) -> HostArray:
    return np.array([address(array)], np.int64)
