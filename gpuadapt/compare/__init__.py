"""`gpuadapt compare`: the methods against each other, on real data."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from ..errors import Error
from ..machine import describe_machine
from . import (
    digits,
    formats,
    formats_report,
    grid,
    grid_report,
    kinds,
    report,
    words,
    words_report,
)
from .corpus import Corpus, load
from .skipgram import draw_batches

NEEDS = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}


def compare(
    tasks: Sequence[str],
    backend: str,
    seeds: int,
    epochs: int,
    corpus: Path | None,
    output: Path,
) -> None:
    """Train with every method; print tables; write pictures and JSON, and word vectors.

    Parameters
    ----------
    tasks : of "digits" and "words"
    backend : {"cpu", "cuda"}
    seeds, epochs : int, >= 1
        Of the digits.
    corpus : Path or None
        Of the words: a text file or a folder of them, None for Python's standard library.
    output : Path
        A folder; made if there is none.

    Raises
    ------
    Error
        A package of the ``compare`` extra is missing, or there is too little text.
    """
    _check_packages(NEEDS)
    output.mkdir(parents=True, exist_ok=True)
    # Before all the work: a corpus that will not do shows at once.
    text = load(corpus) if "words" in tasks else None
    if "digits" in tasks:
        compare_digits(backend, seeds, epochs, output)
    if text is not None:
        compare_words(backend, text, output, words.STEPS)


def compare_formats(
    tasks: Sequence[str],
    backend: str,
    seeds: int,
    epochs: int,
    corpus: Path | None,
    output: Path,
) -> None:
    """Train with Adam in every storage format; print a table per task; write formats.png, .json.

    Parameters and errors are those of `compare`, but that ``seeds`` are of both tasks.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    _check_packages(NEEDS | {"ml_dtypes": "ml_dtypes"})
    output.mkdir(parents=True, exist_ok=True)
    # Before all the work: a corpus that will not do shows at once.
    text = load(corpus) if "words" in tasks else None
    trained, titles = [], {}
    if "digits" in tasks:
        data = digits.load()
        steps = digits.total_steps(epochs, data[0])
        titles["digits"] = f"digits, {seeds} seeds, {steps} steps of {digits.BATCH}, {backend}"
        trained.append(formats.train_digits(seeds, epochs, data, backend))
    if text is not None:
        titles["words"] = f"word vectors from {text.name}, {seeds} seeds, {formats.STEPS} steps"
        trained.append(formats.train_words(seeds, text, formats.STEPS, backend))
    runs = []
    columns = (TextColumn("{task.description:<42}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(titles) * seeds * len(formats.FORMATS))
        for run in chain(*trained):
            runs.append(run)
            shown = f"{run.task}: {run.format}, seed {run.seed}"
            progress.update(task, advance=1, description=shown)
    formats_report.write(output, runs, titles)


def _check_packages(needed: Mapping[str, str]) -> None:
    missing = [needed[name] for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise Error(f"compare needs {', '.join(missing)}: pip install 'gpuadapt[compare]'")


def compare_digits(backend: str, seeds: int, epochs: int, output: Path) -> None:
    """Train with every method and seed, then over a grid of settings.

    Prints a table of each; writes curves.png, grid.png and results.json.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    data = digits.load()
    steps = digits.total_steps(epochs, data[0])
    grid_epochs = min(epochs, grid.EPOCHS)
    grid_steps = digits.total_steps(grid_epochs, data[0])
    runs = []
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        total = len(digits.METHODS) * seeds * steps + len(grid.SETTINGS) * grid_steps
        task = progress.add_task("", total=total)
        for method in digits.METHODS:
            for seed in range(seeds):
                progress.update(task, description=f"{method}, seed {seed}")
                runs.append(
                    digits.train(
                        method, seed, epochs, data, backend, lambda n: progress.advance(task, n)
                    )
                )
        trials = grid.train(
            grid_epochs,
            data,
            backend,
            lambda method, n: progress.update(task, advance=n, description=f"grid of {method}"),
        )
    rows, grid_rows = report.summary(runs), grid.summary(trials)
    title = f"digits, {seeds} seeds, {steps} steps of {digits.BATCH}, {backend}"
    report.print_table(rows, title)
    common = f"digits, seed {grid.SEED}, {grid_steps} steps of {digits.BATCH}"
    grid_report.print_table(grid_rows, f"how much the settings matter: {common}")
    report.write_json(
        output / "results.json",
        {
            "machine": describe_machine(),
            "summary": rows,
            "runs": [run.as_dict() for run in runs],
            "grid": {
                "seed": grid.SEED,
                "epochs": grid_epochs,
                "steps": grid_steps,
                "summary": grid_rows,
                "trials": [trial.as_dict() for trial in trials],
            },
        },
    )
    report.draw(output / "curves.png", runs)
    grid_report.draw(output / "grid.png", trials, f"Handwritten {common} ({grid_epochs} epochs)")
    names = (str(output / name) for name in ("curves.png", "grid.png", "results.json"))
    print("wrote " + ", ".join(names))


def compare_words(backend: str, text: Corpus, output: Path, steps: int) -> None:
    """Learn word vectors with every method; print tables; write words.png, .json and .vec."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    batches = draw_batches(text, steps, seed=0)
    runs, vectors = [], {}
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        few = min(kinds.STEPS, len(batches.centre))
        total = len(words.METHODS) * len(batches.centre)
        total += len(kinds.COMPARED) * len(kinds.KINDS) * few
        task = progress.add_task("", total=total, rate="")
        for method in words.METHODS:
            progress.update(task, description=method)
            run, vectors[method] = words.train(
                method,
                text,
                batches,
                backend,
                lambda n, rate: progress.update(task, advance=n, rate=f"{rate:,.0f} words/s"),
            )
            runs.append(run)
        compared = kinds.train(
            text,
            batches,
            few,
            backend,
            lambda what, n: progress.update(task, advance=n, description=what, rate=""),
        )
    rows = words_report.summary(runs)
    common = words_report.settings(text, batches)
    words_report.print_table(rows, common, backend)
    words_report.print_kinds(compared, few)
    best = min(rows, key=lambda row: math.inf if math.isnan(row["loss"]) else row["loss"])["method"]
    found = words.neighbours(text, vectors[best])
    words_report.print_neighbours(found, best)
    words.write_vectors(output / "words.vec", text.words, vectors[best])
    report.write_json(
        output / "words.json",
        {
            "machine": describe_machine(),
            "settings": common,
            "summary": rows,
            "vectors": best,
            "neighbours": found,
            "runs": [run.as_dict() for run in runs],
            "kinds": {"steps": few, "runs": [run.as_dict() for run in compared]},
        },
    )
    words_report.draw(output / "words.png", runs, common)
    names = (str(output / name) for name in ("words.png", "words.json", "words.vec"))
    print("wrote " + ", ".join(names) + f" (by {best})")
