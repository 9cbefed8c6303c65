"""The update of many contiguous arrays in one launch: chunks of them, shared by threads.

The kernel is `loops/multi_tensor.py` behind the head that `generate.multi_tensor` writes. One array
is a table of one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
from llvmlite.binding import get_host_cpu_name

from ..array_types import HostArray
from ..commit import Call
from ..formats import Formats, Operand, tables
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.chunks import Chunks
from ..numerics.overflow import check_of
from ..numerics.scalar_layout import SCALE
from . import array_headers, compile, generate, squares
from .calling import Scheduler, Threads

CHUNK = 16384
"""Elements of a chunk: few enough to share evenly, so many that a list of chunks costs nothing."""

PREFETCHED = platform.machine() in ("x86_64", "AMD64") and not get_host_cpu_name().startswith(
    "znver"
)
"""bool : Prefetch memory ahead of its use.

Hardware follows each array by itself, but stops at the end of a page. Measured, float32 Adam
on two cores, speed with prefetching over without: on a Xeon 1.08x to 1.12x at 30M to 50M
elements, 1.14x at 10M; on an EPYC (Zen 4) 0.73x at 50M and 0.9x at 10M. Other Zens are taken
to be like it.
"""

CACHED = 2**24
"""Bytes of a parameter up to which prefetching costs more than it saves.

On that Xeon 1.0x at 1M elements, 0.7x at 65,536.
"""

AHEAD = 4096
"""Bytes between the element that is updated and the one prefetched; 2 kB to 8 kB are as fast."""


def source(rule: Rule, formats: Formats) -> str:
    """Return the generated module: a head, then `loops/multi_tensor.py`."""
    return generate.multi_tensor(rule, formats, PREFETCHED, AHEAD)


@cached_with_rule
def kernel(rule: Rule, formats: Formats) -> Callable[..., None]:
    """Return the compiled ``launch`` of `loops/scheduling.py`."""
    return compile.kernel(rule.name, source(rule, formats), "launch")


class MultiTensor:
    """Updates arrays of the same formats in place, in one launch.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    operands : iterable of Operand
        With contiguous arrays, not empty.
    threads : Threads, optional
        See `calling.Threads`.
    """

    def __init__(
        self, rule: Rule, formats: Formats, operands: Iterable[Operand], threads: Threads = None
    ) -> None:
        self._kernel = kernel(rule, formats)
        self.overflow_check = check_of(rule, formats)
        # 100,000 operands at once are so many objects that Python looks for garbage meanwhile.
        self._tables: list[HostArray] = []
        if fields := formats.tables:
            operands = [*operands]
            self._tables = tables(fields, operands)
        arrays = [array for of in operands for array in of.arrays]
        # Kept alive. Unlike a list, Python does not search them for garbage.
        self._arrays = np.fromiter(arrays, object, len(arrays))
        layouts = array_headers.layouts(arrays)
        parts = sum(len(one.parts) for one in formats.updated)
        self._addresses = layouts.addresses.reshape(-1, parts)
        sizes = layouts.sizes[::parts]
        if "width" in fields:
            starts = {"widths": self._tables[fields.index("width")]}
        else:
            starts = {"shorter": _before_a_line(formats, self._addresses[:, 0])}
        chunks = Chunks(sizes, CHUNK, **starts)
        self._launches = Scheduler(chunks, threads)
        self._long = chunks.total * np.dtype(formats.compute).itemsize > CACHED
        self._formats, self._sizes, self._threads = formats, sizes, threads

    def calls(self, gradients: HostArray, offsets: HostArray, numbers: HostArray) -> list[Call]:
        """The calls that update the arrays.

        Parameters
        ----------
        gradients : ndarray of int64, shape (arrays,)
            Addresses of contiguous gradients; 0 where there is none.
        offsets : ndarray of int64, shape (arrays,)
            Index in ``numbers`` of the first coefficient of each array.
        numbers : ndarray of float64
            See `gpuadapt.kernels.numerics.scalar_layout`.
        """
        given = gradients, offsets, numbers, *self._tables, self._long
        return [self._launches.bound(self._kernel, self._addresses, *given)]

    def partials(self, gradients: HostArray) -> int:
        """Return the length of each result of `squares`."""
        return self._squares.partials

    @cached_property
    def _squares(self) -> squares.Squares:
        """Made for the first step that measures its gradients."""
        kind = self._formats.wide, self._formats.gradient
        return squares.Squares(*kind, self._sizes, threads=self._threads)

    def squares(
        self, gradients: HostArray, numbers: HostArray, partial: HostArray, peaks: HostArray
    ) -> None:
        """Write sums of squares and largest magnitudes of the unscaled gradients; see `Squares`."""
        self._squares(gradients, numbers[SCALE], partial, peaks)


def _before_a_line(formats: Formats, addresses: HostArray) -> HostArray:
    """By how many elements the first chunk of each parameter is shorter, given its address.

    Chunks then begin on a cache line of the parameter: a vector that crosses lines costs two
    accesses. Pairs are not split.
    """
    itemsize, pair = np.dtype(formats.parameter.parts[0][1]).itemsize, 1 + formats.paired
    return addresses % compile.LINE // itemsize // pair * pair
