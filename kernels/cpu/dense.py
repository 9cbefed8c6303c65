"""One array on the CPU, of any strides; `many` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..numbers import SCALE
from ..rule import Rule
from ..summation import SPAN
from . import many
from .headers import address
from .many import kernel, source  # noqa: F401  (there is no other one)
from .squares import Squares


class Dense:
    """Updates one array in place."""

    def __init__(self, rule: Rule, parameter: np.ndarray, states: Sequence[np.ndarray]) -> None:
        self._arrays, self._rule = (parameter, *states), rule
        whole = parameter.size and all(array.flags.carray for array in self._arrays)
        self._many = many.Many(rule, [self._arrays]) if whole else None
        many.kernel(rule, parameter.dtype)  # compiled before anything is written

    def __call__(self, gradient: np.ndarray, first: int, numbers: np.ndarray) -> None:
        """Update; ``numbers[first]`` is the first coefficient."""
        firsts = np.array([first], np.int64)
        if self._many and gradient.flags.c_contiguous and gradient.flags.aligned:
            self._many(_address(gradient), firsts, numbers)
            return
        # NumPy's iterator hands over contiguous parts: views where it can, else copies
        # of `buffersize` elements that it writes back.
        parameter, *states = self._arrays
        operands = [parameter, gradient, *states]
        flags: list[Any] = [["readwrite", "contig", "aligned"] for _ in operands]
        flags[1] = ["readonly", "contig", "aligned"]
        iterator = np.nditer(
            operands,
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=flags,
            buffersize=many.SPAN,
        )
        part = many.Part(self._rule, parameter.dtype)
        with iterator:
            for parts in iterator:
                part(parts, firsts, numbers)

    def partials(self, gradient: np.ndarray) -> int:
        """How many numbers `squares` writes."""
        return -(-gradient.size // SPAN)

    def squares(self, gradient: np.ndarray, numbers: np.ndarray, partial: np.ndarray) -> None:
        """Write sums of squares of the gradient, divided by the scale, in C order."""
        for k in range(self.partials(gradient)):
            part = gradient.flat[k * SPAN : (k + 1) * SPAN]
            Squares(part.dtype, [part.size])(_address(part), numbers[SCALE], partial[k : k + 1])


def _address(array: np.ndarray) -> np.ndarray:
    return np.array([address(array)], np.int64)
