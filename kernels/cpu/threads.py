"""Calling parallel kernels safely, whatever threading layer Numba has.

Numba's ``workqueue`` layer aborts the process when two threads enter it at once, and its
GNU OpenMP layer kills a forked child. TBB survives both, so it is made loadable first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

ALONE = 49152
"""Elements up to which one thread is faster: waking the others takes TBB about 10 us."""

_lock = threading.Lock()
_concurrent = False
"""Whether the layer is known to allow concurrent calls."""
_serial = False
"""Whether kernels may not use threads: in a forked child whose OpenMP threads are gone."""


@cache
def prepare() -> None:
    """Load TBB from its wheel, where the dynamic linker would not find it by itself.

    Must precede the first parallel kernel.
    """
    try:
        files = importlib.metadata.files("tbb") or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("libtbb.so.12", "tbb12.dll"):
            with contextlib.suppress(OSError):  # Numba falls back to its other layers
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)


def layer() -> str | None:
    """Numba's threading layer: "tbb", "omp", "workqueue", or None before first use."""
    numba = sys.modules.get("numba")
    try:
        return str(numba.threading_layer()) if numba else None
    except ValueError:
        return None


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


def _after_fork() -> None:
    # The parent may have held the lock; its OpenMP threads do not exist here.
    global _lock, _serial
    _lock = threading.Lock()
    _serial = layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
