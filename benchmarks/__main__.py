"""`python -m benchmarks [dense|overhead|all] [--quick] [--backend cpu|cuda] [--json FILE]`."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

from gpuadapt.machine import describe_machine

from . import dense, overhead, peers


def main() -> None:
    """Run suites, print each result as it comes, write all of them to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", nargs="?", choices=("dense", "overhead", "all"), default="all")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--backend", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    given = parser.parse_args()
    machine = {k: v for k, v in describe_machine().items() if k != "cache"}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    results: dict[str, Any] = {"date": date, "machine": machine, "peers": peers.versions()}
    if given.suite in ("overhead", "all"):
        results["overhead"] = overhead.measure(given.quick)
        for name, seconds in results["overhead"].items():
            print(f"{name:<28}{seconds * 1e3:10.0f} ms", flush=True)
    if given.suite in ("dense", "all"):
        results["dense"] = []
        for result in dense.cases(given.backend, given.quick):
            results["dense"].append(result)
            show(result)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def show(result: dict[str, Any]) -> None:
    """One case: time, bandwidth, and how our speed compares with each candidate's."""
    ours = result["times"]["gpuadapt"]["median"]
    print(f"{result['case']}, {result['size']:,} elements")
    for name, time in result["times"].items():
        rate = result["bytes"] / time["median"] / 1e9
        print(
            f"  {name:<16}{time['median'] * 1e6:12.1f} us "
            f"[{time['low'] * 1e6:.1f} .. {time['high'] * 1e6:.1f}] {rate:8.1f} GB/s "
            f"{time['median'] / ours:6.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
