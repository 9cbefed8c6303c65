"""A plugin of pytest: tests that have passed in an earlier run are left out of this one.

``GPUADAPT_PASSED`` is a folder. The name of a test goes to ``passed.txt`` there when it has passed,
and those of ``before.txt`` are left out. Whoever starts pytest has a folder for each commit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("GPUADAPT_PASSED", "."))


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out what has passed; all processes of a run read the same list."""
    before = FOLDER / "before.txt"
    names = set(before.read_text().splitlines()) if before.exists() else set()
    left_out = [item for item in items if item.nodeid in names]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in names]


def pytest_runtest_logreport(report: Any) -> None:
    """Note a test that has passed."""
    # In several processes the first one gets the reports of the others.
    if "PYTEST_XDIST_WORKER" not in os.environ and report.when == "call" and report.passed:
        with open(FOLDER / "passed.txt", "a") as file:
            file.write(f"{report.nodeid}\n")
