"""Sums of squares of many arrays and their largest magnitudes, for each chunk.

The kernels are `loops/squares.py` and `loops/sums.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from ..array_types import HostArray
from ..commit import make
from ..formats import Format
from ..numerics.chunks import Chunks, Integers
from ..numerics.summation import CHUNK
from . import compile, generate
from .calling import Scheduler, Threads


@cache
def kernel(compute: str, form: Format, squared: bool = True) -> Callable[..., None]:
    """Return the compiled `loops/squares.py`, or `loops/sums.py` if not ``squared``."""
    text = generate.squares(compute, form, squared)
    compiled: Callable[..., None] = compile.load("squares" if squared else "sums", text).launch
    return compiled


class Squares:
    """Sums of squares of contiguous arrays of one format, given their sizes.

    Not ``squared``: sums of the numbers themselves, which have no largest magnitudes beside them.
    """

    def __init__(
        self,
        compute: str,
        form: Format,
        sizes: Integers,
        squared: bool = True,
        threads: Threads = None,
    ) -> None:
        self._kind = compute, form, squared
        chunks = Chunks(sizes, CHUNK)
        self._launches, self._squared = Scheduler(chunks, threads), squared
        self.partials = len(chunks.table)
        """int : The number of chunks."""

    def __call__(
        self,
        addresses: HostArray,
        scale: float,
        partial: HostArray,
        peaks: HostArray | None = None,
    ) -> None:
        """Write the sums of arrays at these addresses, divided by ``scale`` first.

        Parameters
        ----------
        addresses : ndarray of int64, shape (arrays,)
            0 for an array of zeros.
        scale : float
            A number of the compute type; sums that are not squared are not divided.
        partial, peaks : ndarray of float64, shape (partials,)
            For the sums, and for the largest magnitudes.
        """
        given = (addresses, scale, partial, peaks) if self._squared else (addresses, partial)
        make([self._launches.bound(kernel(*self._kind), *given)])
