"""The rows of a `Record` as CSV, JSON, a DataFrame of pandas and a picture."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .checkpoint.durable import replace
from .checkpoint.paths import path_of
from .errors import PackageError, StateError

Row = Mapping[str, Any]

LEGEND = 12
"""Most names of parameters that a legend has room for."""

STYLES = ("-", "--", ":", "-.")
"""Lines of parameters that have the same colour."""


def csv_text(rows: Sequence[Row]) -> str:
    """Return rows as comma-separated values; the first line has the names of all columns."""
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def json_text(rows: Sequence[Row]) -> str:
    """Return rows as a JSON array of objects, one a line; null for numbers that are not finite."""
    finite = [{name: _finite(value) for name, value in row.items()} for row in rows]
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in finite)
    return f"[\n{lines}\n]\n" if rows else "[]\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(target: Any, text: str) -> None:
    """Write text into a file that is open, or in place of the file of a path.

    Raises
    ------
    NotWrittenError, NotDurableError, CheckpointError
    """
    if hasattr(target, "write"):
        target.write(text)
        return

    def fill(descriptor: int) -> None:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())

    replace(path_of(target), fill)


def frame(rows: Sequence[Row]) -> Any:
    """Return rows as a DataFrame of pandas."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise _missing("to_frame", "pandas") from None
    return DataFrame([dict(row) for row in rows])


def _missing(call: str, name: str) -> PackageError:
    return PackageError(f"{call}: {name} is not installed; pip install {name}")


def drawn(rows: Sequence[Row]) -> Any:
    """Return a matplotlib figure with four panels over the steps; see `Record.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise _missing("plot", "matplotlib") from None
    if not rows:
        raise StateError("plot: nothing has been recorded yet (of these parameters)")
    figure: Any = Figure(figsize=(11, 7), layout="constrained")
    ((rates, ratio), (lost, norm)) = figure.subplots(2, 2, sharex=True)
    names = list(dict.fromkeys(row["name"] for row in rows))
    for k, name in enumerate(names):
        own = [row for row in rows if row["name"] == name]
        look = {"color": f"C{k % 10}", "linestyle": STYLES[k // 10 % len(STYLES)]}
        steps = [row["step"] for row in own]
        low, middle, high = (_numbers(own, f"rate_{share}") for share in ("05", "50", "95"))
        rates.plot(steps, middle, label=name, **look)
        rates.fill_between(steps, low, high, color=look["color"], alpha=0.15, linewidth=0)
        ratio.plot(steps, _numbers(own, "ratio"), **look)
        lost.plot(steps, [100 * share for share in _numbers(own, "lost")], **look)
    by_step = {row["step"]: row["grad_norm"] for row in rows}
    norm.plot(list(by_step), list(by_step.values()), color="0.3")
    rates.set(title="Effective rate: median, middle 90 %", yscale="log")
    ratio.set(title="Norm of the update / norm of the parameter", yscale="log")
    lost.set(title="Updates rounded to nothing, %", xlabel="step", ylim=(-3, 103))
    norm.set(title="Norm of all gradients", xlabel="step", yscale="log")
    for axis in (rates, ratio, lost, norm):
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    if len(names) <= LEGEND:
        rates.legend(frameon=False)
    return figure


def _numbers(rows: Sequence[Row], column: str) -> list[float]:
    """A column, with NaN, which is not drawn, for None."""
    return [math.nan if row[column] is None else row[column] for row in rows]
