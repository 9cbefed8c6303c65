"""The threads of Numba's layer, for kernels; see `threading_layer` for what the layers allow."""

from __future__ import annotations

import os
import threading
from functools import cache

from ..commit import pool
from .threading_layer import layer, prepare

_serial = False
"""Whether kernels may not use threads: in a forked child whose OpenMP threads are gone."""


def count() -> int:
    """How many threads Numba uses; starts them."""
    import numba

    prepare()
    return int(numba.get_num_threads())


@cache
def entry() -> int:
    """Compile `loops/numba_pool.py`; returns its address, 0 where compilation is disabled."""
    import numba

    from . import compile

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return 0
    text = compile.link("Numba's threads", "", "numba_pool")
    return int(compile.load("numba_pool", text).enter.address)


def address() -> int:
    """The address by which kernels enter the threads, which are started; 0 for none of them."""
    if _serial:
        return 0
    found = entry()
    pool.exclusive = bool(count()) and layer() not in ("tbb", "omp")
    return found


def _after_fork() -> None:
    # The parent may have held the lock; its OpenMP threads do not exist here.
    global _serial
    pool.lock = threading.RLock()
    _serial = layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
