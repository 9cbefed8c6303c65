"""Kernels over spans of many arrays: how threads share them, in the text and at the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..numerics.chunks import Spans
from . import threads

SHARED = """

TABLE = types.Array(types.int64, 2, "C")
LIST = types.Array(types.int64, 1, "C")
NUMBERS = types.Array(types.float64, 1, "C")


@njit([types.void(TABLE, types.int64, TABLE, LIST, {types}, types.boolean)],
      parallel=True, cache=True, **OPTIONS)
def {name}(counters, parts, spans, pieces, {arguments}, serial):
    modes = default_modes()
    if serial or parts == 1:
        work(np.intp(0), spans.shape[0], spans, {arguments})
    else:
        count = pieces.size - 1
        counters[:, 0] = 0
        for own in prange(parts):
            own_modes = default_modes()
            # Its own share first, in order, then what others have not come to yet.
            for other in range(parts):
                q = (own + other) % parts
                first, last = count * q // parts, count * (q + 1) // parts
                while True:
                    k = first + claim(counters[q], np.int64(1))
                    if k >= last:
                        break
                    work(pieces[k], pieces[k + 1], spans, {arguments})
            restore_modes(own_modes)
    restore_modes(modes)
"""
"""A kernel that does ``work(first, last, spans, ...)``, defined before, for all of the spans."""

FOLD = """

@njit(**OPTIONS)
def fold(lanes):
    half = lanes.size // 2
    while half > 0:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]
"""
"""Adds the upper half of lanes to the lower half, until one is left."""


class Shared:
    """Calls such kernels for the same spans."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._counters = np.zeros((1, 8), np.int64)

    def __call__(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        """Run a kernel in as many threads as there is work for."""
        spans = self._spans
        parts = threads.share(spans.total)
        if parts > len(self._counters):
            self._counters = np.zeros((parts, 8), np.int64)  # a cache line for each
        threads.call(kernel, self._counters, parts, spans.table, spans.pieces, *arguments)
