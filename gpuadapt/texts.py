"""Short texts of values, arrays and sizes, for what is printed of objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from gpuadapt.kernels.formats import Quantized

LONGEST = 150
"""Number of characters after which the text of a value is cut."""


UNITS = ("bytes", "kB", "MB", "GB", "TB")


def safe(method: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a ``__repr__`` that never raises: debuggers ask for it of half-made objects too."""

    @wraps(method)
    def text(self: Any) -> str:
        try:
            return method(self)
        except Exception as error:
            return f"<{type(self).__name__}, incomplete: {type(error).__name__}>"

    return text


def short(text: str, longest: int = LONGEST) -> str:
    """Return a text in one line, cut to ``longest`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip('…')}…"


def value(given: Any) -> str:
    """Return the text of a setting, in one line of any length: of a function its name."""
    try:
        text = given.__name__ if inspect.isroutine(given) else repr(given)
        return " ".join(text.split())
    except Exception:
        return f"<{type(given).__name__}>"


def size(count: float) -> str:
    """Return a number of bytes with three digits and a unit; 1 kB is 1,000 bytes."""
    power = 0
    while count >= 999.5 and power + 1 < len(UNITS):
        count, power = count / 1000, power + 1
    return f"{count:.3g} {UNITS[power]}"


def counted(count: int, noun: str) -> str:
    """Return a number with a noun, in the plural where it is not one."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def listed(words: Iterable[str]) -> str:
    """Join words by commas, the last by "and"; each of them once, in order of the alphabet."""
    names = sorted({*words})
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def outline(array: Any) -> str:
    """Return the dtype and the shape of an array of any library; nothing is read of a GPU."""
    if isinstance(array, Quantized):
        return f"8bit {array.shape}"
    dtype = getattr(array, "dtype", None) or getattr(array, "format", None)
    shape = getattr(array, "shape", None)
    if dtype is None or shape is None:
        return f"<{type(array).__name__}>"
    return f"{dtype} {tuple(shape)}".removeprefix("torch.")
