"""Runs PyTorch's own tests of optimizers over gpuadapt's classes, and says what came of them.

    python tests/pytorch_suite.py                      # all suites
    python tests/pytorch_suite.py optim --classes Adam,SGD -k state_dict

The tests are those of a PyTorch source tree, whose folder ``test`` is named by the environment
variable GPUADAPT_PYTORCH_TESTS (`fetch_pytorch_tests.sh` gets them). They are run as they are: the
suite "optim" is generated from torch's database of optimizers, whose classes are replaced in
memory; the other suites find ours under the names of ``torch.optim``. Tests that do not pass are
run a second time with torch's own classes: what happens must be the same then.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUITES = {
    "optim": "test_optim.py",
    "lrscheduler": "optim/test_lrscheduler.py",
    "swa": "optim/test_swa_utils.py",
    "zero": "distributed/optim/test_zero_redundancy_optimizer.py",
}
"""By name: a file of PyTorch's folder ``test``."""

CLASSES = (
    "SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "SparseAdam", "Adamax", "NAdam",
    "RAdam",
)  # fmt: skip

ALLOWED = ("differentiable=True", "parameters on the device 'meta'")
"""How reasons begin for which a test may use torch's own step."""

FOLDER = "GPUADAPT_PYTORCH_TESTS"
RENAMED = "GPUADAPT_UNDER_TORCHS_NAMES"
"""Set for processes that a suite starts: they do the same, and append to the file that it names
why steps were torch's own."""

ORDER = ("passed", "skipped", "expected failure", "failed", "error")


class Results(unittest.TestResult):
    """The outcome, duration and steps of each test."""

    def __init__(self, reasons: Path) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Any]] = {}
        self.reasons = reasons
        """The file to which `note_fallbacks` appends."""

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.reasons.write_text("")
        self.found[_name(test)] = {"outcome": "passed", "why": "", "began": time.perf_counter()}

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        found = self.found[_name(test)]
        found["seconds"] = round(time.perf_counter() - found.pop("began"), 3)
        found["fallbacks"] = sorted(set(self.reasons.read_text().splitlines()))

    def _put(self, test: Any, outcome: str, why: str) -> None:
        # A test may fail several times, in its parts; the worst counts.
        found = self.found.setdefault(_name(test), {"outcome": "passed", "seconds": 0.0})
        if ORDER.index(outcome) >= ORDER.index(found["outcome"]):
            found |= {"outcome": outcome, "why": why}

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._put(test, "skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._put(test, "expected failure", "")

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._put(test, "failed", "an unexpected success")

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._put(test, "failed", str(err[1]))

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._put(test, "error", f"{err[0].__name__}: {err[1]}")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._put(test, "failed", f"{subtest}: {err[1]}")


def _name(test: Any) -> str:
    name: str = test.id().rpartition(".")[2]
    return name


def _each(suite: Any) -> Iterator[Any]:
    """The tests of a suite of suites."""
    for one in suite:
        yield from _each(one) if isinstance(one, unittest.TestSuite) else [one]


def note_fallbacks(reasons: Path) -> None:
    """Let each step of this process that is torch's own append to a file why it is."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def note(optimizer: Any, *_: Any) -> None:
        if reason := getattr(optimizer, "fallback", None):
            with reasons.open("a") as file:
                file.write(f"{reason}\n")

    register_optimizer_step_post_hook(note)


def without_kernels() -> None:
    """Let dense updates of float32 and float64 be evaluated by NumPy, which compiles nothing."""
    from updates_by_numpy import Many, Strided, in_place_of

    from gpuadapt import launch

    launch.bind_multi_tensor = in_place_of(Many, launch.bind_multi_tensor)
    launch.bind_strided = in_place_of(Strided, launch.bind_strided)


def under_torchs_names() -> None:
    """Put gpuadapt's classes in the place of those of ``torch.optim``, in this process."""
    import torch

    import gpuadapt.torch

    for name in CLASSES:
        setattr(torch.optim, name, getattr(gpuadapt.torch, name))


def _into_database(classes: list[str], ours: bool) -> None:
    """Leave these optimizers in torch's database, with gpuadapt's classes if they are asked for."""
    from torch.testing._internal import common_optimizers as common

    import gpuadapt.torch

    kept = [info for info in common.optim_db if info.optim_cls.__name__ in classes]
    for info in kept:
        if ours:
            info.optim_cls = getattr(gpuadapt.torch, info.optim_cls.__name__)
    common.optim_db[:] = kept  # in place: the tests import this list


def _loaded(path: Path) -> Any:
    """The module of a file of tests, under the name by which other processes can import it."""
    sys.path.insert(0, str(path.parent))
    arguments, sys.argv = sys.argv, sys.argv[:1]  # torch's tests read them
    try:
        return importlib.import_module(path.stem)
    finally:
        sys.argv = arguments


def run(suite: str, folder: Path, given: Any, reasons: Path) -> dict[str, Any]:
    """Run one suite in this process, which cannot run another one after that.

    Parameters
    ----------
    suite : str
        A name of `SUITES`.
    folder : Path
        PyTorch's folder ``test``.
    given : argparse.Namespace
        Of `main`.
    reasons : Path
        A file for `note_fallbacks`.

    Returns
    -------
    dict
        By name of a test: "outcome", "why", "seconds", "fallbacks".
    """
    os.environ.setdefault("PYTORCH_TESTING_DEVICE_ONLY_FOR", "cpu")
    if given.numpy:
        without_kernels()
    if suite == "optim":
        _into_database(given.classes.split(","), not given.torch)
    elif not given.torch:
        os.environ[RENAMED] = str(reasons)
        under_torchs_names()
    module = _loaded(folder / SUITES[suite])
    loader = unittest.TestLoader()
    if given.k:
        loader.testNamePatterns = [f"*{given.k}*"]
    of_module = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, unittest.TestCase)
        and one.__module__ == module.__name__
    ]
    names = json.loads(given.names) if given.names else None
    without = list(filter(None, given.without.split(",")))
    results = Results(reasons)
    note_fallbacks(reasons)
    warnings.simplefilter("default")
    for test in _each(unittest.TestSuite(map(loader.loadTestsFromTestCase, of_module))):
        name = _name(test)
        if (names is None or name in names) and not any(part in name for part in without):
            test(results)
    return results.found


