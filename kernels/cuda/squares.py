"""Sums of squares of many arrays on the GPU, and their largest magnitudes.

Two numbers and a block for each of their spans.

The order of a sum is that of `gpuadapt.kernels.numerics.summation`; nothing here knows a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ..formats import Format, load, needed
from ..numerics.chunks import Spans
from ..numerics.scalar_layout import SCALE
from ..numerics.summation import LANES, SPAN
from . import compile, generate
from .generate import PLACE, TYPES

_SQUARES = r"""
}  // namespace gpuadapt

extern "C" __global__ void %(name)s(
    const long long *__restrict__ spans, const unsigned long long *__restrict__ addresses,
    const long long *__restrict__ layout, const double *__restrict__ numbers, double *partial,
    double *peaks
) {
    using namespace gpuadapt;
    typedef number<%(type)s> T;
    __shared__ double lanes[%(lanes)d], tops[%(lanes)d];
    const long long a = spans[3 * (long long)blockIdx.x];
    const long long start = spans[3 * (long long)blockIdx.x + 1];
    const long long end = start + spans[3 * (long long)blockIdx.x + 2];
    T scale;
    ieee::narrow(numbers[%(scale)d], scale.value);
    number<double> own = 0.0;
    T top = 0;
    if (addresses[a] != 0) {
        const %(kept)s *x = in_global(reinterpret_cast<const %(kept)s *>(addresses[a]));
#pragma unroll 4
        for (long long j = start + threadIdx.x; j < end; j += %(lanes)d) {
            const T x_j = T(%(load)s) / scale, size = %(size)s;
            const number<double> value = ieee::widen(x_j.value);
            own = own + %(term)s;
            top = size > top ? size : top;
        }
    }
    lanes[threadIdx.x] = own.value;
    tops[threadIdx.x] = ieee::widen(top.value);
    for (int half = %(lanes)d / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            lanes[threadIdx.x] = ieee::add(lanes[threadIdx.x], lanes[threadIdx.x + half]);
            const double other = tops[threadIdx.x + half];
            tops[threadIdx.x] = other > tops[threadIdx.x] ? other : tops[threadIdx.x];
        }
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = lanes[0];
        peaks[blockIdx.x] = tops[0];
    }
}
"""
"""Without a layout an array has no gaps."""


def source(compute: str, form: Format, strided: bool = False, squared: bool = True) -> str:
    """The kernel as CuPy receives it."""
    ((_, kept),) = form.parts
    at = "x[place(layout, 0, j)]" if strided else "x[j]"
    return generate.PREAMBLE + generate.codecs(needed(form.conversions)) + PLACE + _SQUARES % {
        "name": _name(squared),
        "type": TYPES[compute],
        "kept": TYPES[kept],
        "load": load(form, compute, [at]),
        "lanes": LANES,
        "scale": SCALE,
        "term": "value * value" if squared else "value",
        "size": "abs(x_j)" if squared else _BESIDE,
    }  # fmt: skip


_BESIDE = "T(in_global(reinterpret_cast<const double *>(addresses[1]))[j])"
"""Of sums, magnitudes come from an array of their own."""


def _name(squared: bool) -> str:
    return "gpuadapt_squares" if squared else "gpuadapt_sums"


@cache
def kernel(
    compute: str, form: Format, strided: bool = False, squared: bool = True
) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    return compile.built(source(compute, form, strided, squared), _name(squared))


class Squares:
    """Sums of squares of arrays of one format, given their sizes, and largest magnitudes.

    Not ``squared``: of one array the sums of its numbers, and the largest ones of another array.
    ``layout`` is for one array with gaps; see `generate.PLACE`.
    """

    def __init__(
        self,
        compute: str,
        form: Format,
        sizes: Sequence[int],
        layout: Any = None,
        squared: bool = True,
    ) -> None:
        import cupy

        self._kernel = kernel(compute, form, layout is not None, squared)
        table = Spans(sizes, SPAN).table
        self._spans = cupy.asarray(table)
        self._layout = self._spans if layout is None else layout
        self.partials = len(table)
        """How many sums there are."""

    def __call__(self, addresses: Any, numbers: Any, partial: Any, peaks: Any) -> None:
        """Write the sums of arrays at these addresses (0: of zeros), divided by the scale first.

        And the largest magnitudes, to ``peaks``.
        """
        if self.partials:
            self._kernel(
                (self.partials,),
                (LANES,),
                (self._spans, addresses, self._layout, numbers, partial, peaks),
            )
