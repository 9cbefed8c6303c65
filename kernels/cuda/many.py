"""The traversal of many arrays on the GPU: one launch, a block for each span.

What a kernel works on is a table of addresses: of parameters and states, written once, and of
gradients, written again when they are others than in the step before. Spans of arrays that are
16-byte aligned, as CuPy's are, are read and written 16 bytes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..numbers import SKIP
from ..rule import Rule
from ..spans import Spans
from . import text
from .memory import Mirror
from .squares import Squares
from .text import TYPES

ACCESS = 16
"""Bytes that a thread loads or stores at once."""

BLOCK = 256
"""Threads of a block."""

SPAN = 4096
"""Elements of a block: few enough for a thousand small arrays, enough to share its first loads."""

_MANY = r"""
}  // namespace gpuadapt

extern "C" __global__ void %(name)s(
    const long long *__restrict__ spans, const unsigned long long *__restrict__ addresses,
    const unsigned long long *__restrict__ gradients, const long long *__restrict__ firsts,
    const double *__restrict__ numbers
) {
    using namespace gpuadapt;
    typedef %(type)s F;
    const long long a = spans[3 * (long long)blockIdx.x];
    const long long start = spans[3 * (long long)blockIdx.x + 1];
    const long long size = spans[3 * (long long)blockIdx.x + 2];
    if (numbers[%(skip)d] != 0 || gradients[a] == 0) {
        return;
    }
%(pointers)s
%(coefficients)s
    constexpr int width = %(access)d / sizeof(F);
    long long j = 0;
    if (((%(together)s) & %(mask)d) == 0) {
        j = size / width * width;
        for (long long i = (long long)threadIdx.x * width; i < j; i += %(block)d * width) {
%(load)s
#pragma unroll
            for (int k = 0; k < width; ++k) {
                %(rule)s<number<F>>(%(at)s);
            }
%(store)s
        }
    }
#pragma unroll 1
    for (j += threadIdx.x; j < size; j += %(block)d) {
%(numbers)s
        %(rule)s<number<F>>(%(names)s);
%(write)s
    }
}
"""


def source(rule: Rule, dtype: np.dtype) -> str:
    """The kernel as CuPy receives it."""
    updated = [f"{name}_" for name in (rule.parameter, *rule.states)]
    every = [f"{name}_" for name in rule.program.arguments]
    gradient, coefficients = f"{rule.gradient}_", list(rule.coefficients)
    where = {name: f"addresses[{len(updated)} * a + {k}]" for k, name in enumerate(updated)}
    where[gradient] = "gradients[a]"
    kinds = {name: "const F *" if name == gradient else "F *" for name in every}
    body = _MANY % {
        "name": f"gpuadapt_{rule.name}_many",
        "type": TYPES[str(dtype)],
        "skip": SKIP,
        "access": ACCESS,
        "mask": ACCESS - 1,
        "block": BLOCK,
        "rule": rule.symbol,
        "pointers": "\n".join(
            f"    {kinds[n]}{n} = in_global(reinterpret_cast<{kinds[n]}>({where[n]})) + start;"
            for n in every
        ),
        "coefficients": text.coefficients(rule, "firsts[a]", "F"),
        "together": " | ".join(f"reinterpret_cast<size_t>({n})" for n in every),
        "load": "\n".join(
            f"            pack<F, width> {n}p = *reinterpret_cast<const pack<F, width> *>({n} + i);"
            for n in every
        ),
        "at": ", ".join([f"{n}p.at[k]" for n in every] + coefficients),
        "store": "\n".join(
            f"            *reinterpret_cast<pack<F, width> *>({n} + i) = {n}p;" for n in updated
        ),
        "numbers": "\n".join(f"        number<F> {n}n = {n}[j];" for n in every),
        "names": ", ".join([f"{n}n" for n in every] + coefficients),
        "write": "\n".join(f"        {n}[j] = {n}n.value;" for n in updated),
    }
    return text.PREAMBLE + text.function(rule) + "\n" + body


@cache
def kernel(rule: Rule, dtype: np.dtype) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    return text.built(source(rule, dtype), f"gpuadapt_{rule.name}_many")


class Many:
    """Updates arrays of one element type in place, all in one launch on the current stream.

    Parameters
    ----------
    rule : Rule
    arrays : sequence of (parameter, *states)
        Contiguous arrays, not empty; of one element type, on one device.
    """

    def __init__(self, rule: Rule, arrays: Sequence[Sequence[Any]]) -> None:
        import cupy

        dtype = arrays[0][0].dtype
        self._kernel = kernel(rule, dtype)
        self._arrays = arrays  # whose addresses these are
        sizes = [parameter.size for parameter, *_ in arrays]
        table = Spans(sizes, SPAN).table
        self._blocks = len(table)
        self._spans = cupy.asarray(table)
        self._addresses = cupy.asarray(
            np.array([[array.data.ptr for array in of] for of in arrays], np.uint64)
        )
        self._gradients = Mirror(np.uint64)
        self._firsts = Mirror(np.int64)
        self._squares = Squares(dtype, sizes)

    def __call__(self, gradients: np.ndarray, firsts: np.ndarray, numbers: Any) -> None:
        """Update.

        Parameters
        ----------
        gradients : ndarray of int64, shape (arrays,)
            Addresses of contiguous gradients; 0 where there is none.
        firsts : ndarray of int64, shape (arrays,)
            Where in ``numbers`` the coefficients of each array begin.
        numbers : CuPy array of float64
            See `gpuadapt.kernels.numbers`.
        """
        self._kernel(
            (self._blocks,),
            (BLOCK,),
            (self._spans, self._addresses, self._gradients.of(gradients), self._firsts.of(firsts),
             numbers),
        )  # fmt: skip

    def partials(self, gradients: np.ndarray) -> int:
        """How many numbers `squares` writes."""
        return self._squares.partials

    def squares(self, gradients: np.ndarray, numbers: Any, partial: Any) -> None:
        """Write sums of squares of the gradients, divided by the scale; see `squares.Squares`."""
        self._squares(self._gradients.of(gradients), numbers, partial)
