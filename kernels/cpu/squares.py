"""Sums of squares of many arrays on the CPU, and their largest magnitudes: two for each span.

The order of a sum is that of `gpuadapt.kernels.numerics.summation`; nothing here knows a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ..formats import Format, load, needed
from ..numerics.chunks import Spans
from ..numerics.summation import LANES, SPAN
from . import compile
from .scheduler import FOLD, SHARED, Shared

_ADD = """

@njit(**OPTIONS)
def {name}(x, scale, lanes{tops}):
    for k in range(x.size):
        number = {value}
        value = np.float64(number)
        lanes[k] += {term}{largest}
"""

_LARGEST = """
        size = np.abs(number)
        tops[k] = size if size > tops[k] else tops[k]"""

TOP = """

@njit(**OPTIONS)
def top(lanes):
    half = lanes.size // 2
    while half > 0:
        for k in range(half):
            lanes[k] = lanes[k + half] if lanes[k + half] > lanes[k] else lanes[k]
        half //= 2
    return np.float64(lanes[0])
"""
"""As `FOLD`, of the largest."""

_PEAKS = {
    "peaks": ", peaks",
    "tops": ", tops",
    "room": f"\n    tops = np.empty({LANES}, T)",
    "none": "\n        peaks[s] = 0",
    "zeros": "\n        tops[:] = 0",
    "top": "\n        peaks[s] = top(tops)",
    "largest": _LARGEST,
}
"""What is there if the largest magnitude is looked for."""

_WORK = """

@njit(**OPTIONS)
def work(first, last, spans, addresses, scale, partial{peaks}):
    rounded = T(opaque(scale))
    lanes = np.empty({lanes}, np.float64){room}
    for s in range(first, last):
        a, start, size = spans[s, 0], spans[s, 1], spans[s, 2]
        partial[s] = 0{none}
        if addresses[a] == 0:
            continue
        lanes[:] = 0{zeros}
        for j in range(start, start + size, {lanes}):
            x = memory(np.{kept}, addresses[a] + j * {itemsize}, min({lanes}, start + size - j))
            if scale == 1:
                add(x, rounded, lanes{tops})
            else:
                add_scaled(x, rounded, lanes{tops})
        partial[s] = fold(lanes){top}

"""


@cache
def kernel(compute: str, form: Format, squared: bool = True) -> Callable[..., None]:
    """The compiled kernel: squares of numbers in a format, or the numbers themselves."""
    name = "squares" if squared else "sums"
    term = "value * value" if squared else "value"
    one = load(form, compute, ["x[k]"])
    ((_, kept),) = form.parts
    title = f"{name}, {compute}" + f" of {form.name}" * (form.name != compute)
    text = compile.imports(title) + "\n" + compile.compute(compute, needed(form.conversions)) + FOLD
    more = _PEAKS if squared else dict.fromkeys(_PEAKS, "")
    text += TOP if squared else ""
    text += _ADD.format(name="add", value=one, term=term, **more)
    text += _ADD.format(name="add_scaled", value=f"{one} / scale", term=term, **more)
    text += _WORK.format(lanes=LANES, kept=kept, itemsize=np.dtype(kept).itemsize, **more)
    text += SHARED.format(
        name="squares",
        types="LIST, types.float64, NUMBERS" + ", NUMBERS" * squared,
        arguments=f"addresses, scale, partial{more['peaks']}",
    )
    compiled: Callable[..., None] = compile.load(name, text).squares
    return compiled


class Squares:
    """Sums of squares of contiguous arrays of one format, given their sizes.

    Not ``squared``: sums of the numbers themselves, which have no largest magnitudes beside them.
    """

    def __init__(
        self, compute: str, form: Format, sizes: Sequence[int], squared: bool = True
    ) -> None:
        self._kind = compute, form, squared
        spans = Spans(sizes, SPAN)
        self._run, self._squared = Shared(spans), squared
        self.partials = len(spans.table)
        """How many sums there are."""

    def __call__(
        self,
        addresses: np.ndarray,
        scale: float,
        partial: np.ndarray,
        peaks: np.ndarray | None = None,
    ) -> None:
        """Write the sums of arrays at these addresses (0: of zeros), divided by ``scale`` first.

        Parameters
        ----------
        addresses : ndarray of int64, shape (arrays,)
        scale : float
            A number of the compute type.
        partial, peaks : ndarray of float64, shape (partials,)
            For the sums, and for the largest magnitudes.
        """
        self._run(kernel(*self._kind), addresses, scale, partial, *[peaks] * self._squared)
