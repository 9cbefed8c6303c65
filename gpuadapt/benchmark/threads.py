"""How many threads kernels of the CPU and torch use while something is timed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from gpuadapt.kernels.cpu import calling, torch_pool


def most() -> int:
    """How many threads Numba has."""
    import numba

    config: Any = numba.config
    return int(config.NUMBA_NUM_THREADS)


def available() -> int:
    """How many threads share a large array now: those of torch where it is loaded, or Numba's."""
    return calling.share(2**62)


def pool() -> str:
    """Whose threads those are: "torch" or "numba"."""
    return "torch" if torch_pool.loaded() else "numba"


@contextlib.contextmanager
def limited(count: int | None) -> Iterator[None]:
    """Numba, and torch where it is loaded, limited to so many threads while the context lasts."""
    if count is None:
        yield
        return
    import numba

    torch = sys.modules.get("torch")
    before = numba.get_num_threads(), torch and torch.get_num_threads()
    numba.set_num_threads(min(count, most()))
    if torch:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before[0])
        if torch:
            torch.set_num_threads(before[1])
