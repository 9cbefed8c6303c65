"""Tells pytest to say at the end what the made-up runtime refused, and in which test."""

from __future__ import annotations

from typing import Any

import made_up_cuda

LINES: set[str] = set()


def _noted() -> list[str]:
    if made_up_cuda.library is None:
        return []
    return made_up_cuda.report().partition("--\n")[0].splitlines()


def pytest_sessionfinish(session: Any) -> None:
    """Send the notes of a process that pytest-xdist has started."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["made_up"] = _noted()
    else:
        LINES.update(_noted())


def pytest_configure(config: Any) -> None:
    """Receive them, where pytest-xdist is installed."""
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(_Nodes())


class _Nodes:
    def pytest_testnodedown(self, node: Any) -> None:
        LINES.update(getattr(node, "workeroutput", {}).get("made_up", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the notes."""
    terminalreporter.write_sep("-", "refused or noted by the made-up runtime")
    for line in sorted(LINES):
        terminalreporter.write_line(line)
