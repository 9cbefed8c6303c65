"""The command line: `gpuadapt compare`, `gpuadapt info`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .arrays import check_device
from .errors import BackendError, Error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 2 for arguments that cannot be followed."""
    parser = _Parser(prog="gpuadapt", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    compare = commands.add_parser(
        "compare", help="train a network on handwritten digits with every method"
    )
    compare.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="auto")
    compare.add_argument("--seeds", type=_positive, default=3, help="runs per method (3)")
    compare.add_argument("--epochs", type=_positive, default=40, help="passes over the data (40)")
    compare.add_argument("--output", type=Path, default=Path("compare-results"), help="folder")
    commands.add_parser("info", help="versions, backends, devices, threads, cache")
    given = parser.parse_args(arguments)
    try:
        if given.command == "info":
            _info()
        else:
            from .compare import compare as run

            run(_choose(given.backend), given.seeds, given.epochs, given.output)
    except (Error, OSError) as error:
        print(f"gpuadapt {given.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive whole number"  # argparse shows it


def _choose(backend: str) -> str:
    if backend == "cpu":
        return "cpu"
    try:
        check_device()
    except BackendError:
        if backend == "cuda":
            raise
        return "cpu"
    return "cuda"


def _info() -> None:
    from .machine import describe_machine

    for key, value in describe_machine().items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{key.replace('_', ' '):<16} {shown}")
