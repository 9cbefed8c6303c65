"""The time, after what was started has ended."""

from __future__ import annotations

import time

from ..arrays import namespace


def now(backend: str) -> float:
    """Seconds; waits for the GPU first."""
    if backend == "cuda":
        namespace(backend).cuda.get_current_stream().synchronize()
    return time.perf_counter()
