"""Results as a reader sees them: lines in a terminal, tables in Markdown, a picture.

``python -m benchmarks.report`` makes the tables and pictures anew from `results/*.json`: one
page for each machine, and the parts of the README and of docs/torch.md between their two marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpuadapt.benchmark.measurement import duration
from gpuadapt.benchmark.timing import ratio

from . import goals

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- made by `python -m benchmarks.report` -->", "<!-- end -->"
SUITES = ("dense", "many", "formats", "rows", "exact", "torch")
OF_GPUS = ("roofs", "methods")
"""Suites of cases that are not part of all: for GPUs."""
FIGURES = ("overhead", "host", "launches")
"""Suites whose results are figures, not candidates of a case."""
ROOFS = ("limit", "arithmetic")
"""What no kernel of the same bytes, and none of the same operations, gets below."""
PRINTED = {
    "dense": ("torch fused", "torch foreach", "optax jit", "deepspeed", "thinc", "numpy", "cupy"),
    "many": ("torch fused", "torch foreach", "optax jit", "deepspeed", "numpy", "cupy"),
    "formats": ("torch fused", "torch bfloat16 fused"),
    "rows": ("torch SparseAdam", "torch Adagrad", "fbgemm", "fbgemm row-wise", "numpy"),
    "exact": ("gpuadapt read and step", "gpuadapt lazy", "gpuadapt dense"),
    "torch": ("torch fused", "torch foreach", "torch default", "torch SparseAdam", "torch Adagrad"),
}
"""Peers in the README's tables, by suite, as far as they were there."""
IN_TORCH = "`gpuadapt.torch`, each step right after a product of two matrices by torch:"
"""What the README says before the table of the suite "torch"."""


def lines(result: dict[str, Any]) -> Iterable[str]:
    """One case: for each candidate the time with quartiles, bandwidth, and ratios; or its error."""
    times = result["times"]
    yield from (f"  {name:<20}FAILED: {error}" for name, error in _errors(result))
    if times:
        yield from _candidates(result)
    for figure in result.get("figures", ()):
        yield f"  {figure['name'].removeprefix(result['name'] + ': ')}: {_value(figure)}"


def _candidates(result: dict[str, Any]) -> Iterable[str]:
    """A line for each candidate's time."""
    times = result["times"]
    each = result["bytes"] / result["size"]
    yield f"{'':22}{'time':>12}{'quartiles':>22}{'GB/s':>8}{'of limit':>10}{'ours':>8}{'first':>9}"
    for name, time in sorted(times.items(), key=lambda item: item[1]["median"]):
        median, first = time["median"], time.get("first")
        ours = f"{ratio(times, name, 'gpuadapt'):.2f}x" if "gpuadapt" in times else ""
        share = f"{100 * ratio(times, 'limit', name):.0f} %" if "limit" in times else ""
        spread = f"{duration(time['low'])} .. {duration(time['high'])}"
        yield (
            f"  {name:<20}{duration(median):>12}{spread:>22}{result['bytes'] / median / 1e9:8.1f}"
            f"{share:>10}"
            f"{ours:>8}"
            f"{f'{first:.2f} s' if first else '':>9}"
        )
    yield f"  {each:.1f} bytes an element must move"


def headline(results: dict[str, Any]) -> str:
    """The machine and the date."""
    machine = results["machine"]
    where = f"{machine['processor']}, {machine['threads']} threads"
    suites = (*SUITES, *OF_GPUS)
    if any(case["backend"] == "cuda" for suite in suites for case in results.get(suite, ())):
        where = machine["devices"][0]
    return f"{where}, {results['date']}"


def table(cases: list[dict[str, Any]], peers: Iterable[str]) -> list[str]:
    """A row for each case that gpuadapt has a time in: that, its roofs' shares of it, others'
    times as multiples."""
    cases = [case for case in cases if "gpuadapt" in case["times"]]
    roofs, present = (
        [name for name in names if any(name in case["times"] for case in cases)]
        for names in (ROOFS, peers)
    )
    head = ["", "gpuadapt", "GB/s", *roofs, *(f"{name} takes" for name in present)]
    rows = [head, ["---"] * len(head)]
    for case in cases:
        times = case["times"]
        ours = times["gpuadapt"]["median"]
        rate = f"{case['bytes'] / ours / 1e9:.0f}"
        over = {name: ratio(times, name, "gpuadapt") for name in times}
        shares = [f"{100 * over[n]:.0f} %" if n in over else "" for n in roofs]
        others = [f"{over[name]:.2f}x" if name in over else "" for name in present]
        rows.append([case["name"], duration(ours), rate, *shares, *others])
    return [f"| {' | '.join(row)} |" for row in rows]


def times_table(cases: list[dict[str, Any]]) -> list[str]:
    """A row for each case, every candidate's own time: where gpuadapt does not take part."""
    present = list(dict.fromkeys(name for case in cases for name in case["times"]))
    rows = [["", *present], ["---"] * (1 + len(present))]
    for case in cases:
        times = [case["times"].get(name) for name in present]
        rows.append([case["name"], *(duration(time["median"]) if time else "" for time in times)])
    return [f"| {' | '.join(row)} |" for row in rows]


def figures_table(cases: list[dict[str, Any]], threads: int) -> list[str]:
    """A row for each figure of cases that have some: its value, its goal, whether it was met."""
    rows = [["", "measured", "goal: at most", ""], ["---"] * 4]
    for figure in (figure for case in cases for figure in case.get("figures", ())):
        verdict = goals.judged(figure, threads)
        goal = _value(figure | {"value": goals.MOST[figure["name"]]}) if verdict else ""
        rows.append([figure["name"], _value(figure), goal, verdict])
    return [f"| {' | '.join(row)} |" for row in rows] if len(rows) > 2 else []


