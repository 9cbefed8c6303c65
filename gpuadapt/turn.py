"""One call of an optimizer at a time: threads wait for each other, and handlers are told."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import wraps
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeVar, cast
from weakref import WeakSet

from .device_errors import explain
from .errors import ConcurrencyError

Method = TypeVar("Method", bound=Callable[..., Any])
"""A method of an object that has a `Turn` as ``_turn``."""


class Turn:
    """The lock of an optimizer; the thread that has it may take it again.

    Attributes
    ----------
    lock : threading.RLock
    """

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        _turns.add(self)

    def check(self, name: str) -> None:
        """Refuse a call from within another one, as this thread has the lock.

        Raises
        ------
        ConcurrencyError
        """
        if not self._entered():
            # An exception kept a method, which is at its end, from releasing the lock.
            self.lock = threading.RLock()
        else:
            raise ConcurrencyError(
                f"{name}: this optimizer is in the middle of another call, which a signal handler, "
                "a schedule or a callback has interrupted. There, state_dict, save and flush are "
                f"allowed; set a flag, and call {name} when that call has returned"
            )

    def _entered(self) -> bool:
        """Whether this thread is in a method, beside the one that asks."""
        frame: FrameType | None = sys._getframe(3)
        while frame is not None:
            if frame.f_code in _entries and frame.f_locals["self"]._turn is self:
                return True
            frame = frame.f_back
        return False


_entries: set[CodeType] = set()
"""The code of the functions that take the lock."""


def takes_lock(method: Method) -> Method:
    """The method, which does by itself what `alone` would do: it is called very often."""
    _entries.add(cast(FunctionType, method).__code__)
    return method


_turns: WeakSet[Turn] = WeakSet()


def _after_fork() -> None:
    # A thread of the parent, which does not exist here, may have held a lock.
    for turn in _turns:
        turn.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def in_turn(method: Method) -> Method:
    """The method, which waits while another thread is in a method of the same optimizer."""
    return _wrapped(method, False)


def alone(method: Method) -> Method:
    """As `in_turn`, and refused in the midst of another method: what it writes would be mixed."""
    return _wrapped(method, True)


def _wrapped(method: Method, alone: bool) -> Method:
    @wraps(method)
    def run(self: Any, /, *given: Any, **named: Any) -> Any:
        turn = self._turn
        if alone and turn.lock._is_owned():  # as `threading.Condition` asks
            turn.check(method.__name__.strip("_"))
        with turn.lock:
            try:
                return method(self, *given, **named)
            except Exception as error:
                explain(error)
                raise

    _entries.add(cast(FunctionType, run).__code__)
    return cast(Method, run)
