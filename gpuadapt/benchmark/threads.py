"""How many threads kernels of the CPU and torch use while something is timed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpuadapt.kernels.cpu import calling

from .peers import torch as peer


def most() -> int:
    """How many threads Numba has."""
    import numba

    config: Any = numba.config
    return int(config.NUMBA_NUM_THREADS)


def used(elements: int) -> int:
    """How many threads share so many elements now."""
    return calling.share(elements)


@contextlib.contextmanager
def limited(count: int | None) -> Iterator[None]:
    """Numba and torch limited to so many threads while the context lasts, Numba to those it has."""
    if count is None:
        yield
        return
    import numba

    torch = peer.library()
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