def losses_table(cases: list[dict[str, Any]]) -> list[str]:
    """A row for each format, with the final loss of each training, and how far above float32's."""
    cases = [case for case in cases if "losses" in case]
    names = list(dict.fromkeys(name for case in cases for name in case["losses"]))
    if not names:
        return []
    rows = [["final loss", *(case["label"] for case in cases)], ["---"] * (1 + len(cases))]
    for name in names:
        row = [name]
        for case in cases:
            loss, base = case["losses"][name], case["losses"]["torch float32"]
            row.append(f"{loss:.4f} ({100 * (loss / base - 1):+.1f} %)")
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def entry(figure: dict[str, Any]) -> str:
    """A line for a figure beside memory traffic, or for each error in its place."""
    failed = [f"- {figure['name']}, {who}: FAILED: {error}" for who, error in _errors(figure)]
    return "\n".join(failed) or f"- {figure['name']}: {_value(figure)}"


def _errors(result: dict[str, Any]) -> Iterable[tuple[str, str]]:
    return result.get("errors", {}).items()


def page(results: dict[str, Any], picture: str | None) -> str:
    """Everything that was measured on one machine."""
    versions = [f"{name} {version}" for name, version in results["peers"].items() if version]
    parts = [f"# {headline(results)}", "Beside it: " + ", ".join(versions) + "."]
    parts += [f"![percent of the limit over size]({picture})"] if picture else []
    verdicts = goals.verdicts(results)
    if verdicts:
        parts += ["## Goals", "\n".join(f"- {line}" for line in verdicts)]
    if results.get("notes"):
        parts += ["## Notes", "\n".join(f"- {note}" for note in results["notes"])]
    threads = results["machine"]["threads"]
    for suite in (*SUITES, *OF_GPUS):
        cases = results.get(suite, [])
        if cases:
            ours = any("gpuadapt" in case["times"] for case in cases)
            every = [name for case in cases for name in case["times"]]
            names = [n for n in dict.fromkeys(every) if n not in ("gpuadapt", *ROOFS)]
            parts += [f"## {suite}", "\n".join(table(cases, names) if ours else times_table(cases))]
            failed = [entry(case) for case in cases if case.get("errors")]
            parts += ["\n".join(failed)] if failed else []
            figures = figures_table(cases, threads)
            parts += ["\n".join(figures)] if figures else []
    for suite in FIGURES:
        if results.get(suite):
            parts += [f"## {suite}", "\n".join(map(entry, results[suite]))]
    return "\n\n".join(parts) + "\n"


def readme(every: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """The README's part: updates of whole arrays, and of rows, on each machine."""
    parts = []
    for name, results in every:
        if not (results.get("dense") or results.get("torch")):
            continue
        link = f"[everything measured there](benchmarks/results/{name}.md)"
        parts += [f"{headline(results)} ({link}):"]
        for suite, names in PRINTED.items():
            cases = results.get(suite, ())
            if any("gpuadapt" in case["times"] for case in cases):
                parts += [IN_TORCH] if suite == "torch" else []
                parts += ["\n".join(table(cases, names))]
    return "\n\n".join([BEGIN, *parts, END])


def in_torch(every: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """The part of docs/torch.md: steps beside torch's, and final losses, on each machine."""
    parts = []
    for name, results in every:
        cases = results.get("torch", [])
        tables = [table(cases, PRINTED["torch"]), losses_table(cases)] if cases else []
        if tables:
            link = f"[everything measured there](../benchmarks/results/{name}.md)"
            parts += [f"{headline(results)} ({link}):"]
        parts += ["\n".join(lines) for lines in tables if lines]
    return "\n\n".join([BEGIN, *parts, END])


def picture(results: dict[str, Any], path: Path) -> bool:
    """Adam, percent of the limit over size, a line for each candidate; False if not drawn."""
    cases = [
        case
        for case in results.get("dense", ())
        if case.get("case") == "adam" and case.get("threads") is None and "limit" in case["times"]
    ]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if len(cases) < 2:
        return False
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(name for case in cases for name in case["times"]):
        points = [
            (case["size"], 100 * ratio(case["times"], "limit", name))
            for case in cases
            if name in case["times"]
        ]
        ours = name == "gpuadapt"
        style = "--" if name in (*ROOFS, "copy") else "-"
        axes.plot(*zip(*points, strict=True), style, marker=".", lw=3 if ours else 1.2, label=name)
    axes.set(
        xscale="log",
        ylim=(0, 130),
        xlabel="elements",
        ylabel="percent of the limit for the same bytes",
        title=f"Adam, float32: {headline(results)}",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=110)
    return True


def _value(entry: dict[str, Any]) -> str:
    value, unit = entry["value"], entry["unit"]
    if unit == "s":
        return duration(value)
    if unit == "B":
        return f"{value / 2**20:.1f} MiB"
    return {"x": f"{value:.2f}x", "%": f"{value:.2f} %"}.get(unit, f"{value:.4f}")


def main() -> None:
    """Write the page and the picture of each machine, and the README's part."""
    every = []
    for path in sorted(RESULTS.glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        image = path.with_suffix(".png")
        if not picture(results, image):
            print(f"{image.name}: not drawn (no matplotlib, or too few sizes)")
        drawn = image.name if image.exists() else None
        path.with_suffix(".md").write_text(page(results, drawn), encoding="utf-8")
        every.append((path.stem, results))
    for file, part in ((ROOT / "README.md", readme), (ROOT / "docs" / "torch.md", in_torch)):
        before, rest = file.read_text(encoding="utf-8").split(BEGIN)
        file.write_text(before + part(every) + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
