"""Interleaved timing: every candidate in turn, in an order drawn anew for each round."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .failures import Errors, noted

Candidates = Mapping[str, Callable[[], Any]]
Times = dict[str, Any]


def interleaved(
    candidates: Candidates,
    backend: str,
    rounds: int,
    seconds: float = 0.02,
    errors: Errors | None = None,
    before: Callable[[], Any] | None = None,
) -> dict[str, Times]:
    """Time candidates in turn, so that drift of the machine meets all of them alike.

    Parameters
    ----------
    candidates : dict of name to function
        Each does one step of the same work. Two calls come before any that is timed.
    backend : {"cpu", "cuda"}
        On "cuda" the times are between CUDA events on the current stream.
    rounds : int
        How often each candidate has its turn. The order is drawn for each round: what ran
        just before (whose threads may still be spinning) shows in a time, by up to a fifth.
    seconds : float
        About how long a turn lasts; calls are repeated to fill it. How often is found from one
        early call, so a turn of small work is shorter.
    errors : dict, optional
        Takes the error of a candidate that raises, which then has no times and no more turns.
        Without it the error is raised.
    before : function, optional
        Called right before each call that is timed, and not timed itself: other work of the
        process, whose threads may not have gone to sleep. A turn is then the median of its calls.
        On the CPU only.

    Returns
    -------
    dict of name to {"median", "low", "high", "calls", "turns"}
        Seconds per call: median and quartiles over the turns, and the turns themselves.
    """
    measure = _cuda if backend == "cuda" else _cpu
    if before is not None:
        measure = partial(_each_after, before)
    calls = {}
    for name, run in candidates.items():
        with noted(errors, name):
            measure(run, 1)
            once = measure(run, 1) + (0 if before is None else _cpu(before, 1))
            calls[name] = max(1, min(100_000, int(seconds / max(once, 1e-9))))
    turns: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    for number in range(1, rounds + 1):
        shuffle(order)
        for name in order:
            with noted(errors, name):
                # Caches and threads are still the last candidate's.
                measure(candidates[name], max(1, calls[name] // 2))
                turns[name].append(measure(candidates[name], calls[name]))
        order = [name for name in order if len(turns[name]) == number]
    return {name: spread(turns[name]) | {"calls": calls[name]} for name in calls if name in order}


def measured(backend: str, run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    return (_cuda if backend == "cuda" else _cpu)(run, 1)


def spread(turns: list[float]) -> Times:
    """Median and quartiles of times, and the times."""
    low, median, high = statistics.quantiles(turns, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "turns": turns}


def in_turn(steps: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
    """Steps one after the other, a call each: what they read has left the caches."""
    turn = itertools.cycle(steps)
    return steps[0] if len(steps) == 1 else lambda: next(turn)()


def copies_of(moved: float, backend: str) -> int:
    """How many copies of a step move three times the cache of a GPU: up to 16; 1 on the CPU."""
    if backend == "cpu":
        return 1
    import cupy

    cache: int = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["l2CacheSize"]
    return min(16, math.ceil(3 * cache / moved))


def ratio(times: Mapping[str, Times], name: str, over: str) -> float:
    """How many times as long one candidate takes as another: the median over the rounds.

    Within a round both met the same machine, which over a run may be twice as fast as before.
    """
    pairs = zip(_turns(times[name]), _turns(times[over]), strict=True)
    return statistics.median(a / b for a, b in pairs)


def _turns(time: Times) -> list[float]:
    # The first results that were kept have no turns.
    turns: list[float] = time.get("turns", [time["median"]])
    return turns


def _cpu(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _each_after(before: Callable[[], Any], run: Callable[[], Any], calls: int) -> float:
    """Seconds of one call, each right after the other work: the median."""
    times = []
    for _ in range(calls):
        before()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


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
