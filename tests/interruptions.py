"""Exceptions at a chosen line of gpuadapt's Python, as Ctrl-C or a full memory raises them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gpuadapt as ga

Arrays = Sequence[Any]

SOURCES = str(Path(ga.__file__).parent)


def check_every_line(
    begin: Callable[[], tuple[Callable[[], Any], Callable[[], Arrays]]],
    wanted: Sequence[Arrays],
    errors: Sequence[type[BaseException]] = (KeyboardInterrupt, MemoryError),
) -> None:
    """Interrupt an action at each line of gpuadapt that it runs: what is seen later is as wanted.

    Parameters
    ----------
    begin : function
        Returns a new action, and a function for what is seen after it: arrays.
    wanted : sequence of arrays
        What is seen without the action, and after it.
    errors : sequence of exception types
        They take turns.
    """
    for line in itertools.count():
        action, seen = begin()
        place = interrupted_at(line, action, errors[line % len(errors)])
        if not place:
            break
        found = seen()
        assert any(
            len(one) == len(found) and all(map(np.array_equal, found, one)) for one in wanted
        ), place
    assert line > 20


def interrupted_at(
    line: int, action: Callable[[], Any], error: type[BaseException] = KeyboardInterrupt
) -> str:
    """Do something, and raise an exception at the n-th line of gpuadapt that is run.

    Returns where that is; "" if fewer lines are run.
    """
    left, place = line, ""

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left, place
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        if event == "line":
            left -= 1
            if left == -1:
                place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise error(place)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except error:
        if not place:
            raise
    finally:
        sys.settrace(before)
    return place
