"""`gpuadapt compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import Error
from .arguments import add_backend, choose_backend, positive

HELP = "train with every method: digits by a network, and word vectors"
TASKS = ("digits", "words")
OPTIONS = {"seeds": "digits", "epochs": "digits", "corpus": "words"}
"""From an option to the only task that has it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--task", choices=TASKS, help="run one task instead of both (default: both)"
    )
    parser.add_argument(
        "--formats",
        action="store_true",
        help="compare storage formats (Adam only) instead of methods",
    )
    add_backend(parser)
    parser.add_argument(
        "--seeds",
        type=positive,
        help="how often each is trained; of the task digits, and of both with --formats "
        "(default: 3)",
    )
    parser.add_argument(
        "--epochs", type=positive, help="passes over the data of the task digits (default: 40)"
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        help="a text file, or a folder of text files, for the task words (default: the files of "
        "Python's standard library)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("compare-results"),
        help="folder for pictures and JSON; made if there is none (default: compare-results)",
    )


def run(given: argparse.Namespace) -> int:
    """Train with every method on handwritten digits and on word vectors; write tables, pictures."""
    _check_options(given)
    from .. import compare as comparison

    train = comparison.compare_formats if given.formats else comparison.compare
    train(
        (given.task,) if given.task else TASKS,
        choose_backend(given.backend),
        given.seeds or 3,
        given.epochs or 40,
        given.corpus,
        given.output,
    )
    return 0


def _check_options(given: argparse.Namespace) -> None:
    # --formats uses seeds in both tasks.
    for option, task in OPTIONS.items():
        if given.formats and option == "seeds":
            continue
        if getattr(given, option) is not None and given.task not in (None, task):
            raise Error(f"argument --{option}: not an option of --task {given.task}: leave it out")
