"""The update of one array of any strides, by the kernel of `multi_tensor` in contiguous parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..addresses import address
from ..array_types import HostArray
from ..commit import Call
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

GRADIENT = 1
"""The place of the gradient among the arrays of an update."""


class Strided:
    """Updates one array in place.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    operand : Operand
        Arrays of one shape, with any strides.
    threads : Threads, optional
        See `calling.Threads`.
    """

    def __init__(
        self, rule: Rule, formats: Formats, operand: Operand, threads: Threads = None
    ) -> None:
        self._arrays, self._formats = operand.arrays, formats
        self.overflow_check = check_of(rule, formats)
        copied = () if formats.uniform else self._arrays
        self._copies = ContiguousCopies(copied, _contiguous, np.empty)
        arrays = self._arrays if formats.uniform else self._copies.arrays
        self._whole = None
        if all(map(_contiguous, arrays)) and arrays[0].size:
            operands = [operand._replace(arrays=arrays)]
            self._whole = multi_tensor.MultiTensor(rule, formats, operands, threads)
        self._kernel = multi_tensor.kernel(rule, formats)  # compiled before anything is written

    def calls(self, gradient: HostArray, offset: int, numbers: HostArray) -> list[Call]:
        """The calls that update; ``numbers[offset]`` is the first coefficient."""
        if not self._arrays[0].size:
            return []
        offsets = np.array([offset], np.int64)
        if self._whole and not self._formats.uniform:
            gradient = np.require(gradient, requirements=["C", "A"])
        if not (self._whole and _contiguous(gradient)):
            return self._by_blocks([self._arrays[0], gradient, *self._arrays[1:]], offsets, numbers)
        self._copies.read()
        updates = self._whole.calls(_address(gradient), offsets, numbers)
        # The gradient, which may be a new array, lives as long as the calls.
        return [*updates, *self._copies.writes(), (id, gradient)]

    def _by_blocks(
        self, operands: Sequence[HostArray], offsets: HostArray, numbers: HostArray
    ) -> list[Call]:
        """The calls that copy a block of each array, update the copies and write them back.

        Parts of an array that are contiguous are not copied.
        """
        order = np.argsort([-abs(stride) for stride in operands[0].strides], kind="stable")
        operands = [array.transpose(order) for array in operands]
        copies = [np.empty(multi_tensor.CHUNK, array.dtype) for array in operands]
        unused, counters = np.zeros(1, np.int64), np.zeros((1, 8), np.int64)
        calls: list[Call] = []
        for parts in _blocks(operands):
            shape, size = parts[0].shape, parts[0].size
            used, writes = [], list[Call]()
            for k, (part, copy) in enumerate(zip(parts, copies, strict=True)):
                if _contiguous(part):
                    used.append(address(part))
                    continue
                here = copy[:size].reshape(shape)
                used.append(address(here))
                calls.append((here.__setitem__, ..., part))
                if k != GRADIENT:
                    writes.append((part.__setitem__, ..., here))
            gradient = np.array([used.pop(GRADIENT)])
            arguments = np.array([used]), gradient, offsets, numbers, False
            chunk = np.array([[0, 0, size]])
            calls.append((self._kernel, counters, 1, chunk, unused, arguments, 0))
            calls += writes
        return calls

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


def _blocks(arrays: Sequence[HostArray]) -> Iterator[list[HostArray]]:
    """Arrays of one shape, cut into views of up to `multi_tensor.CHUNK` elements."""
    if arrays[0].size <= multi_tensor.CHUNK:
        yield [*arrays]
        return
    count = len(arrays[0])
    each = max(1, multi_tensor.CHUNK * count // arrays[0].size)
    for first in range(0, count, each):
        parts = [array[first : first + each] for array in arrays]
        yield from _blocks([part[0] for part in parts] if each == 1 else parts)


def _contiguous(array: HostArray) -> bool:
    return array.flags.c_contiguous and array.flags.aligned


def _address(array: HostArray) -> HostArray:
    return np.array([address(array)], np.int64)