def in_a_process(suite: str, *arguments: str) -> dict[str, Any]:
    """Run one suite in a process of its own, with one thread; as `run`.

    Raises
    ------
    RuntimeError
        The process has failed outside of the tests.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        command = [sys.executable, __file__, suite, "--json", str(out), *arguments]
        # Torch's threads wait for each other, which takes long where other processes compute.
        environment = {"OMP_NUM_THREADS": "1"} | os.environ
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if not out.exists():
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


class Compared(NamedTuple):
    """What came of a suite, with gpuadapt's classes and with torch's own."""

    suite: str
    found: dict[str, Any]
    """What `run` returned."""
    torch: dict[str, Any]
    """The same with torch's classes, for the tests that did not pass."""

    @property
    def faults(self) -> list[str]:
        """What is worse with gpuadapt's classes."""
        said = []
        for name, one in sorted(self.found.items()):
            there = self.torch.get(name, one)["outcome"]
            if one["outcome"] != there:
                said.append(f"{one['outcome']} (torch: {there}) {name}: {one['why'][:300]}")
            said += [
                f"torch's own step in {name}: {reason}"
                for reason in one["fallbacks"]
                if not reason.startswith(ALLOWED)
            ]
        return said

    @property
    def report(self) -> str:
        """Counts, skips, steps that were torch's own, faults."""
        count = Counter(one["outcome"] for one in self.found.values())
        seconds = sum(one["seconds"] for one in self.found.values())
        total = ", ".join(f"{n} {outcome}" for outcome, n in count.items())
        lines = [f"{self.suite}: {len(self.found)} tests, {total}, in {seconds:.0f} s"]
        same = sum(
            self.found[name]["outcome"] == one["outcome"] for name, one in self.torch.items()
        )
        lines.append(f"  {same} of {len(self.torch)} that did not pass end so with torch's classes")
        skips = Counter(one["why"] for one in self.found.values() if one["outcome"] == "skipped")
        lines += [f"  skipped {n:3d}: {' '.join(why.split())[:80]}" for why, n in skips.items()]
        fell = defaultdict(list)
        for name, one in self.found.items():
            for reason in one["fallbacks"]:
                fell[reason].append(name)
        for reason, names in fell.items():
            kinds = sorted({name.partition("_cpu")[0].rpartition("_")[0] for name in names})
            lines.append(f"  torch's own step, {reason}: {len(names)} tests of {', '.join(kinds)}")
        return "\n".join([*lines, *(f"  FAULT {fault}" for fault in self.faults)])


def compared(suite: str, *arguments: str) -> Compared:
    """Run a suite, and those tests that do not pass also with torch's classes."""
    found = in_a_process(suite, *arguments)
    rest = [name for name, one in found.items() if one["outcome"] != "passed"]
    own = in_a_process(suite, *arguments, "--torch", "--names", json.dumps(rest)) if rest else {}
    return Compared(suite, found, own)


def main() -> int:
    """Run suites and say what came of them; with ``--json`` one suite in this process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--classes", default=",".join(CLASSES), help="for the suite optim")
    parser.add_argument("-k", default="", help="a part of the names of tests")
    parser.add_argument("--without", default="", help="parts of names of tests to leave out")
    parser.add_argument("--numpy", action="store_true", help="see `without_kernels`")
    parser.add_argument("--torch", action="store_true", help="torch's own classes")
    parser.add_argument("--names", help="a JSON list of tests")
    parser.add_argument("--json", help="run one suite in this process, write its results here")
    given = parser.parse_args()
    if FOLDER not in os.environ:
        parser.error(f"set {FOLDER} to the folder `test` of PyTorch's sources")
    if given.json:
        reasons = Path(f"{given.json}.reasons")
        found = run(given.suites[0], Path(os.environ[FOLDER]).resolve(), given, reasons)
        Path(given.json).write_text(json.dumps(found))
        return 0
    arguments = ["--classes", given.classes, "-k", given.k, "--without", given.without]
    arguments += ["--numpy"] * given.numpy + ["--torch"] * given.torch
    worst = 0
    for suite in given.suites or SUITES:
        outcome = compared(suite, *arguments)
        print(outcome.report, flush=True)
        worst |= bool(outcome.faults)
    return worst


if __name__ == "__mp_main__" and RENAMED in os.environ:
    under_torchs_names()
    note_fallbacks(Path(os.environ[RENAMED]))
if __name__ == "__main__":
    sys.exit(main())
