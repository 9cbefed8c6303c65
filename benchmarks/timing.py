"""Interleaved timing: A B C A B C ..., medians, so that drift of the machine cancels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Candidates = dict[str, Callable[[], Any]]


def interleaved(
    candidates: Candidates, backend: str, rounds: int, seconds: float = 0.02
) -> dict[str, dict[str, float]]:
    """Time candidates in turn.

    Parameters
    ----------
    candidates : dict of name to function
        Each does one step of the same work.
    backend : {"cpu", "cuda"}
        On "cuda" the times are between CUDA events on the current stream.
    rounds : int
        How often each candidate has its turn.
    seconds : float
        About how long a turn lasts; calls are repeated to fill it.

    Returns
    -------
    dict of name to {"median", "low", "high", "calls"}
        Seconds per call: median and quartiles over the turns.
    """
    measure = _cuda if backend == "cuda" else _cpu
    calls = {}
    for name, run in candidates.items():
        run()  # compiles
        once = measure(run, 1)
        calls[name] = max(1, min(100_000, int(seconds / max(once, 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            # Caches and threads are still the last candidate's (OpenMP's go on spinning).
            measure(run, max(1, calls[name] // 2))
            times[name].append(measure(run, calls[name]))
    return {name: _spread(turns) | {"calls": calls[name]} for name, turns in times.items()}


def _cpu(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _cuda(run: Callable[[], Any], calls: int) -> float:
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    cupy.cuda.Device().synchronize()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    seconds: float = cupy.cuda.get_elapsed_time(start, end) / 1e3 / calls
    return seconds


def _spread(turns: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(turns, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}
