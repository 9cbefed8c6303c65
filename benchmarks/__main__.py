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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gpuadapt.arrays import check_device, namespace
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.errors import BackendError, Error
from gpuadapt.kernels.cuda import tuning
from gpuadapt.machine import describe_machine
from gpuadapt.output_files import prepared_file

from . import (
    exact,
    failures,
    goals,
    host_time,
    launches,
    overhead,
    peers,
    report,
    roofs,
    rows,
    suites,
    torch_loop,
    update,
)
from .saved import save

ENTRIES: dict[str, Callable[[str, bool], Iterator[dict[str, Any]]]] = {
    "overhead": overhead.entries,
    "host": host_time.entries,
    "launches": launches.entries,
}
"""The suites of `report.FIGURES`."""


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
        results[suite] = finished(results.get(suite, ())) if given.missing else []
        for result in _suite(suite, given.backend, given.quick, results[suite]):
            # A figure that was measured before is replaced.
            before = [one for one in results[suite] if one["name"] != result["name"]]
            results[suite] = [*before, result]
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
    names = (*report.SUITES, *ENTRIES, *report.OF_GPUS, "all")
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
    parser.add_argument(
        "--missing",
        action="store_true",
        help="as --add, and leave out the cases of the suite that FILE has, but those that failed",
    )
    given = parser.parse_args()
    given.add = given.add or given.missing
    if given.add and not given.json:
        parser.error("--add needs --json FILE, the file to add to")
    try:
        if given.json:  # before hours of work
            prepared_file(given.json, "--json")
    except Error as error:
        parser.error(str(error))
    return given, parser.error


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


def finished(before: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The earlier results of a suite, without those in which something but a peer failed."""
    return [result for result in before if not failures.ours({"suite": [result]})]


def setting() -> dict[str, Any]:
    """What results depend on: date, commit, machine, versions of peers."""
    machine = {k: v for k, v in describe_machine().items() if k != "cache"}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": machine | {"caches": _caches()} | _tuned(),
        "peers": peers.versions(),
        "notes": [
            f"{name} is installed and cannot be imported: {error}"
            for name, error in peers.installed.broken.items()
        ],
    }


def _suite(
    suite: str, backend: str, quick: bool, before: Sequence[dict[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """The results of a suite, each printed when it is there; without cases that have one before."""
    if suite in ENTRIES:
        print(f"\n{suite}", flush=True)
        for entry in ENTRIES[suite](backend, quick):
            print(report.entry(entry), flush=True)
            yield entry
        return
    own: Any = {"rows": rows, "exact": exact, "torch": torch_loop, "roofs": roofs}.get(suite)
    run: Callable[..., dict[str, Any]] = own.run if own else update.run
    cases = getattr(suites, suite, None)
    listed = cases(backend, quick) if cases else own.cases(quick)
    names = {result["name"] for result in before}
    for number, case in enumerate(listed, 1):
        if case.name in names:
            print(f"{suite} {number}/{len(listed)}: {case.name}: in the file already", flush=True)
            continue
        print(f"\n{suite} {number}/{len(listed)}: {case.name}", flush=True)
        result = _attempt(run, case, backend, rounds=5 if quick else 25)
        print("\n".join(report.lines(result)), flush=True)
        yield result


def _attempt(
    run: Callable[..., dict[str, Any]], case: Any, backend: str, rounds: int
) -> dict[str, Any]:
    """The result of a case; where there is none, an entry with what was raised instead."""
    errors: Errors = {}
    with noted(errors, failures.WHOLE):
        release(backend)
        return run(case, backend, rounds=rounds)
    return {"name": case.name, "backend": backend, "times": {}, "errors": errors}


def release(backend: str) -> None:
    """Give back the memory of earlier cases: CuPy and torch would each keep theirs."""
    gc.collect()
    if backend == "cuda":
        namespace(backend).get_default_memory_pool().free_all_blocks()
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


def _tuned() -> dict[str, str]:
    """The file of launch parameters that kernels on a GPU have, if there is one."""
    file = tuning.path()
    return {"tuning": str(file)} if "cuda" in sys.argv and file.exists() else {}


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
