"""Sums of squares of many arrays on the CPU, a number for each of their spans.

The order of a sum is that of `gpuadapt.kernels.summation`; nothing here knows a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ..spans import Spans
from ..summation import LANES, SPAN
from . import module, threads

FOLD = """

@njit(**OPTIONS)
def fold(lanes):
    half = lanes.size // 2
    while half > 0:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]
"""
"""Adds the upper half of lanes to the lower half, until one is left."""

_ADD = """

@njit(**OPTIONS)
def {name}(x, scale, lanes):
    for k in range(x.size):
        value = np.float64({value})
        lanes[k] += {term}
"""

_SQUARES = """

@njit(**OPTIONS)
def work(first, last, spans, addresses, scale, partial):
    lanes = np.empty({lanes}, np.float64)
    for s in range(first, last):
        a, start, size = spans[s, 0], spans[s, 1], spans[s, 2]
        partial[s] = 0
        if addresses[a] == 0:
            continue
        lanes[:] = 0
        for j in range(start, start + size, {lanes}):
            x = memory(T, addresses[a] + j * {itemsize}, min({lanes}, start + size - j))
            if scale == 1:
                add(x, scale, lanes)
            else:
                add_scaled(x, scale, lanes)
        partial[s] = fold(lanes)


TABLE = types.Array(types.int64, 2, "C")
LIST = types.Array(types.int64, 1, "C")
NUMBERS = types.Array(types.float64, 1, "C")


@njit([types.void(LIST, types.int64, TABLE, LIST, LIST, types.float64, NUMBERS, types.boolean)],
      parallel=True, cache=True, **OPTIONS)
def squares(counter, parts, spans, pieces, addresses, scale, partial, serial):
    rounded = T(scale)
    if serial or parts == 1:
        work(np.intp(0), spans.shape[0], spans, addresses, rounded, partial)
    else:
        counter[0] = 0
        for _ in prange(parts):
            while True:
                k = claim(counter, np.int64(1))
                if k >= pieces.size - 1:
                    break
                work(pieces[k], pieces[k + 1], spans, addresses, rounded, partial)
"""


@cache
def kernel(dtype: np.dtype, squared: bool = True) -> Callable[..., None]:
    """The compiled kernel: squares of numbers, or the numbers themselves."""
    name = "squares" if squared else "sums"
    term = "value * value" if squared else "value"
    text = module.imports(f"{name}, {dtype}") + f"\nT = np.{dtype}\n" + FOLD
    text += _ADD.format(name="add", value="x[k]", term=term)
    text += _ADD.format(name="add_scaled", value="x[k] / scale", term=term)
    text += _SQUARES.format(lanes=LANES, itemsize=dtype.itemsize)
    compiled: Callable[..., None] = module.load(name, text).squares
    return compiled


class Squares:
    """Sums of squares of contiguous arrays of one element type, given their sizes."""

    def __init__(self, dtype: np.dtype, sizes: Sequence[int], squared: bool = True) -> None:
        self._dtype, self._squared = dtype, squared
        self._spans = Spans(sizes, SPAN)
        self._counter = np.zeros(1, np.int64)
        self.partials = len(self._spans.table)
        """How many sums there are."""

    def __call__(self, addresses: np.ndarray, scale: float, partial: np.ndarray) -> None:
        """Write the sums of arrays at these addresses (0: of zeros), divided by ``scale`` first.

        Parameters
        ----------
        addresses : ndarray of int64, shape (arrays,)
        scale : float
            Of the arrays' element type.
        partial : ndarray of float64, shape (partials,)
        """
        parts = threads.share(self._spans.total)
        threads.call(
            kernel(self._dtype, self._squared),
            self._counter, parts, self._spans.table, self._spans.pieces, addresses, scale, partial,
        )  # fmt: skip
