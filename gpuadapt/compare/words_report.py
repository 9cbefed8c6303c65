"""What the comparison on words leaves: a table, neighbours, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import corpus as text
from . import kinds, skipgram
from .corpus import Corpus
from .report import COLOURS
from .skipgram import Batches
from .words import Run


def settings(corpus: Corpus, batches: Batches) -> dict[str, Any]:
    """What every run had in common."""
    return {
        "corpus": corpus.name,
        "words": len(corpus.text),
        "held_out_words": len(corpus.held_out),
        "vocabulary": len(corpus.words),
        "min_count": text.MIN_COUNT,
        "rare_count": int(corpus.counts[corpus.first_rare]),
        "dim": skipgram.DIM,
        "window": skipgram.WINDOW,
        "threshold": skipgram.THRESHOLD,
        "negatives": skipgram.NEGATIVES,
        "steps": len(batches.centre),
        "pairs_per_step": batches.centre[0].size,
        "noise_words_per_step": batches.noise[0].size,
        "words_per_step": batches.words_per_step,
        "rows": 2 * len(corpus.words),
        "rows_per_step": _rows_per_step(batches),
    }


def _rows_per_step(batches: Batches) -> float:
    """Different rows of both tables, in the mean of the first hundred steps."""
    touched = [
        len(np.unique(centre)) + len(np.union1d(context, noise))
        for centre, context, noise in zip(
            batches.centre[:100], batches.context[:100], batches.noise[:100], strict=True
        )
    ]
    return float(np.mean(touched))


def summary(runs: list[Run]) -> list[dict[str, Any]]:
    """One row per method."""
    return [
        {
            "method": run.method,
            "loss": run.loss[-1],
            "rare_loss": run.rare_loss[-1],
            "words_per_second": run.words[-1] / run.training_seconds,
            "share": run.optimizer_seconds / run.training_seconds,
        }
        for run in runs
    ]


def print_table(rows: list[dict[str, Any]], common: dict[str, Any], backend: str) -> None:
    """The summary, in the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"word vectors from {common['corpus']}, {common['words']:,} words, {backend}",
        caption=f"each of {common['steps']:,} steps touches {common['rows_per_step']:,.0f} "
        f"of {common['rows']:,} rows; rare words occur up to {common['rare_count']} times",
    )
    table.add_column("method")
    for heading in ("held-out loss", "loss on rare words", "words/s", "update's share %"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["method"],
            f"{row['loss']:.3f}",
            f"{row['rare_loss']:.3f}",
            f"{row['words_per_second']:,.0f}",
            f"{row['share'] * 100:.1f}",
        )
    Console().print(table)


def print_kinds(runs: list[kinds.Run], steps: int) -> None:
    """Losses with rows left out, brought up to date, and all updated, in the terminal."""
    from rich.console import Console
    from rich.table import Table

    equal = all(run.equal for run in runs if run.kind == "exact")
    table = Table(
        title=f"rows that do not occur in a batch: held-out loss after {steps:,} steps",
        caption="of all words / of rare words; exact is dense "
        + ("bit for bit" if equal else "but for rounding"),
    )
    table.add_column("method")
    for kind in kinds.KINDS:
        table.add_column(kind, justify="right")
    for method in dict.fromkeys(run.method for run in runs):
        own = (run for run in runs if run.method == method)
        table.add_row(method, *(f"{run.loss:.4f} / {run.rare_loss:.4f}" for run in own))
    Console().print(table)


def print_neighbours(found: dict[str, list[tuple[str, float]]], method: str) -> None:
    """Words and their neighbours, in the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"neighbours by {method}: the closest among frequent words (cosine)")
    table.add_column("word")
    table.add_column("neighbours")
    for word, others in found.items():
        table.add_row(word, "  ".join(f"{other} {cosine:.2f}" for other, cosine in others))
    Console().print(table)


def draw(path: Path, runs: list[Run], common: dict[str, Any]) -> None:
    """Losses of all and of rare words over words seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name, title in (
        (axes[0], "loss", "Held-out loss"),
        (axes[1], "rare_loss", f"Rare words (at most {common['rare_count']} times in the text)"),
    ):
        for run in runs:
            seen = np.array(run.words) / 1e6
            losses = getattr(run, name)
            axis.plot(seen, losses, color=COLOURS[run.method], label=run.method, linewidth=1.8)
        axis.set(xlabel="million words seen", title=title)
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False)
    figure.suptitle(f"Word vectors from {common['corpus']}", fontsize=13)
    figure.savefig(path, dpi=110)
