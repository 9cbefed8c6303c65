"""What fails: an entry with its error beside the results of what does not."""

from __future__ import annotations

from typing import Any

WHOLE = "the whole case"
"""In a candidate's place, where what failed is none of them."""

OWN = ("gpuadapt", "kernel", "limit", "copy", "arithmetic", WHOLE)
"""How the names of what is not a peer begin."""


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
