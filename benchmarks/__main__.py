"""`python -m benchmarks [SUITE] [--quick] [--backend cpu|cuda]`."""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from gpuadapt.arrays import check_device
from gpuadapt.errors import BackendError
from gpuadapt.machine import describe_machine

from . import (
    exact,
    failures,
    goals,
    overhead,
    peers,
    report,
    rows,
    suites,
    torch_loop,
    training,
    update,
)


def main() -> int:
    """Run suites, print each result as it comes, and write all that there are to a file.

    Returns
    -------
    int
        1 if something of gpuadapt's own failed, else 0. A peer may fail.
    """
    given, refuse = _arguments()
    began = time.perf_counter()
    # Peers' own: what torch says of sparse tensors, what JAX says of missing GPUs.
    warnings.simplefilter("ignore")
    try:
        if given.backend == "cuda":
            check_device()
    except BackendError as error:
        refuse(f"--backend cuda: {error}")
    results = setting()
    for name, version in results["peers"].items():
        print(f"{name} {version}" if version else f"{name}: not installed, left out")
    for note in results["notes"]:
        print(note)
    if given.add:
        results = earlier(given.json, results)
    chosen = (*report.SUITES, "overhead") if given.suite == "all" else (given.suite,)
    if given.suite == "all" and given.backend == "cuda":
        chosen = tuple(suite for suite in chosen if suite != "torch")  # it is for the CPU
    for suite in chosen:
        results[suite] = []
        for result in _suite(suite, given.backend, given.quick):
            results[suite].append(result)
            if given.json:
                save(results, given.json)
    for line in goals.verdicts(results):
        print(line)
    if given.json and "dense" in chosen:
        image = given.json.with_suffix(".png")
        print(f"{given.json}, {image if report.picture(results, image) else 'no picture'}")
    print(f"{time.perf_counter() - began:.0f} s")
    failed = failures.ours({suite: results[suite] for suite in chosen})
    for line in failed:
        print(f"FAILED: {line}")
    return 1 if failed else 0


def _arguments() -> tuple[argparse.Namespace, Callable[[str], NoReturn]]:
    """What was asked for, and how to refuse it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = (*report.SUITES, "overhead", "all")
    parser.add_argument("suite", nargs="?", choices=names, default="all")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--backend", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the results here after each case, and a picture beside at the end",
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep the other suites that FILE has, if they are of this commit and machine; "
        "results of another are kept under another name",
    )
    given = parser.parse_args()
    if given.add and not given.json:
        parser.error("--add needs --json FILE, the file to add to")
    return given, parser.error


def save(results: dict[str, Any], file: Path) -> None:
    """Write the results so far, in one go: whoever reads the file finds it whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(new, file)


def earlier(file: Path, results: dict[str, Any]) -> dict[str, Any]:
    """The results that a file has already, if it is there, for others to be added.

    If they are of another commit, machine or version of something, the file gets another name and
    these are the first of a new one: a run on a machine that is there for minutes goes on.
    """
    if not file.exists():
        return results
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    was, now = ({"commit": of["commit"]} | of["machine"] | of["peers"] for of in (before, results))
    for what in {**was, **now}:
        if was.get(what) != now.get(what):
            names = (file.with_stem(f"{file.stem}-{k}") for k in itertools.count(1))
            aside = next(name for name in names if not name.exists())
            os.replace(file, aside)
            print(
                f"{file} had results with {what} {was.get(what)}, and here it is {now.get(what)}: "
                f"they are in {aside} now"
            )
            return results
    return before


def setting() -> dict[str, Any]:
    """What results depend on: date, commit, machine, versions of peers."""
    machine = {k: v for k, v in describe_machine().items() if k != "cache"}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": machine | {"caches": _caches()},
        "peers": peers.versions(),
        "notes": [
            f"{name} is installed and cannot be imported: {error}"
            for name, error in peers.installed.broken.items()
        ],
    }


def _suite(suite: str, backend: str, quick: bool) -> Iterator[dict[str, Any]]:
    """The results of a suite, each printed when it is there."""
    if suite == "overhead":
        print("\noverhead", flush=True)
        for entry in overhead.entries(backend, quick):
            print(report.entry(entry), flush=True)
            yield entry
        return
    own: Any = {"rows": rows, "exact": exact, "torch": torch_loop}.get(suite)
    run: Callable[..., dict[str, Any]] = own.run if own else update.run
    listed = own.cases(quick) if own else getattr(suites, suite)(backend, quick)
    for number, case in enumerate(listed, 1):
        print(f"\n{suite} {number}/{len(listed)}: {case.name}", flush=True)
        result = _attempt(run, case, backend, rounds=5 if quick else 25)
        print("\n".join(report.lines(result)), flush=True)
        yield result


def _attempt(
    run: Callable[..., dict[str, Any]], case: Any, backend: str, rounds: int
) -> dict[str, Any]:
    """The result of a case; where there is none, an entry with what was raised instead."""
    errors: failures.Errors = {}
    with failures.noted(errors, failures.WHOLE):
        release(backend)
        return run(case, backend, rounds=rounds)
    return {"name": case.name, "backend": backend, "times": {}, "errors": errors}


def release(backend: str) -> None:
    """Give back the memory of earlier cases: CuPy and torch would each keep theirs."""
    gc.collect()
    if backend == "cuda":
        training.library(backend).get_default_memory_pool().free_all_blocks()
        torch = peers.torch.library()
        if torch is not None:
            torch.cuda.empty_cache()


def _commit() -> str | None:
    """The commit that was measured, with a mark if files had changed.

    Where there is no repository it is what ``BENCHMARKS_COMMIT`` says, or None.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=report.ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("BENCHMARKS_COMMIT") or None
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
    sys.exit(main())
