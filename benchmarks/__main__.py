"""`python -m benchmarks [SUITE] [--quick] [--backend cpu|cuda]`."""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpuadapt.machine import describe_machine

from . import exact, goals, overhead, peers, report, rows, suites, update


def main() -> None:
    """Run suites, print each result as it comes, write all of them to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = (*report.SUITES, "overhead", "all")
    parser.add_argument("suite", nargs="?", choices=names, default="all")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--backend", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results here, and a picture beside"
    )
    given = parser.parse_args()
    began = time.perf_counter()
    # Peers' own: what torch says of sparse tensors, what JAX says of missing GPUs.
    warnings.simplefilter("ignore")
    results = setting()
    for name, version in results["peers"].items():
        print(f"{name} {version}" if version else f"{name}: not installed, left out")
    chosen = (*report.SUITES, "overhead") if given.suite == "all" else (given.suite,)
    for suite in chosen:
        results[suite] = list(_suite(suite, given.backend, given.quick))
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for line in goals.verdicts(results):
        print(line)
    if given.json and "dense" in chosen:
        image = given.json.with_suffix(".png")
        print(f"{given.json}, {image if report.picture(results, image) else 'no picture'}")
    print(f"{time.perf_counter() - began:.0f} s")


def setting() -> dict[str, Any]:
    """What results depend on: date, commit, machine, versions of peers."""
    machine = {k: v for k, v in describe_machine().items() if k != "cache"}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": machine | {"caches": _caches()},
        "peers": peers.versions(),
        "notes": [],
    }


def _suite(suite: str, backend: str, quick: bool) -> Iterator[dict[str, Any]]:
    """The results of a suite, each printed when it is there."""
    if suite == "overhead":
        print("\noverhead", flush=True)
        for entry in overhead.entries(backend, quick):
            print(report.entry(entry), flush=True)
            yield entry
        return
    own = {"rows": rows, "exact": exact}.get(suite)
    run: Callable[..., dict[str, Any]] = own.run if own else update.run
    listed = own.cases(quick) if own else getattr(suites, suite)(backend, quick)
    for number, case in enumerate(listed, 1):
        print(f"\n{suite} {number}/{len(listed)}: {case.name}", flush=True)
        result = run(case, backend, rounds=5 if quick else 25)
        print("\n".join(report.lines(result)), flush=True)
        yield result


def _commit() -> str | None:
    """The commit that was measured, with a mark if files had changed; None outside git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=report.ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _caches() -> list[str]:
    """Level and size of the first core's caches, where Linux says."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (index / part).read_text().strip() for part in ("level", "type", "size")
        )
        found.append(f"L{level} {kind} {size}")
    return found


if __name__ == "__main__":
    main()
