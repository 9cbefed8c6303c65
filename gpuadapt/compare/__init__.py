"""`gpuadapt compare`: the methods against each other, on real data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import Error
from ..machine import describe_machine

NEEDS = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}


def compare(backend: str, seeds: int, epochs: int, output: Path) -> None:
    """Train with every method and seed; print a table; write curves.png and results.json.

    Parameters
    ----------
    backend : {"cpu", "cuda"}
    seeds, epochs : int, >= 1
    output : Path
        A folder; made if there is none.

    Raises
    ------
    Error
        A package of the ``compare`` extra is missing.
    """
    missing = [NEEDS[name] for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise Error(f"compare needs {', '.join(missing)}: pip install 'gpuadapt[compare]'")
    output.mkdir(parents=True, exist_ok=True)

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from . import digits, report

    data = digits.load()
    steps = epochs * (len(data[0]) // digits.BATCH)
    runs = []
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(digits.METHODS) * seeds * steps)
        for method in digits.METHODS:
            for seed in range(seeds):
                progress.update(task, description=f"{method}, seed {seed}")
                runs.append(
                    digits.train(
                        method, seed, epochs, data, backend, lambda n: progress.advance(task, n)
                    )
                )
    rows = report.summary(runs)
    title = f"digits, {seeds} seeds, {steps} steps of {digits.BATCH}, {backend}"
    report.print_table(rows, title)
    report.write_json(output / "results.json", runs, rows, describe_machine())
    report.draw(output / "curves.png", runs)
    print(f"wrote {output / 'curves.png'} and {output / 'results.json'}")
