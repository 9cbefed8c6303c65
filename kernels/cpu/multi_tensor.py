"""The traversal of many arrays on the CPU: one launch, cut into spans that threads share.

What a kernel works on is a table of addresses: of parameters and states, written once, and of
gradients, new in every step. One array is a table of one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

import numpy as np
from llvmlite.binding import get_host_cpu_name

from ..formats import Formats, Operand, tables
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.chunks import Spans
from ..numerics.overflow import kind
from ..numerics.scalar_layout import SCALE
from . import compile, generate, squares, threads
from .array_headers import address
from .scheduler import Shared

SPAN = 16384
"""Elements in a span: small enough to share evenly, large enough to cost nothing to list."""

PREFETCHED = platform.machine() in ("x86_64", "AMD64") and not get_host_cpu_name().startswith(
    "znver"
)
"""Whether to ask for memory ahead of its use.

Hardware follows each array by itself, but stops at the end of a page. Measured, float32 Adam
on two cores, speed with prefetching over without: on a Xeon 1.08x to 1.12x at 30M to 50M
elements, 1.14x at 10M; on an EPYC (Zen 4) 0.73x at 50M and 0.9x at 10M. Other Zens are taken
to be like it.
"""

CACHED = 2**24
"""Bytes of a parameter up to which nothing is prefetched: it costs more than it brings.

On that Xeon 1.0x at 1M elements, 0.7x at 65,536.
"""

AHEAD = 4096
"""Bytes from what is worked on to what is prefetched; 2 kB to 8 kB are much the same."""


def source(rule: Rule, formats: Formats) -> str:
    """Return the generated module: a head, then `loops/multi_tensor.py`."""
    return generate.multi_tensor(rule, formats, PREFETCHED, AHEAD)


@cached_with_rule
def kernel(rule: Rule, formats: Formats) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    compiled: Callable[..., None] = compile.load(rule.name, source(rule, formats)).launch
    return compiled


class MultiTensor:
    """Updates arrays of the same formats in place, all in one launch.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    operands : sequence of Operand
        With contiguous arrays, not empty.
    """

    def __init__(self, rule: Rule, formats: Formats, operands: Sequence[Operand]) -> None:
        self._kernel = kernel(rule, formats)
        self.kind = kind(rule, formats)
        self._operands = operands  # whose arrays' addresses these are
        self._addresses = np.array([list(map(address, of.arrays)) for of in operands], np.int64)
        sizes = [of.arrays[0].size for of in operands]
        self._run = Shared(Spans(sizes, SPAN, **_cut(formats, operands, self._addresses[:, 0])))
        self._tables = tables(formats, operands)
        self._long = sum(sizes) * np.dtype(formats.compute).itemsize > CACHED
        self._squares = squares.Squares(formats.wide, formats.gradient, sizes)

    def __call__(self, gradients: np.ndarray, firsts: np.ndarray, numbers: np.ndarray) -> None:
        """Update.

        Parameters
        ----------
        gradients : ndarray of int64, shape (arrays,)
            Addresses of contiguous gradients; 0 where there is none.
        firsts : ndarray of int64, shape (arrays,)
            Where in ``numbers`` the coefficients of each array begin.
        numbers : ndarray of float64
            See `gpuadapt.kernels.numerics.scalar_layout`.
        """
        self._run(
            self._kernel, self._addresses, gradients, firsts, numbers, *self._tables, self._long
        )

    def partials(self, gradients: np.ndarray) -> int:
        """How many numbers `squares` writes."""
        return self._squares.partials

    def squares(
        self, gradients: np.ndarray, numbers: np.ndarray, partial: np.ndarray, peaks: np.ndarray
    ) -> None:
        """Write sums of squares and largest magnitudes of the gradients, divided by the scale.

        See `squares.Squares`.
        """
        self._squares(gradients, numbers[SCALE], partial, peaks)


def _cut(
    formats: Formats, operands: Sequence[Operand], places: np.ndarray
) -> dict[str, Sequence[int]]:
    """Where spans may begin."""
    if formats.block:
        return {"widths": [of.width for of in operands]}
    # Those of the first array begin on cache lines, and of others that lie as it does: a vector
    # that crosses lines costs two accesses.
    # Pairs are not cut in two.
    itemsize, whole = np.dtype(formats.parameter.parts[0][1]).itemsize, 1 + formats.paired
    return {
        "before": [place % compile.LINE // itemsize // whole * whole for place in places.tolist()]
    }


class Part:
    """Updates one part of an array after another, in one thread."""

    def __init__(self, rule: Rule, formats: Formats) -> None:
        self._kernel = kernel(rule, formats)
        self._span = np.zeros((1, 3), np.int64)
        self._unused, self._counters = np.zeros(1, np.int64), np.zeros((1, 8), np.int64)

    def __call__(
        self, operands: Sequence[np.ndarray], firsts: np.ndarray, numbers: np.ndarray
    ) -> None:
        """Update (parameter, gradient, *states), contiguous and of one size."""
        self._span[0, 2] = operands[0].size
        parameter, gradient, *states = map(address, operands)
        threads.call(
            self._kernel,
            self._counters, 1, self._span, self._unused,
            (np.array([[parameter, *states]]), np.array([gradient]), firsts, numbers, False),
        )  # fmt: skip
