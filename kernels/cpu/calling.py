"""Calling kernels: which threads share their work, and default modes around them.

There are two pools of threads: those of Numba's layer (`numba_pool`) and, where torch is
loaded, those of its OpenMP (`torch_pool`). A kernel gets as its last argument the address of the
function by which it enters a pool, 0 for the calling thread alone; see `intrinsics.fork`. Results
depend neither on the pool nor on the number of threads.

Libraries change the modes of floating-point arithmetic for the whole thread:
``torch.set_flush_denormal(True)``, or C code that was linked with ``-ffast-math``. Kernels set the
default modes in each thread that they use (`intrinsics.fork`); `in_default_modes` does so for the
Python around them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any, Literal, TypeVar, TypeVarTuple

import numpy as np

from ..commit import Call, make
from ..errors import BackendError
from ..numerics.chunks import Chunks
from . import numba_pool, torch_pool

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

Threads = int | Literal["numba", "torch"] | None
"""Which threads kernels use: None for torch's if it is loaded, else Numba's; at most so many of
these; or the pool by name."""

ALONE = 49152
"""Elements up to which one thread is faster: waking the others takes TBB about 10 us."""

LITTLE = 2.0**-60
"""What neither changes 1 when it is added nor when it is subtracted, if rounding is to nearest."""

SMALLEST = 2.0**-1022
"""The smallest normal number: a half of it is zero if subnormal numbers are not kept."""


def check(threads: Threads) -> Threads:
    """Return the choice of threads.

    Raises
    ------
    BackendError
        There are no such threads.
    """
    if threads == "torch" and not torch_pool.loaded():
        raise BackendError(
            "threads='torch': torch is not imported, or its OpenMP library is not found: "
            "import torch first, or leave threads=None"
        )
    if threads not in (None, "numba", "torch") and not (type(threads) is int and threads > 0):
        raise BackendError(
            f"threads={threads!r}: pass None, 'numba', 'torch' or a number from 1 on"
        )
    return threads


def share(elements: int, alone: int = ALONE, threads: Threads = None) -> int:
    """How many threads to share so many elements among; one does up to ``alone`` of them."""
    if elements <= alone or threads == 1:
        return 1
    torch = None if threads == "numba" else torch_pool.loaded()
    count = torch_pool.count(torch) if torch else numba_pool.count()
    return min(count, threads) if isinstance(threads, int) else count


def bound(kernel: Callable[..., Any], count: int, threads: Threads, *arguments: Any) -> Call:
    """The call of a kernel in ``count`` threads; its last argument is the pool that it enters."""
    if count == 1:
        return kernel, *arguments, 0
    if threads != "numba" and torch_pool.loaded():
        return kernel, *arguments, torch_pool.entry()
    return kernel, *arguments, numba_pool.address()


def call(kernel: Callable[..., Any], count: int, threads: Threads, *arguments: Any) -> None:
    """Run a kernel at once; see `bound`."""
    if count == 1:
        kernel(*arguments, 0)
    else:
        make([bound(kernel, count, threads, *arguments)])


class Scheduler:
    """Launches of kernels over the same chunks; see `loops/scheduling.py`."""

    def __init__(self, chunks: Chunks, threads: Threads = None) -> None:
        self._chunks, self._threads = chunks, threads
        self._counters = np.zeros((1, 8), np.int64)

    def bound(self, kernel: Callable[..., Any], *arguments: Any) -> Call:
        """The call of a kernel with its own arguments, in as many threads as elements occupy."""
        chunks = self._chunks
        if chunks.total <= ALONE:
            return kernel, self._counters, 1, chunks.table, chunks.tasks, arguments, 0
        count = share(chunks.total, ALONE, self._threads)
        if count > len(self._counters):
            self._counters = np.zeros((count, 8), np.int64)  # a cache line for each thread
        given = self._counters, count, chunks.table, chunks.tasks, arguments
        return bound(kernel, count, self._threads, *given)


def in_default_modes(function: Callable[[*Given], Result]) -> Callable[[*Given], Result]:
    """The function, in the default modes (round to nearest, subnormal numbers kept).

    Arithmetic itself shows whether the modes are others, which takes 0.1 us; only then are they
    set, and restored at the end.
    """

    @wraps(function)
    def run(*given: *Given) -> Result:
        if 1.0 + LITTLE == 1.0 == 1.0 - LITTLE and SMALLEST * 0.5 > 0.0:
            return function(*given)
        switch = switches()
        before = switch.enter()
        try:
            return function(*given)
        finally:
            switch.leave(before)

    return run


@cache
def switches() -> ModuleType:
    """Compiled: ``enter()`` sets the default modes, ``leave(modes)`` what it returned."""
    from . import compile  # and Numba, which `import gpuadapt` does without

    return compile.load("modes", compile.link("modes", "", "modes"))
