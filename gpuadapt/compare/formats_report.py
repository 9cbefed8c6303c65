"""What the comparison of formats leaves: a table for each task and a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..machine import describe_machine
from . import formats
from .formats import EXACT, Run
from .report import write_json

NEAR = 1.0
"""In %: smaller differences are drawn in proportion, larger ones by their logarithm."""
FARTHEST = 1e6
"""In %: where the picture ends, with those that diverged."""
TICKS = (-100, -10, -1, -0.5, 0, 0.5, 1, 3, 10, 30, 100, 1e4, 1e6)
CLOSE, FAR = "#1f77b4", "#d62728"
"""Colours of formats that are nearer than that, and of others."""


def write(output: Path, runs: list[Run], titles: dict[str, str]) -> None:
    """Print a table for each task, by its title; write formats.png and formats.json."""
    rows = {task: summary([run for run in runs if run.task == task]) for task in titles}
    for task, title in titles.items():
        print_table(rows[task], title)
    write_json(
        output / "formats.json",
        {
            "machine": describe_machine(),
            "formats": {
                name: {"parameter": kind, **settings}
                for name, (kind, settings) in formats.FORMATS.items()
            },
            "lr": formats.LR,
            "weight_decay": formats.WEIGHT_DECAY,
            "titles": titles,
            "summary": rows,
            "runs": [run.as_dict() for run in runs],
        },
    )
    draw(output / "formats.png", rows)
    print(f"wrote {output / 'formats.png'}, {output / 'formats.json'}")


def summary(runs: list[Run]) -> list[dict[str, Any]]:
    """One row per format of one task: means over seeds, and differences to float32's."""
    exact = {run.seed: run.loss for run in runs if run.format == EXACT}
    rows = []
    for name in dict.fromkeys(run.format for run in runs):
        own = [run for run in runs if run.format == name]
        losses = [run.loss for run in own]
        row = {
            "format": name,
            "bytes": own[0].bytes,
            "loss": float(np.mean(losses)),
            "loss_spread": float(np.std(losses)) if np.isfinite(losses).all() else math.inf,
            "difference": float(np.mean(losses) / np.mean(list(exact.values())) - 1),
            "differences": [run.loss / exact[run.seed] - 1 for run in own],
        }
        accuracy = [run.accuracy for run in own if run.accuracy is not None]
        rows.append(row | ({"accuracy": float(np.mean(accuracy))} if accuracy else {}))
    return rows


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """The summary of one task, in the terminal."""
    from rich.console import Console
    from rich.table import Table

    caption = "bytes of a parameter, with all that is kept for it"
    if "accuracy" in rows[0]:
        caption += "; test: accuracy"
    table = Table(title=title, caption=caption)
    # Together no wider than a terminal.
    table.add_column("format", no_wrap=True)
    headings = ["bytes", "training loss", "to float32"]
    for heading in headings + ["test %"] * ("accuracy" in rows[0]):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            row["format"],
            f"{row['bytes']:.2f}",
            f"{row['loss']:.4f} ± {row['loss_spread']:.4f}",
            f"{row['difference'] * 100:+.2f} %",
        ]
        if "accuracy" in row:
            cells.append(f"{row['accuracy'] * 100:.2f}")
        table.add_row(*cells)
    Console().print(table)


def draw(path: Path, summaries: dict[str, list[dict[str, Any]]]) -> None:
    """How far each format's loss is from float32's, beside the bytes that it takes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(1, len(summaries), squeeze=False)[0]
    for axis, (task, rows) in zip(axes, summaries.items(), strict=True):
        _draw_task(axis, task, [row for row in rows if row["format"] != EXACT], axis is axes[0])
    figure.suptitle(
        "What formats cost: training loss against float32's, in % "
        "(bars: mean over seeds, dots: seeds, at the right: bytes per parameter)",
        fontsize=13,
    )
    figure.savefig(path, dpi=110)


def _draw_task(axis: Any, task: str, rows: list[dict[str, Any]], named: bool) -> None:
    from matplotlib.ticker import FixedLocator

    places = np.arange(len(rows))
    means = _shown([row["difference"] for row in rows])
    seeds = [_shown(row["differences"]) for row in rows]
    colours = [CLOSE if abs(mean) <= NEAR else FAR for mean in means]
    axis.axvspan(-NEAR, NEAR, color="black", alpha=0.06, linewidth=0)
    axis.barh(places, means, height=0.6, color=colours, alpha=0.75)
    for place, row, own in zip(places, rows, seeds, strict=True):
        axis.plot(own, np.full(len(own), place), "o", color="black", markersize=3)
        axis.text(
            1.01, place, f"{row['bytes']:.1f}", transform=axis.get_yaxis_transform(), va="center"
        )
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=NEAR, linscale=1.5)
    low, high = (2 * max(NEAR, np.max(sign * np.array(seeds))) for sign in (-1, 1))
    axis.set_xlim(-low, high)
    ticks = [tick for tick in TICKS if -low < tick < high]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.set_xticklabels([f"{tick:+g}" if tick else "0" for tick in ticks])
    axis.set_yticks(places, [row["format"] for row in rows] if named else [""] * len(rows))
    axis.invert_yaxis()
    axis.set(xlabel="difference, %", title=task)
    axis.grid(alpha=0.25, linewidth=0.5, axis="x")
    axis.spines[["top", "right"]].set_visible(False)


def _shown(differences: list[float]) -> np.ndarray:
    """In %, as the picture shows them."""
    shown: np.ndarray = np.nan_to_num(100 * np.array(differences), nan=FARTHEST).clip(max=FARTHEST)
    return shown
