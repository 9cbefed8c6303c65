"""Files of results, which a run writes again and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpuadapt.benchmark.files import write


def save(results: dict[str, Any], file: Path) -> None:
    """Write the results so far, in one go: whoever reads the file finds it whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write(json.dumps(results, indent=1) + "\n", file)


def load(file: Path) -> dict[str, Any]:
    """The results in a file; nothing if there is none."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found
