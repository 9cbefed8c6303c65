"""`gpuadapt benchmark`."""

from __future__ import annotations

import argparse
import ast
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmark import RUNS, TYPES
from ..errors import Error
from .arguments import add_backend, choose_backend, positive

if TYPE_CHECKING:
    from ..benchmark.measurement import Measurement, Work

HELP = "time methods and rules of your own beside the machine's limit and other libraries"

METHODS = ("Adagrad", "RMSprop", "Adadelta", "Adam")
SIZES = (10_000, 1_000_000, 10_000_000)
BATCH = 10_000
STATES = ("none", "bfloat16", "float16", "8bit")
KINDS = {"zipf": "Zipf-like", "uniform": "uniform", "hot": "hot"}
OUT = "-"


def whole(text: str) -> int:
    """Read a whole number from 1, such as 1000, 1_000 or 1e6; argparse calls this."""
    value = float(text)
    if not 1 <= value < math.inf or value != int(value):
        raise ValueError
    return int(value)


whole.__name__ = "whole number (1000, 1e6)"  # argparse shows it


def table(text: str) -> tuple[int, int]:
    """Read the shape of a table, ROWSxWIDTH; argparse calls this."""
    rows, width = text.lower().split("x")
    return whole(rows), whole(width)


table.__name__ = "ROWSxWIDTH (1e6x64)"


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is no literal of Python is a text; argparse calls this."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise ValueError
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


setting.__name__ = "NAME=VALUE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "methods",
        nargs="*",
        metavar="METHOD",
        help="a method (Adam), a rule of gpuadapt (adam), FILE.py:RULE, or FILE.py for all of its "
        f"rules; they stand before the options (default: {' '.join(METHODS)})",
    )
    _add_work(parser)
    add_backend(parser)
    parser.add_argument(
        "--set",
        nargs="+",
        type=setting,
        metavar="NAME=VALUE",
        help="hyperparameters and options of every METHOD (default: those of the method; for a "
        "rule 0.9 for what lies in [0, 1), 0.1 for others, 1e-3 for eps)",
    )
    parser.add_argument(
        "--runs", type=positive, default=RUNS, help=f"how often each is timed (default: {RUNS})"
    )
    parser.add_argument(
        "--no-peers",
        action="store_true",
        help="leave out other libraries (default: those that are installed and have the method)",
    )
    for name, what in (("json", "a list of records"), ("csv", "a table")):
        parser.add_argument(
            f"--{name}",
            metavar="FILE",
            help=f"write {what}, which pandas reads, to this file, or to the standard output for - "
            "(default: none)",
        )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a PNG (default: none)")


def _add_work(parser: argparse.ArgumentParser) -> None:
    sizes = " ".join(map(str, SIZES))
    parser.add_argument(
        "--sizes", nargs="+", type=whole, metavar="N", help=f"elements (default: {sizes})"
    )
    parser.add_argument(
        "--dtype", nargs="+", choices=TYPES, help="of parameter and gradient (default: float32)"
    )
    parser.add_argument(
        "--state-dtype",
        nargs="+",
        choices=STATES,
        help="how states are stored (default: none, which is the type of the arithmetic)",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=positive,
        metavar="N",
        help="threads of the CPU (default: as many as Numba or torch has)",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        type=table,
        metavar="ROWSxWIDTH",
        help="update rows of tables of float32 (default: whole arrays)",
    )
    parser.add_argument(
        "--batch", type=whole, metavar="N", help=f"rows of a batch (default: {BATCH})"
    )
    parser.add_argument(
        "--draw",
        choices=tuple(KINDS),
        help="how often rows occur: the k-th most frequent 1 / k as often as the first, all alike, "
        "or half of them one row (default: zipf)",
    )


def run(given: argparse.Namespace) -> int:
    """Time every METHOD with every size, type and number of threads, side by side."""
    backend = choose_backend(given.backend)
    _check(given)
    from ..benchmark import files, plot, report
    from ..benchmark import run as work
    from ..benchmark.measurement import duration
    from ..benchmark.subjects import subjects
    from ..progress import shown

    if given.plot:
        plot.check_package()
    asked = subjects(given.methods or METHODS, dict(given.set or ()))
    jobs = work.planned(asked, _works(given, backend), given.runs)
    _prepare(given)
    writers = _writers(given, files)

    def save(name: str, measurements: Sequence[Measurement]) -> None:
        advance(1, name, duration(measurements[-1].seconds), ended=True)
        for path, text in writers.items():
            if path != OUT:
                files.write(text(measurements), path)

    title = f"benchmark, {len(jobs)} variants, {given.runs} runs each, {backend}"
    with shown(title, len(jobs)) as advance:
        found = work.results(jobs, not given.no_peers, given.runs)
        measurements, errors = work.collect(found, save)
    said = [*report.lines(measurements)]
    said += [f"left out: {name}: {error}" for name, error in errors.items()]
    if not given.no_peers:
        absent = work.absent(jobs)
        said += [f"not installed, left out: {', '.join(absent)}"] if absent else []
    print("\n".join(said), file=sys.stderr if OUT in writers else sys.stdout)
    if OUT in writers:
        files.write(writers[OUT](measurements), OUT)
    if given.plot:
        plot.draw(measurements, given.plot)
    return 0


def _writers(
    given: argparse.Namespace, files: Any
) -> dict[str, Callable[[Sequence[Measurement]], str]]:
    """From each file to what makes its text."""
    return {
        path: text
        for path, text in ((given.json, files.as_json), (given.csv, files.as_csv))
        if path is not None
    }


def _works(given: argparse.Namespace, backend: str) -> list[Work]:
    """Every kind of work that was asked for."""
    from ..benchmark.measurement import Table, Work

    threads = given.threads or (None,)
    if given.rows:
        batch, kind = given.batch or BATCH, KINDS[given.draw or "zipf"]
        tables = [Table(rows, width, batch, kind) for rows, width in given.rows]
        return [
            Work(each.rows * each.width, threads=count, backend=backend, table=each)
            for each, count in itertools.product(tables, threads)
        ]
    states = [None if each == "none" else each for each in given.state_dtype or ("none",)]
    every = itertools.product(given.dtype or ("float32",), states, threads, given.sizes or SIZES)
    return [Work(size, dtype, state, count, backend) for dtype, state, count, size in every]


def _check(given: argparse.Namespace) -> None:
    """Refuse options without effect, and files that are none."""
    if given.rows:
        for name in ("sizes", "dtype", "state_dtype"):
            if getattr(given, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise Error(f"{option} has no effect with --rows, whose tables are of float32")
    else:
        for name in ("batch", "draw"):
            if getattr(given, name) is not None:
                raise Error(f"--{name} has no effect without --rows ROWSxWIDTH")
    for name, _ in given.set or ():
        if name == "state_dtype":
            raise Error("--set state_dtype=...: give --state-dtype instead")
    if given.plot and str(given.plot) == OUT:
        raise Error("--plot -: a picture needs a file")
    if given.json is not None and given.json == given.csv:
        raise Error(f"--json and --csv are both {given.json}: give one of them another file")


def _prepare(given: argparse.Namespace) -> None:
    """Check that every file can be written, before minutes of work."""
    from ..output_files import prepared_file

    for option in ("json", "csv", "plot"):
        path = getattr(given, option)
        if path is not None and str(path) != OUT:
            prepared_file(Path(path), f"--{option}")
