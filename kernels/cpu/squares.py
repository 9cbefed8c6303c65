"""Sums of squares of many arrays on the CPU, a number for each of their spans.

The order of a sum is that of `gpuadapt.kernels.summation`; nothing here knows a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ..codec import needed
from ..formats import Format, load
from ..spans import Spans
from ..summation import LANES, SPAN
from . import module
from .shared import FOLD, SHARED, Shared

_ADD = """

@njit(**OPTIONS)
def {name}(x, scale, lanes):
    for k in range(x.size):
        value = np.float64({value})
        lanes[k] += {term}
"""

_WORK = """

@njit(**OPTIONS)
def work(first, last, spans, addresses, scale, partial):
    rounded = T(scale)
    lanes = np.empty({lanes}, np.float64)
    for s in range(first, last):
        a, start, size = spans[s, 0], spans[s, 1], spans[s, 2]
        partial[s] = 0
        if addresses[a] == 0:
            continue
        lanes[:] = 0
        for j in range(start, start + size, {lanes}):
            x = memory(np.{kept}, addresses[a] + j * {itemsize}, min({lanes}, start + size - j))
            if scale == 1:
                add(x, rounded, lanes)
            else:
                add_scaled(x, rounded, lanes)
        partial[s] = fold(lanes)

"""


@cache
def kernel(compute: str, form: Format, squared: bool = True) -> Callable[..., None]:
    """The compiled kernel: squares of numbers in a format, or the numbers themselves."""
    name = "squares" if squared else "sums"
    term = "value * value" if squared else "value"
    one = load(form, compute, ["x[k]"])
    ((_, kept),) = form.parts
    title = f"{name}, {compute}" + f" of {form.name}" * (form.name != compute)
    text = module.imports(title) + "\n" + module.compute(compute, needed(form.codecs)) + FOLD
    text += _ADD.format(name="add", value=one, term=term)
    text += _ADD.format(name="add_scaled", value=f"{one} / scale", term=term)
    text += _WORK.format(lanes=LANES, kept=kept, itemsize=np.dtype(kept).itemsize)
    text += SHARED.format(
        name="squares", types="LIST, types.float64, NUMBERS", arguments="addresses, scale, partial"
    )
    compiled: Callable[..., None] = module.load(name, text).squares
    return compiled


class Squares:
    """Sums of squares of contiguous arrays of one format, given their sizes."""

    def __init__(
        self, compute: str, form: Format, sizes: Sequence[int], squared: bool = True
    ) -> None:
        self._kind = compute, form, squared
        spans = Spans(sizes, SPAN)
        self._run = Shared(spans)
        self.partials = len(spans.table)
        """How many sums there are."""

    def __call__(self, addresses: np.ndarray, scale: float, partial: np.ndarray) -> None:
        """Write the sums of arrays at these addresses (0: of zeros), divided by ``scale`` first.

        Parameters
        ----------
        addresses : ndarray of int64, shape (arrays,)
        scale : float
            A number of the compute type.
        partial : ndarray of float64, shape (partials,)
        """
        self._run(kernel(*self._kind), addresses, scale, partial)
