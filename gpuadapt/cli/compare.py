"""`gpuadapt compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import Error
from .arguments import add_backend, choose_backend, positive

HELP = "train with every method, on handwritten digits and on word vectors, and compare"
TASKS = ("digits", "words")
SEEDS, EPOCHS = 3, 40
OPTIONS = {"seeds": "digits", "epochs": "digits", "corpus": "words"}
"""From an option to the only task that has it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--task", choices=TASKS, help="the only task to run (default: both)")
    parser.add_argument(
        "--formats",
        action="store_true",
        help="compare storage formats (Adam only) instead of methods",
    )
    add_backend(parser)
    parser.add_argument(
        "--seeds",
        type=positive,
        metavar="N",
        help="how often each is trained; of the task digits, and of both with --formats "
        f"(default: {SEEDS})",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        metavar="N",
        help=f"passes over the data of the task digits (default: {EPOCHS})",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="PATH",
        help="a text file, or a folder of text files, for the task words (default: the files of "
        "Python's standard library)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path("compare-results"),
        help="folder for pictures and JSON; made if there is none (default: %(default)s)",
    )
    parser.epilog = (
        "It takes the packages of the extra: pip install 'gpuadapt[compare]'. Both tasks take one "
        "to two minutes on two cores, --formats some minutes more. Progress goes to the standard "
        "error stream, tables to the standard output."
    )


def run(given: argparse.Namespace) -> int:
    """Train with every method on handwritten digits and on word vectors; write tables, pictures."""
    _check_options(given)
    from .. import compare as comparison

    train = comparison.compare_formats if given.formats else comparison.compare
    train(
        (given.task,) if given.task else TASKS,
        choose_backend(given.backend),
        given.seeds or SEEDS,
        given.epochs or EPOCHS,
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
