"""What fails: an entry with its error beside the results of what does not."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

Errors = dict[str, str]
"""By the candidate's name, the error's type and message."""

WHOLE = "the whole case"
"""In a candidate's place, where what failed is none of them."""

OWN = ("gpuadapt", "kernel", "limit", "copy", "arithmetic", WHOLE)
"""How the names of what is not a peer begin."""


@contextlib.contextmanager
def noted(errors: Errors | None, name: str) -> Iterator[None]:
    """Note what is raised inside under a name, and go on; with ``errors`` None it is raised."""
    try:
        yield
    except Exception as error:
        if errors is None:
            raise
        traceback.print_exc()
        errors[name] = described(error)


def described(error: Exception) -> str:
    """Type and message, in one line that is not too long for a table."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def ours(results: dict[str, Any]) -> list[str]:
    """The failures in a file of results that are not a peer's, each as a line."""
    return [
        f"{result['name']}, {name}: {error}"
        for suite in results.values()
        if isinstance(suite, list)
        for result in suite
        if isinstance(result, dict)
        for name, error in result.get("errors", {}).items()
        if name.startswith(OWN)
    ]
