"""Numbers at addresses of their own, such as PyTorch's counts of steps, read in one call."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from . import compile


@cache
def compiled() -> ModuleType:
    """Compile `loops/numbers_at.py`: ``read_numbers``, ``successors``, ``write_numbers``."""
    return compile.load("numbers_at", compile.link("numbers at addresses", "", "numbers_at"))
