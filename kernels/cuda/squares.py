"""Sums of squares of many arrays on the GPU, and their largest magnitudes.

Two numbers and a block for each of their spans.

The order of a sum is that of `gpuadapt.kernels.numerics.summation`; nothing here knows a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ..formats import Format
from ..numerics.chunks import Chunks
from ..numerics.summation import CHUNK, LANES
from . import compile, generate, scalars

THREADS = 64
"""Threads of a block. Each has four of a chunk's sums: it loads 16 bytes of float32 at once."""


def source(compute: str, format: Format, strided: bool = False, squared: bool = True) -> str:
    """Write the kernel of ``squares.cuh``.

    Parameters
    ----------
    compute : str
        Type in which elements are divided by the scale.
    format : Format
        Of the elements.
    strided : bool
        The kernel is for one array with gaps.
    squared : bool
        False for sums of numbers, beside magnitudes of their own.
    """
    macros = {
        "name": _name(squared),
        "lanes": LANES,
        "threads": THREADS,
        **scalars.GRADIENT_MACROS,
        "strided": int(strided),
        "squared": int(squared),
    }
    return compile.link(macros, generate.gradient(compute, format), "squares.cuh")


def _name(squared: bool) -> str:
    return "gpuadapt_squares" if squared else "gpuadapt_sums"


@cache
def kernel(
    compute: str, format: Format, strided: bool = False, squared: bool = True
) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    return compile.built(source(compute, format, strided, squared), _name(squared))


class Squares:
    """Sums of squares of arrays of one format, given their sizes, and largest magnitudes.

    Not ``squared``: of one array the sums of its numbers, and the largest ones of another array.
    ``layout`` is for one array with gaps; see ``layout.cuh``.
    """

    def __init__(
        self,
        compute: str,
        format: Format,
        sizes: Sequence[int],
        layout: Any = None,
        squared: bool = True,
    ) -> None:
        import cupy

        self._kernel = compile.ready(kernel(compute, format, layout is not None, squared))
        table = Chunks(sizes, CHUNK).table
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
                (THREADS,),
                (self._spans, addresses, self._layout, *numbers.of_gradient(), partial, peaks),
            )
