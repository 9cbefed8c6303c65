"""`gpuadapt compare`: the methods against each other, on real data."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from .. import progress
from ..errors import Error
from ..machine import describe_machine
from ..output_files import prepared_folder
from ..texts import counted
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
        A package of the ``compare`` extra is missing, there is too little text, or nothing can be
        written to the folder.
    """
    _check_packages(NEEDS)
    # Before all the work: a corpus or a folder that will not do shows at once.
    text = _read(corpus) if "words" in tasks else None
    prepared_folder(output, "--output")
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
    _check_packages(NEEDS | {"ml_dtypes": "ml_dtypes"})
    # Before all the work: a corpus or a folder that will not do shows at once.
    text = _read(corpus) if "words" in tasks else None
    prepared_folder(output, "--output")
    trained, titles = [], {}
    if "digits" in tasks:
        data = digits.load()
        steps = digits.total_steps(epochs, data[0])
        titles["digits"] = (
            f"digits, {counted(seeds, 'seed')}, {steps} steps of {digits.BATCH}, {backend}"
        )
        trained.append(formats.train_digits(seeds, epochs, data, backend))
    if text is not None:
        titles["words"] = (
            f"word vectors from {text.name}, {counted(seeds, 'seed')}, {formats.STEPS} steps"
        )
        trained.append(formats.train_words(seeds, text, formats.STEPS, backend))
    runs = []
    total = len(titles) * seeds * len(formats.FORMATS)
    with progress.shown(f"formats, {'; '.join(titles.values())}", total) as advance:
        for run in chain(*trained):
            runs.append(run)
            advance(1, f"{run.task}: {run.format}, seed {run.seed}", ended=True)
    formats_report.write(output, runs, titles)


def _read(corpus: Path | None) -> Corpus:
    if corpus is None:  # which takes seconds; a folder of the user's may be refused at once
        print("words: reading Python's standard library", file=sys.stderr, flush=True)
    return load(corpus)


def _check_packages(needed: Mapping[str, str]) -> None:
    missing = [needed[name] for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise Error(f"compare needs {', '.join(missing)}: pip install 'gpuadapt[compare]'")


def compare_digits(backend: str, seeds: int, epochs: int, output: Path) -> None:
    """Train with every method and seed, then over a grid of settings.

    Prints a table of each; writes curves.png, grid.png and results.json.
    """
    data = digits.load()
    steps = digits.total_steps(epochs, data[0])
    grid_epochs = min(epochs, grid.EPOCHS)
    grid_steps = digits.total_steps(grid_epochs, data[0])
    title = f"digits, {counted(seeds, 'seed')}, {steps} steps of {digits.BATCH}, {backend}"
    total = len(digits.METHODS) * seeds * steps + len(grid.SETTINGS) * grid_steps
    runs = []
    with progress.shown(title, total) as advance:
        for method in digits.METHODS:
            for seed in range(seeds):
                report_steps = partial(advance, work=f"{method}, seed {seed}")
                runs.append(digits.train(method, seed, epochs, data, backend, report_steps))
                report_steps(0, ended=True)
        trials = grid.train(
            grid_epochs,
            data,
            backend,
            lambda method, steps: advance(steps, f"grid, {method}", ended=True),
        )
    rows, grid_rows = report.summary(runs), grid.summary(trials)
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
    runs, vectors = [], {}
    few = min(kinds.STEPS, steps)
    total = len(words.METHODS) * steps + len(kinds.COMPARED) * len(kinds.KINDS) * few
    with progress.shown(f"words, from {text.name}, {steps} steps, {backend}", total) as advance:
        batches = draw_batches(text, steps, seed=0)
        for method in words.METHODS:
            report_steps = partial(advance, work=method)
            run, vectors[method] = words.train(method, text, batches, backend, report_steps)
            report_steps(0, ended=True)
            runs.append(run)
        compared = kinds.train(
            text, batches, few, backend, lambda work, steps: advance(steps, work, ended=True)
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
