"""Numba's threading layer, which is TBB if it can be loaded.

Numba's ``workqueue`` layer aborts the process when two threads enter it at once, and its
GNU OpenMP layer kills a forked child. TBB survives both, so it is made loadable first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import sys
from functools import cache


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
