"""`python -m benchmarks.table FILE`: the README's table, from a file of results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """A row for each case: our time, and others' times as multiples of it."""
    machine, torch = results["machine"], results["peers"]["torch"]
    where = f"{machine['processor']}, {machine['threads']} threads"
    if results["dense"][0]["backend"] == "cuda":
        where = machine["devices"][0]
    lines = [
        f"{where}, float32, {results['date']}, torch {torch}:",
        "",
        "| | gpuadapt | torch fused takes | torch foreach takes | of the limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for case in results["dense"]:
        times = {name: time["median"] for name, time in case["times"].items()}
        ours = times["gpuadapt"]
        others = [
            f"{times[name] / ours:.2f}x" if name in times else ""
            for name in ("torch fused", "torch foreach")
        ]
        share = f"{100 * times['limit'] / ours:.0f} %"
        lines.append(
            f"| {case['case']}, {case['size']:,} elements | {_time(ours)} | "
            f"{' | '.join(others)} | {share} |"
        )
    lines.append("")
    lines += [
        f"- {name}: {_time(seconds)}" for name, seconds in results.get("overhead", {}).items()
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
