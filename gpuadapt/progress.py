"""How far a command has come: a bar in a terminal, lines in a log."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[..., None]
"""``advance(steps, work, more="", ended=False)``: so many more steps of this work are done, and
with ``ended`` it has none left. ``more`` is shown beside it in a terminal."""

INTERVAL = 30.0
"""In seconds: a log has a line at least as often."""


@contextmanager
def shown(title: str, total: int) -> Iterator[Advance]:
    """Show progress on the standard error stream while a block runs.

    Where that is no terminal, or the package rich is missing, the title is printed at once, then a
    line whenever a work has ended, and at least every `INTERVAL`.

    Parameters
    ----------
    title : str
        What is done, and with which settings.
    total : int
        Number of steps of all work.
    """
    live = sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
    with _bar(total) if live else _lines(title, total) as advance:
        yield advance


@contextmanager
def _bar(total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<42}"),
        BarColumn(),
        TextColumn("{task.fields[more]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, more="")
        yield lambda steps, work, more="", ended=False: progress.update(
            task, advance=steps, description=work, more=more
        )


@contextmanager
def _lines(title: str, total: int) -> Iterator[Advance]:
    name = title.partition(",")[0]
    began = printed = time.monotonic()
    done, current = 0, "the first run"
    lock, left = threading.Lock(), threading.Event()

    def line(what: str) -> None:
        nonlocal printed
        printed = time.monotonic()
        share, seconds = 100 * done / max(total, 1), printed - began
        print(f"{name}: {share:.0f} %, {seconds:.0f} s: {what}", file=sys.stderr, flush=True)

    def advance(steps: int, work: str, more: str = "", ended: bool = False) -> None:
        nonlocal done, current
        with lock:
            done, current = done + steps, work
            if ended:
                line(f"{work} has ended")
                current = "the next run"

    def watch() -> None:
        while not left.wait(max(0.0, printed + INTERVAL - time.monotonic())):
            with lock:
                if time.monotonic() >= printed + INTERVAL:
                    line(f"{current} goes on")

    print(f"{title}; in the first steps kernels are compiled", file=sys.stderr, flush=True)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield advance
    finally:
        left.set()
        watcher.join()
