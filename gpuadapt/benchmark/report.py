"""Measurements side by side, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from . import trust
from .measurement import Measurement, duration, work_of

Column = Callable[[Measurement], str]

SETTINGS: dict[str, Column] = {
    "method": lambda one: one.method,
    "elements": lambda one: f"{one.size:,}" if one.table is None else work_of(one.table),
    "type": lambda one: one.dtype,
    "states": lambda one: one.state_dtype or "",
    "threads": lambda one: "" if one.threads is None else f"{one.threads} of {one.pool}",
}
"""Columns that are left out if they are empty or the same in every line."""

FIGURES: dict[str, Column] = {
    "by": lambda one: one.candidate,
    "time": lambda one: duration(one.seconds),
    "quartiles": lambda one: f"{duration(one.low)} .. {duration(one.high)}",
    "GB/s": lambda one: f"{one.gigabytes_per_second:.3g}",
    "of limit": lambda one: f"{100 * one.share:.0f} %",
    "takes": lambda one: "" if one.candidate == "gpuadapt" else f"{one.relative:.2f}x",
    "not to be trusted": lambda one: ", ".join(reasons(one)),
}

LEFT = ("method", "elements", "type", "states", "by", "not to be trusted")
"""Columns that are aligned to the left; of the others the last digits stand below each other."""


def lines(measurements: Sequence[Measurement]) -> Iterator[str]:
    """Write the machine, a line for each measurement, and why some are not to be trusted."""
    machine = measurements[0].machine
    where = machine["processor"]
    if measurements[0].backend == "cuda":
        where = ", ".join(machine["devices"])
    yield (
        f"{where}, {machine['cores']} cores; gpuadapt {machine['gpuadapt']}, "
        f"Numba {machine['numba']}, NumPy {machine['numpy']}, Python {machine['python']}"
    )
    cells = {name: [of(one) for one in measurements] for name, of in SETTINGS.items()}
    fixed = {name: column[0] for name, column in cells.items() if len(set(column)) == 1}
    varied = {name: SETTINGS[name] for name in SETTINGS if name not in fixed}
    runs = sorted({one.runs for one in measurements})
    said = [f"{name} {value}" for name, value in fixed.items() if value]
    said.append(f"medians of {' and '.join(map(str, runs))} runs")
    yield "; ".join(said)
    yield ""
    yield from table(measurements, varied | FIGURES)
    yield from notes(measurements)


def table(measurements: Iterable[Measurement], columns: dict[str, Column]) -> Iterator[str]:
    """A line of headings, then one for each measurement."""
    measurements = list(measurements)
    rows = [[*columns], *([of(one) for of in columns.values()] for one in measurements)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if name in LEFT else cell.rjust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()


def notes(measurements: Iterable[Measurement]) -> Iterator[str]:
    """What the words mean that say why figures are not to be trusted."""
    said = {word for one in measurements for word in reasons(one)}
    if said:
        yield ""
    yield from (f"{word}: {meaning}" for word, meaning in trust.MEANINGS.items() if word in said)


def reasons(measurement: Measurement) -> list[str]:
    """The words for why a figure is not to be trusted."""
    return [each.partition(":")[0] for each in measurement.warnings]
