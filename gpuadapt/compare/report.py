"""What the comparison on digits leaves: a table, a picture, a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from .digits import Run

COLOURS = {
    "SGD": "#7f7f7f",
    "momentum": "#8c564b",
    "Adagrad": "#1f77b4",
    "RMSprop": "#2ca02c",
    "Adadelta": "#9467bd",
    "Adam": "#d62728",
}


def summary(runs: list[Run]) -> list[dict[str, Any]]:
    """One row per method: means over seeds, and the spread of the accuracy."""
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        accuracy = [run.accuracy[-1] for run in own]
        rows.append(
            {
                "method": method,
                "accuracy": float(np.mean(accuracy)),
                "accuracy_spread": float(np.std(accuracy)),
                "loss": float(np.mean([run.loss[-1] for run in own])),
                "step_us": float(
                    np.mean([run.optimizer_seconds / run.total_steps for run in own]) * 1e6
                ),
                "share": sum(run.optimizer_seconds for run in own)
                / sum(run.training_seconds for run in own),
            }
        )
    return rows


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """The summary, in the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("method")
    for heading in ("test accuracy %", "training loss", "optimizer µs/step", "share of step %"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['accuracy'] * 100:.2f} ± {row['accuracy_spread'] * 100:.2f}",
            f"{row['loss']:.4f}",
            f"{row['step_us']:.1f}",
            f"{row['share'] * 100:.1f}",
        )
    Console().print(table)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Everything that was recorded."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def draw(path: Path, runs: list[Run]) -> None:
    """Loss and accuracy over steps, and how each method's effective rates are distributed."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(run.method for run in runs))
    figure = Figure(figsize=(13, 9), layout="constrained")
    top, bottom = cast(Any, figure.subfigures(2, 1, height_ratios=(3, 2)))
    _draw_curves(top, methods, runs)
    _draw_rates(bottom, methods, runs)
    figure.savefig(path, dpi=110)


def _draw_curves(figure: Any, methods: list[str], runs: list[Run]) -> None:
    axes = figure.subplots(1, 2)
    for method in methods:
        own = [run for run in runs if run.method == method]
        steps = np.array(own[0].steps)[1:]
        for axis, values in (
            (axes[0], np.array([run.loss for run in own])),
            (axes[1], 100 * (1 - np.array([run.accuracy for run in own]))),
        ):
            values = values[:, 1:]
            colour = COLOURS[method]
            axis.plot(steps, values.mean(axis=0), color=colour, label=method, linewidth=1.8)
            axis.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0
            )
    for axis, title in zip(axes, ("Training loss", "Test error, %"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="step", title=title)
        axis.grid(alpha=0.25, which="both", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes[1].minorticks_off()
    axes[0].legend(frameon=False)
    seeds = len({run.seed for run in runs})
    figure.suptitle(
        f"Handwritten digits, {seeds} seed{'s' * (seeds > 1)}: mean and range", fontsize=13
    )


def _draw_rates(figure: Any, methods: list[str], runs: list[Run]) -> None:
    axes = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for axis, method in zip(axes, methods, strict=True):
        run = next(run for run in runs if run.method == method)
        steps, quantiles = np.array(run.steps[1:]), np.array(run.rates[1:]).T
        colour = COLOURS[method]
        for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.3)):
            axis.fill_between(
                steps, quantiles[low], quantiles[high], color=colour, alpha=alpha, linewidth=0
            )
        axis.plot(steps, quantiles[2], color=colour, linewidth=1.8)
        axis.set(xscale="log", yscale="log", xlabel="step", title=method)
        axis.minorticks_off()  # in panels so small they tell little, and take half of the drawing
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    # The first steps of Adam reach lr / eps: they would leave no room for the rest.
    settled = [q for run in runs for step, q in zip(run.steps, run.rates, strict=True) if step > 9]
    axes[0].set_ylim(np.min(settled) / 2, np.max(settled) * 10)
    axes[0].set_ylabel("effective rate")
    figure.suptitle(
        "Effective learning rate of the elements: median, middle 50 % and 90 %", fontsize=13
    )
