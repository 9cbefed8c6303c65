"""The launch of kernels over chunks of arrays, see `loops/scheduling.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..numerics.chunks import Spans
from . import threads


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
        threads.call(kernel, self._counters, parts, spans.table, spans.pieces, arguments)
