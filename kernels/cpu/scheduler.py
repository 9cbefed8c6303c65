"""The launch of kernels over chunks of arrays, see `loops/scheduling.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..numerics.chunks import Chunks
from . import threads


class Scheduler:
    """Launches kernels over the same chunks."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._counters = np.zeros((1, 8), np.int64)

    def __call__(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        """Launch a kernel with its own arguments, in as many threads as its elements occupy."""
        chunks = self._chunks
        count = threads.share(chunks.total)
        if count > len(self._counters):
            self._counters = np.zeros((count, 8), np.int64)  # a cache line for each thread
        threads.call(kernel, self._counters, count, chunks.table, chunks.tasks, arguments)
