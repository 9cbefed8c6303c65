"""What the grid of settings leaves: a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .grid import EPS, RATES, RHO, Trial
from .report import COLOURS

LOWEST, HIGHEST = 0.5, 100.0
"""Of the scale of errors in %; one wrong image of the test set's 450 is 0.22 %."""
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)
GUESSING = 90.0
"""The error, in %, of a network that calls every image the same of ten digits."""


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """The summary, in the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption="error on the test set after the last step")
    table.add_column("method")
    table.add_column("settings tried")
    for heading in ("best %", "worst %"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['trials']}: {row['settings']}",
            f"{row['best'] * 100:.1f}",
            f"{row['worst'] * 100:.1f}",
        )
    Console().print(table)


def draw(path: Path, trials: list[Trial], title: str) -> None:
    """Adadelta's errors over rho and eps beside those of the others over the learning rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_map(left, [trial for trial in trials if trial.method == "Adadelta"])
    _draw_curves(right, trials)
    figure.suptitle(title, fontsize=13)
    figure.savefig(path, dpi=110)


def _draw_map(axis: Any, trials: list[Trial]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    found = {(trial.settings["rho"], trial.settings["eps"]): 100 * trial.error for trial in trials}
    errors = np.array([[found[rho, eps] for eps in EPS] for rho in RHO])
    scale = LogNorm(LOWEST, HIGHEST, clip=True)
    colours = LinearSegmentedColormap.from_list(
        "errors", ["#f6f2fa", COLOURS["Adadelta"], "#2a133f"]
    )
    image = axis.imshow(errors, norm=scale, cmap=colours, aspect="auto")
    for (row, column), error in np.ndenumerate(errors):
        colour = "white" if scale(error) > 0.4 else "#2a133f"
        axis.text(column, row, f"{error:.1f}", ha="center", va="center", color=colour, fontsize=13)
    axis.set_xticks(range(len(EPS)), [_power(eps) for eps in EPS])
    axis.set_yticks(range(len(RHO)), [f"{rho:g}" for rho in RHO])
    # White lines between the cells.
    axis.set_xticks(np.arange(len(EPS) - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(len(RHO) - 1) + 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    axis.set(xlabel="eps", ylabel="rho", title="Adadelta: test error, %")
    bar = axis.figure.colorbar(image, ax=axis, pad=0.02)
    bar.set_ticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)


def _draw_curves(axis: Any, trials: list[Trial]) -> None:
    adadelta = [100 * trial.error for trial in trials if trial.method == "Adadelta"]
    axis.axhspan(
        max(min(adadelta), LOWEST),
        max(adadelta),
        color=COLOURS["Adadelta"],
        alpha=0.15,
        linewidth=0,
        label=f"Adadelta, all {len(adadelta)} settings",
    )
    for method in dict.fromkeys(trial.method for trial in trials if "lr" in trial.settings):
        own = [trial for trial in trials if trial.method == method]
        errors = np.clip([100 * trial.error for trial in own], LOWEST, HIGHEST)
        rates = [trial.settings["lr"] for trial in own]
        label = f"{method} {own[0].settings.get('momentum', '')}".strip()
        axis.plot(rates, errors, "o-", color=COLOURS[method], label=label, linewidth=1.8)
    axis.axhline(GUESSING, color="black", linewidth=0.8, linestyle=":", label="guessing")
    axis.set(
        xscale="log",
        yscale="log",
        ylim=(LOWEST, HIGHEST),
        xlabel="learning rate",
        title="Test error over the learning rate, %",
    )
    axis.set_xticks(RATES, [_power(rate) for rate in RATES])
    axis.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.minorticks_off()
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    # Within the curves, which all come down in the middle.
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.56, 0.95))


def _power(value: float) -> str:
    return f"$10^{{{round(np.log10(value))}}}$"
