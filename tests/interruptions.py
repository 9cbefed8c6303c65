"""Exceptions at a chosen line of gpuadapt's Python, as Ctrl-C or a full memory raises them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpuadapt as ga

SOURCES = str(Path(ga.__file__).parent)


def interrupted_at(
    line: int, action: Callable[[], None], error: type[BaseException] = KeyboardInterrupt
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
