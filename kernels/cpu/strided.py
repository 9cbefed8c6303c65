"""One array on the CPU, of any strides; `many` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..copies import ContiguousCopies
from ..formats import Formats, Operand
from ..language.rule import Rule
from ..numerics.overflow import kind
from ..numerics.scalar_layout import SCALE
from ..numerics.summation import SPAN
from . import multi_tensor
from .array_headers import address
from .multi_tensor import kernel, source  # noqa: F401  (there is no other one)
from .squares import Squares


class Strided:
    """Updates one array in place."""

    def __init__(self, rule: Rule, formats: Formats, operand: Operand) -> None:
        self._arrays, self._rule, self._formats = operand.arrays, rule, formats
        self.kind = kind(rule, formats)
        self._copies = ContiguousCopies(() if formats.uniform else self._arrays, _whole, np.empty)
        arrays = self._arrays if formats.uniform else self._copies.arrays
        self._many = None
        if all(map(_whole, arrays)) and arrays[0].size:
            self._many = multi_tensor.MultiTensor(rule, formats, [operand._replace(arrays=arrays)])
        multi_tensor.kernel(rule, formats)  # compiled before anything is written

    def __call__(self, gradient: np.ndarray, first: int, numbers: np.ndarray) -> None:
        """Update; ``numbers[first]`` is the first coefficient."""
        firsts = np.array([first], np.int64)
        if self._many and not self._formats.uniform:
            gradient = np.require(gradient, requirements=["C", "A"])
        if self._many and gradient.flags.c_contiguous and gradient.flags.aligned:
            self._copies.read()
            self._many(_address(gradient), firsts, numbers)
            self._copies.write()
        elif self._arrays[0].size:
            self._by_parts([self._arrays[0], gradient, *self._arrays[1:]], firsts, numbers)

    def _by_parts(
        self, operands: Sequence[np.ndarray], firsts: np.ndarray, numbers: np.ndarray
    ) -> None:
        """NumPy's iterator hands over contiguous parts of arrays of one element type.

        Views where it can, else copies of `buffersize` elements that it writes back.
        """
        flags: list[Any] = [["readwrite", "contig", "aligned"] for _ in operands]
        flags[1] = ["readonly", "contig", "aligned"]
        iterator = np.nditer(
            operands,
            flags=["external_loop", "buffered"],
            op_flags=flags,
            buffersize=multi_tensor.SPAN,
        )
        part = multi_tensor.Part(self._rule, self._formats)
        with iterator:
            for parts in iterator:
                part(parts, firsts, numbers)

    def partials(self, gradient: np.ndarray) -> int:
        """How many numbers `squares` writes."""
        return -(-gradient.size // SPAN)

    def squares(
        self, gradient: np.ndarray, numbers: np.ndarray, partial: np.ndarray, peaks: np.ndarray
    ) -> None:
        """Write sums of squares of the gradient, divided by the scale, in C order.

        And largest magnitudes, to ``peaks``.
        """
        formats = self._formats
        for k in range(self.partials(gradient)):
            part = gradient.flat[k * SPAN : (k + 1) * SPAN]
            squares = Squares(formats.wide, formats.gradient, [part.size])
            squares(_address(part), numbers[SCALE], partial[k : k + 1], peaks[k : k + 1])


def _whole(array: np.ndarray) -> bool:
    return array.flags.carray


def _address(array: np.ndarray) -> np.ndarray:
    return np.array([address(array)], np.int64)
