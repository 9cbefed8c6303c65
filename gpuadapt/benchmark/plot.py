"""A picture of measurements: time of an element over the number of elements, with the limit."""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from .measurement import Measurement
from .report import SETTINGS

COLOURS = {
    "gpuadapt": "#0072B2",
    "torch fused": "#D55E00",
    "torch foreach": "#E69F00",
    "torch single": "#8C564B",
    "torch SparseAdam": "#D55E00",
    "torch Adagrad": "#D55E00",
    "optax jit": "#009E73",
    "deepspeed": "#CC79A7",
    "thinc": "#56B4E9",
    "fbgemm": "#000000",
}
"""Most are Okabe and Ito's, which the colour-blind can tell apart."""

MARKERS = "osD^vPX*"


def check_package() -> None:
    """Raise `PackageError` unless matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PackageError(
            "--plot needs matplotlib: pip install 'gpuadapt[compare]', or leave the option out"
        )


def draw(measurements: Sequence[Measurement], path: Path) -> None:
    """Write a PNG: a panel for each method, a line for each candidate and kind of work.

    The colour of a line depends on its name alone. Bars are quartiles, dashed lines the limit.
    """
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(one.method for one in measurements))
    rows = -(-len(methods) // 2) if len(methods) > 1 else 1
    columns = min(2, len(methods))
    figure = Figure(figsize=(6.5 * columns + 2.5, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    series: dict[str, Any] = {}
    for panel, method in zip(panels, methods, strict=False):
        series |= _draw_panel(panel, [one for one in measurements if one.method == method])
        panel.set(title=method)
    for panel in panels[len(methods) :]:
        panel.set_axis_off()
    figure.legend(series.values(), series, loc="outside right upper", frameon=False)
    machine = measurements[0].machine
    where = machine["processor"]
    if measurements[0].backend == "cuda":
        where = ", ".join(machine["devices"])
    figure.suptitle(f"{where}, {machine['date']}: median and quartiles; dashed: the limit")
    figure.savefig(path, dpi=110, format="png")


def colour(name: str) -> Any:
    """The colour of a line by its name, the same in every picture."""
    from matplotlib.colors import hsv_to_rgb

    hue = zlib.crc32(name.encode()) % 360 / 360
    return COLOURS.get(name) or hsv_to_rgb((hue, 0.8, 0.7))


def _draw_panel(axes: Any, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The lines that were drawn, by name."""
    found, varied = dict[str, Any](), _varied(measurements)
    groups: dict[str, list[Measurement]] = {}
    for one in measurements:
        groups.setdefault(", ".join([one.candidate, *(of(one) for of in varied)]), []).append(one)
    for name, ones in groups.items():
        ones = sorted(ones, key=lambda one: one.size)
        sizes = [one.size for one in ones]
        each = [_nanoseconds(one.seconds, one) for one in ones]
        below = [mid - _nanoseconds(one.low, one) for mid, one in zip(each, ones, strict=True)]
        above = [_nanoseconds(one.high, one) - mid for mid, one in zip(each, ones, strict=True)]
        marker = MARKERS[zlib.crc32(name.encode()) % len(MARKERS)]
        found[name] = axes.errorbar(
            sizes, each, (below, above), color=colour(name), marker=marker, ms=5, lw=1.5, capsize=4
        )
        if ones[0].candidate == "gpuadapt":
            limit = [_nanoseconds(one.limit_seconds, one) for one in ones]
            style = {"color": colour(name), "ls": "--", "lw": 1, "marker": "_", "ms": 12}
            axes.plot(sizes, limit, **style)
    axes.set(xscale="log", yscale="log", xlabel="elements of a step", ylabel="ns for an element")
    axes.grid(alpha=0.3)
    return found


def _varied(measurements: Sequence[Measurement]) -> list[Any]:
    """What tells the work of one line from that of another, beside its size."""
    kinds = [of for name, of in SETTINGS.items() if name in ("type", "states", "threads")]
    return [of for of in kinds if len({of(one) for one in measurements}) > 1]


def _nanoseconds(seconds: float, one: Measurement) -> float:
    return seconds / one.size * 1e9
