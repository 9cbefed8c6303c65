"""The machine's own limit: the same arrays read and written, with next to no arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpuadapt as ga


@ga.rule
def two_streams(p, g, s, h):
    """As many bytes as a rule with one state, and one operation an array."""
    return p + g, s + g


@ga.rule
def three_streams(p, g, s, r, h):
    """As many bytes as a rule with two states."""
    return p + g, s + g, r + g


RULES = {1: two_streams, 2: three_streams}


def candidates(xp: Any, backend: str, size: int, states: int) -> dict[str, Callable[[], Any]]:
    """What to time beside an update of ``size`` float32 elements with that many states.

    "limit" runs a rule of additions through the same kernel; on a GPU "copy" is a
    device-to-device copy that moves the same bytes.
    """
    # Ones, not zeros: memory that nobody has written is one page, and stays in the cache.
    gradient = xp.ones(size, xp.float32)
    optimizer = ga.Optimizer(RULES[states], xp.ones(size, xp.float32))
    found: dict[str, Callable[[], Any]] = {"limit": lambda: optimizer.step(gradient)}
    if backend == "cuda":
        half = 4 * size * (3 + 2 * states) // 2
        source, target = xp.ones(half, xp.uint8), xp.ones(half, xp.uint8)
        found["copy"] = lambda: xp.copyto(target, source)
    return found
