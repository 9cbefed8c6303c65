"""The threads of Numba's layer, for kernels; see `threading_layer` for what the layers allow."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from .threading_layer import layer, prepare

_lock = threading.Lock()
_concurrent = False
"""Whether the layer is known to allow concurrent calls."""
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


def run(kernel: Callable[..., Any], *arguments: Any) -> None:
    """Run a kernel in the layer's threads; under a lock if need be."""
    global _concurrent
    address = 0 if _serial else entry()
    if _concurrent:
        kernel(*arguments, address)
    else:
        with _lock:
            kernel(*arguments, address)
            _concurrent = layer() in ("tbb", "omp")


def _after_fork() -> None:
    # The parent may have held the lock; its OpenMP threads do not exist here.
    global _lock, _serial
    _lock = threading.Lock()
    _serial = layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
