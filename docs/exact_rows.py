"""Draws the picture of docs/exact_rows.md and writes its table: lazy and exact beside dense rows.

python docs/exact_rows.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import gpuadapt as ga

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- made by `python docs/exact_rows.py` -->", "<!-- end -->"

SHARES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Of the steps that a row occurs in."""
ROWS, WIDTH, LEAST = 400, 16, 3000
"""Of the table, and steps: more where rows occur less often."""
LR = float(np.float32(1e-3))


def errors(share: float) -> dict[str, float]:
    """By how much tables end up elsewhere than dense Adam in float64, beside how far that went."""
    random = np.random.default_rng(0)
    start = random.normal(size=(ROWS, WIDTH)).astype(np.float32)
    tables = {name: start.copy() for name in ("lazy", "exact", "dense float32")}
    tables["dense"] = start.astype(np.float64)
    settings = {"exact": {"sparse": "exact"}}
    optimizers = {
        name: ga.Adam({"t": table}, lr=LR, **settings.get(name, {}))
        for name, table in tables.items()
    }
    for _ in range(max(LEAST, round(10 / share))):
        rows = np.flatnonzero(random.random(ROWS) < share)
        values = random.normal(size=(len(rows), WIDTH)).astype(np.float32)
        gradient = np.zeros_like(start)
        gradient[rows] = values
        for name, optimizer in optimizers.items():
            whole = gradient.astype(tables[name].dtype)
            by_rows = ga.RowGrad(rows, values)
            optimizer.step({"t": whole if name.startswith("dense") else by_rows})
    optimizers["exact"].flush()
    moved = np.abs(tables["dense"] - start).mean()
    return {
        name: float(np.abs(table - tables["dense"]).mean() / moved)
        for name, table in tables.items()
        if name != "dense"
    }


def draw(found: dict[float, dict[str, float]]) -> None:
    """The picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axis = figure.subplots()
    styles = {"lazy": ("#d62728", "o-"), "exact": ("#1f77b4", "o-"),
              "dense float32": ("#7f7f7f", "s--")}  # fmt: skip
    for name, (colour, style) in styles.items():
        hollow = {"markerfacecolor": "none", "markersize": 10} if "dense" in name else {}
        at = [found[share][name] for share in SHARES]
        axis.loglog(SHARES, at, style, color=colour, label=name, **hollow)
    axis.invert_xaxis()
    axis.set(
        xlabel="share of the steps that a row occurs in",
        ylabel="mean error / mean movement",
        title="Adam by rows, beside dense Adam in float64",
    )
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(PAGE.with_suffix(".png"), dpi=110)


def table(found: dict[float, dict[str, float]]) -> str:
    """A row for each share."""
    names = list(found[SHARES[0]])
    rows = [["a row occurs in", *names], ["---"] * (1 + len(names))]
    for share, of in found.items():
        rows.append([f"{share:.1%} of the steps", *(f"{of[name]:.2g}" for name in names)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    results = {share: errors(share) for share in SHARES}
    draw(results)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    text = f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{rest.split(END)[1]}"
    PAGE.write_text(text, encoding="utf-8")
