"""Calling kernels: shared by threads, safely under every threading layer, in default modes.

Libraries change the modes of floating-point arithmetic for the whole thread:
``torch.set_flush_denormal(True)``, or C code that was linked with ``-ffast-math``. Kernels set the
default modes in each thread that they use (`intrinsics.default_modes`); `in_default_modes` does so
for the Python around them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any, TypeVar, TypeVarTuple

import numpy as np

from ..numerics.chunks import Chunks
from .threading_layer import layer

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

ALONE = 49152
"""Elements up to which one thread is faster: waking the others takes TBB about 10 us."""

LITTLE = 2.0**-60
"""What neither changes 1 when it is added nor when it is subtracted, if rounding is to nearest."""

SMALLEST = 2.0**-1022
"""The smallest normal number: a half of it is zero if subnormal numbers are not kept."""

_lock = threading.Lock()
_concurrent = False
"""Whether the layer is known to allow concurrent calls."""
_serial = False
"""Whether kernels may not use threads: in a forked child whose OpenMP threads are gone."""


def share(elements: int, alone: int = ALONE) -> int:
    """How many threads to share so many elements among; one does up to ``alone`` of them."""
    if elements <= alone:
        return 1
    import numba

    return int(numba.get_num_threads())


def call(kernel: Callable[..., Any], *arguments: Any) -> None:
    """Run a kernel whose last argument asks for serial execution; under a lock if need be."""
    if _concurrent:
        kernel(*arguments, _serial)
    else:
        _call_locked(kernel, *arguments)


def _call_locked(kernel: Callable[..., Any], *arguments: Any) -> None:
    global _concurrent
    import numba

    with _lock:
        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
            with np.errstate(all="ignore"):
                kernel(*arguments, _serial)
        else:
            kernel(*arguments, _serial)
            _concurrent = layer() in ("tbb", "omp")


class Scheduler:
    """Launches kernels over the same chunks; see `loops/scheduling.py`."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._counters = np.zeros((1, 8), np.int64)

    def __call__(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        """Launch a kernel with its own arguments, in as many threads as its elements occupy."""
        chunks, count = self._chunks, 1
        if chunks.total > ALONE:
            count = share(chunks.total)
            if count > len(self._counters):
                self._counters = np.zeros((count, 8), np.int64)  # a cache line for each thread
        given = self._counters, count, chunks.table, chunks.tasks, arguments
        if _concurrent:  # as `call`, without a call
            kernel(*given, _serial)
        else:
            _call_locked(kernel, *given)


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


def _after_fork() -> None:
    # The parent may have held the lock; its OpenMP threads do not exist here.
    global _lock, _serial
    _lock = threading.Lock()
    _serial = layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
