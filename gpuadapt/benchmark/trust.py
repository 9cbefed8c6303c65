"""When a figure is not to be trusted: it is spread too wide, others worked, it is impossible."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

SPREAD = 0.10
"""How far the quartiles may be apart, as a share of the median."""

OTHERS = 0.10
"""How much of the machine's processor time other processes may have used."""

POSSIBLE = 1.005
"""The largest share of the limit, rounded to whole percents, that is not above 100 %."""

FEWEST = 5
"""Runs, below which quartiles say little."""

TICKS = 50
"""Linux counts processor time in hundredths of a second: a shorter watch says nothing."""


MEANINGS = {
    "runs": f"fewer than {FEWEST} runs say little of quartiles",
    "spread": f"the quartiles of the times are more than {100 * SPREAD:.0f} % of the median apart",
    "limit": f"those of the limit's times are more than {100 * SPREAD:.0f} % apart",
    "load": f"other processes used {100 * OTHERS:.0f} % of all processor time or more meanwhile",
    "share": "no step is faster than its limit: the two did not have the same conditions",
}
"""From the first word of a reason to what it means."""


def doubts(
    spread: float, limit_spread: float, runs: int, share: float, others: float | None
) -> tuple[str, ...]:
    """Say why a figure is not to be trusted.

    Parameters
    ----------
    spread, limit_spread : float
        Distance of the quartiles over the median, of the step and of its limit.
    runs : int
        Number of times of which the median was taken.
    share : float
        The limit's time over the step's.
    others : float or None
        The share of the machine's processor time that other processes used; None if unknown.

    Returns
    -------
    tuple of str
        A reason each, behind a word of `MEANINGS` and a colon; none if nothing speaks against it.
    """
    found = {
        "runs": runs < FEWEST and f"{runs} instead of {FEWEST} or more",
        "spread": spread > SPREAD and f"quartiles {100 * spread:.0f} % of the median apart",
        "limit": limit_spread > SPREAD
        and f"quartiles of the limit {100 * limit_spread:.0f} % of its median apart",
        "load": others is not None
        and others >= OTHERS
        and f"other processes used {100 * others:.0f} % of all processor time",
        "share": share >= POSSIBLE and f"{100 * share:.0f} % of the limit is not possible",
    }
    return tuple(f"{word}: {reason}" for word, reason in found.items() if reason)


def watch_others() -> Callable[[], float | None]:
    """Begin to watch what other processes do.

    Returns
    -------
    function of nothing
        The share of the machine's processor time that others have used since; None where that is
        not known, or after so short a time that it cannot be said. Where the system does not
        count, it is the load average of the minute before, over the number of cores.
    """
    began, own, load = _processor_time(), _own_ticks(), _load()

    def found() -> float | None:
        now = _processor_time()
        if began is None or now is None:
            return load
        busy, whole = now[0] - began[0], now[1] - began[1]
        return max(0.0, busy - (_own_ticks() - own)) / whole if whole >= TICKS else None

    return found


def _processor_time() -> tuple[int, int] | None:
    """Ticks that all processors were busy, and ticks in all, since the machine's start."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, idle, waiting, interrupt, soft, stolen = map(int, first[1:9])
    busy = user + nice + system + interrupt + soft + stolen
    whole = busy + idle + waiting
    return (busy, whole) if whole else None


def _own_ticks() -> float:
    """Ticks of this process, all its threads and the children that have ended."""
    if not hasattr(os, "sysconf"):
        return 0.0
    return sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")


def _load() -> float | None:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return None
