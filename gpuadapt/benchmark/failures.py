"""A candidate that fails is noted with its error, and the others go on."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

Errors = dict[str, str]
"""By the candidate's name, the error's type and message."""


@contextlib.contextmanager
def noted(errors: Errors | None, name: str, printed: bool = True) -> Iterator[None]:
    """Note what is raised inside under a name, and go on; with ``errors`` None it is raised.

    Its traceback is printed if ``printed``.
    """
    try:
        yield
    except Exception as error:
        if errors is None:
            raise
        if printed:
            traceback.print_exc()
        errors[name] = described(error)


def described(error: Exception) -> str:
    """Type and message, in one line that is not too long for a table."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."
