"""The command line: `gpuadapt compare`, `gpuadapt info`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .arrays import check_device
from .errors import BackendError, Error

TASKS = ("digits", "words")
OPTIONS = {"seeds": "digits", "epochs": "digits", "corpus": "words"}
"""From an option to the only task that has it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, or 2 for an error."""
    parser = _Parser(prog="gpuadapt", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    compare = commands.add_parser(
        "compare", help="train with every method: digits by a network, and word vectors"
    )
    compare.add_argument("--task", choices=TASKS, help="only this one")
    compare.add_argument(
        "--formats", action="store_true", help="with Adam alone, in every storage format"
    )
    compare.add_argument("--backend", choices=("auto", "cpu", "cuda"), default="auto")
    compare.add_argument(
        "--seeds", type=_positive, help="digits, and with --formats: runs of each (3)"
    )
    compare.add_argument("--epochs", type=_positive, help="digits: passes over the data (40)")
    compare.add_argument(
        "--corpus", type=Path, help="words: a text file or a folder of them (the standard library)"
    )
    compare.add_argument("--output", type=Path, default=Path("compare-results"), help="folder")
    commands.add_parser("info", help="versions, backends, devices, threads, cache")
    given = parser.parse_args(arguments)
    if given.command == "compare":
        _check_options(compare, given)
    try:
        if given.command == "info":
            _info()
        else:
            from . import compare as comparison

            run = comparison.compare_formats if given.formats else comparison.compare
            run(
                (given.task,) if given.task else TASKS,
                _choose(given.backend),
                given.seeds or 3,
                given.epochs or 40,
                given.corpus,
                given.output,
            )
    except (Error, OSError) as error:
        print(f"gpuadapt {given.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _check_options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    # --formats uses seeds in both tasks.
    for option, task in OPTIONS.items():
        if given.formats and option == "seeds":
            continue
        if getattr(given, option) is not None and given.task not in (None, task):
            parser.error(f"argument --{option}: not an option of --task {given.task}")


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
