"""Calls that nothing comes between: what a step writes, and its count.

Python runs signal handlers, and raises `KeyboardInterrupt`, between the instructions of Python
code, never within a function written in C. So what has to happen as a whole is a list of calls of
compiled functions, and a loop of the standard library, which is compiled too, makes them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from operator import call, length_hint
from typing import Any

Call = tuple[Any, ...]
"""A compiled function and its arguments: a kernel, or a method of a dict, list, set or array."""

ATTEMPTS = 3
"""How often a call that raises is made again, if a call before it has written already."""


class Pool:
    """What is known of the threads that kernels enter."""

    exclusive = False
    """Whether they are known to take one caller at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held by a caller of such threads; a signal handler may enter them again."""


pool = Pool()

_exhaust: Callable[[Iterable[Any]], object] = deque[Any](maxlen=0).extend
"""Exhausts an iterator, and keeps nothing."""


NOTHING: Call = (int,)
"""A call that cannot raise."""


def commit(calls: Sequence[Call]) -> None:
    """Make calls, one after the other; a signal handler runs before all of them or after all.

    Python code within a call, such as Numba's look at types that are new to a kernel, may be
    interrupted all the same. A call that raised has done nothing: if it is the first one, nothing
    has happened; otherwise it and the ones after it are made, and then the exception is raised.

    Parameters
    ----------
    calls : sequence of Call
        The last one cannot raise: it sets attributes, or is `NOTHING`.
    """
    waiting = iter(calls)
    try:
        if pool.exclusive:
            with pool.lock:
                _exhaust(starmap(call, waiting))
        else:
            _exhaust(starmap(call, waiting))
    except BaseException:
        left = length_hint(waiting)
        if 0 < left < len(calls) - 1:
            _go_on(calls[-left - 1 :])
        raise


def _go_on(calls: Sequence[Call]) -> None:
    """Make the calls that an exception kept from being made."""
    for attempt in range(1, ATTEMPTS + 1):
        waiting = iter(calls)
        try:
            with pool.lock:
                _exhaust(starmap(call, waiting))
        except BaseException:
            if attempt == ATTEMPTS and length_hint(waiting):
                _leave(calls[-length_hint(waiting) :])
                raise
        if not length_hint(waiting):
            return
        calls = calls[-length_hint(waiting) - 1 :]


def _leave(calls: Sequence[Call]) -> None:
    """Leave contexts that are entered, where calls that would have left them are not made."""
    entering = 0
    for function, *given in calls:
        name = getattr(function, "__name__", "")
        if name == "__enter__":
            entering += 1
        elif name == "__exit__" and entering:
            entering -= 1
        elif name == "__exit__":
            function(*given)


def within(calls: Sequence[Call], *contexts: Any) -> list[Call]:
    """Calls with those before that enter contexts, such as CuPy's devices, and after that leave."""
    if not calls:
        return []
    enter = [(one.__enter__,) for one in contexts]
    leave = [(one.__exit__, None, None, None) for one in reversed(contexts)]
    return [*enter, *calls, *leave]


def make(calls: Sequence[Call]) -> None:
    """As `commit`, for calls of which the last one may raise."""
    commit([*calls, NOTHING])
