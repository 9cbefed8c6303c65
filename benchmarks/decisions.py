"""`python -m benchmarks.decisions FOLDER`: what was measured on a GPU, and what follows from it.

Reads what the pieces of gpu.sh have left in FOLDER, also if only a part is there. Each line says
what was measured, what was predicted (`predictions.json`), what the goal is, and what to do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gpuadapt.benchmark.timing import ratio

from . import roofs, rows, suites
from .predict import TABLE
from .saved import load

COPY, SAVED = 0.93, 0.95
"""The share of a copy's rate that float32 has to reach; that from which nothing is left to gain."""

EXPECTED = {"H100": 2.8e12, "H200": 4.0e12}
"""Bytes per second that a copy is expected to move."""

ROWS_LIMIT, ROWS_TORCH, NORM = 0.70, 10.0, 0.93
HOST = {1: 20e-6, 1_000: 150e-6}
"""Seconds of the host for a step of so many arrays."""

PREDICTED = {
    "": "float32",
    "bfloat16 state": "float32, bfloat16 states",
    "float16 state": "float32, float16 states",
    "8-bit state": "float32, 8-bit states",
    "all bfloat16, stochastic": "all bfloat16, stochastic",
    "all bfloat16, split": "bfloat16 split, bfloat16 states",
    "all bfloat16, kahan": "bfloat16 Kahan, bfloat16 states",
    "bfloat16, 8-bit state": "bfloat16 stochastic, 8-bit states",
}
"""The family of the predictions by the case's format; the others were not predicted."""


class Decision(NamedTuple):
    """A question, and what was found."""

    question: str
    measured: str
    goal: str = ""
    predicted: str = ""
    met: bool | None = None
    """None: it has no goal, or was not measured."""
    then: str = ""
    """What to do if it is not met."""


MISSING = "not measured"

Part = Callable[["Found"], Iterator[Decision]]


class Found:
    """What a folder has.

    Attributes
    ----------
    results : dict
        Of ``cuda.json``: cases by suite.
    compiled : dict
        Of ``compiled.json``: registers by kernel.
    stages : dict of str to str
        The last line of each stage in the summary.
    tuning : dict
        Of ``tuning.json``.
    predictions : dict of str to dict
        By family.
    """

    def __init__(self, folder: Path) -> None:
        self.results = load(folder / "cuda.json")
        self.compiled = load(folder / "compiled.json")
        self.tuning = load(folder / "tuning.json")
        families = load(TABLE).get("families", ())
        self.predictions = {family["name"]: family for family in families}
        self.stages: dict[str, str] = {}
        summary = folder / "summary.txt"
        for line in summary.read_text().splitlines() if summary.exists() else ():
            words = line.split()
            if words[1:2] == ["exit"]:
                self.stages[words[0]] = line

    @property
    def device(self) -> str:
        """The GPU's name, or ""."""
        return str(next(iter(self.results.get("machine", {}).get("devices", ())), ""))

    @property
    def kind(self) -> str:
        """Which of the predictions is for it: "H100", "H200" or ""."""
        return next((name for name in EXPECTED if name in self.device), "")

    def case(self, suite: str, name: str) -> dict[str, Any]:
        """A case that was measured, or {}."""
        found = (case for case in self.results.get(suite, ()) if case["name"] == name)
        return next(found, {})

    def figure(self, suite: str, name: str) -> float | None:
        """A figure that was measured."""
        value = self.case(suite, name).get("value")
        return None if value is None else float(value)

    def share(self, family: str) -> float | None:
        """The predicted share of a copy's rate on this GPU."""
        of = self.predictions.get(family, {}).get("predicted", {}).get(self.kind, {})
        return None if "share" not in of else float(of["share"])


def main() -> int:
    """Print the decisions; 1 if a goal was missed."""
    folder = Path(sys.argv[1])
    found = Found(folder)
    print(f"{found.device or 'no GPU was measured'}, commit {found.results.get('commit')}")
    decided = [one for part in PARTS for one in part(found)]
    text = "\n".join(map(line, decided))
    print(text)
    (folder / "decisions.txt").write_text(text + "\n", encoding="utf-8")
    return int(any(one.met is False for one in decided))


def line(one: Decision) -> str:
    """A decision as it is printed."""
    verdict = {True: "met", False: "MISSED", None: ""}[one.met]
    parts = [f"{one.question}: {one.measured}"]
    parts += [f"goal {one.goal}"] if one.goal else []
    parts += [f"predicted {one.predicted}"] if one.predicted else []
    parts += [verdict] if verdict else []
    return "; ".join(parts) + (f"\n    -> {one.then}" if one.then and one.met is False else "")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def stages(found: Found) -> Iterator[Decision]:
    """Whether it computes what the CPU does, before anything that is about time."""
    for name, then in (
        ("smoke", "the first kernel fails or differs: nothing else matters until it does not"),
        ("compile", "a kernel does not compile: its text, for this NVRTC alone"),
        ("tests", "a test fails: kernel, index, bits and operands; bisect by the rule's lines"),
        ("sanitizer", "an access out of bounds, a race or a barrier: the kernel that it names"),
    ):
        line = found.stages.get(name)
        if line is None or line.split()[2] == "4":
            yield Decision(name, MISSING if line is None else "the tool is not installed")
            continue
        words = line.split()
        result = " ".join(words[5:-1])
        if words[2] in ("124", "137"):
            then = "its time was up: `gpu.sh check` goes on where it was stopped"
        yield Decision(name, result, "ok", met=words[2] == "0", then=f"{then} ({words[-1]})")


def compiled(found: Found) -> Iterator[Decision]:
    """Registers and local memory beside the table."""
    known = {name: of for name, of in found.compiled.items() if "registers" in of}
    if not known:
        yield Decision("registers", MISSING)
        return
    differ, local = [], []
    for name, of in known.items():
        predicted = found.predictions.get(name, {}).get(of["architecture"])
        if predicted and predicted["registers"] != of["registers"]:
            differ.append(f"{name} {of['registers']} (predicted {predicted['registers']})")
        if of["local"] and not (predicted or {}).get("spilled"):
            local.append(f"{name} {of['local']} bytes")
    said = f"{len(known)} kernels, {len(differ)} with others than predicted"
    yield Decision("registers", "; ".join([said, *differ]))
    yield Decision(
        "local memory", ", ".join(local) or "none", "none", met=not local,
        then="registers are spilled: fewer elements of an access (`access` 8 of the tuner)",
    )  # fmt: skip


def memory(found: Found) -> Iterator[Decision]:
    """The rate of a copy, which everything else is a share of."""
    for case in found.results.get("roofs", ()):
        if not case["times"]:
            continue
        rates = {name: roofs.rate(case, name) for name in case["times"]}
        said = ", ".join(f"{name} {rate / 1e12:.2f} TB/s" for name, rate in rates.items())
        least = EXPECTED.get(found.kind)
        yield Decision(
            "memory", said, "" if least is None else f"copy {least / 1e12:.1f} TB/s",
            met=None if least is None or "copy" not in rates else rates["copy"] >= least,
            then="the card is slower than others of its name (clocks, power, another process?): "
            "note it, and read the shares below, not the rates",
        )  # fmt: skip
        return
    yield Decision("memory", MISSING)


def methods(found: Found) -> Iterator[Decision]:
    """Float32 beside a copy and beside torch."""
    for case in suites.methods("cuda", False):
        if case.zeros:
            continue
        times = found.case("methods", case.name).get("times", {})
        if not {"gpuadapt", "copy"} <= set(times):
            yield Decision(case.name, MISSING)
            continue
        share = ratio(times, "copy", "gpuadapt")
        yield Decision(
            case.name, f"{_percent(share)} of a copy", f"{_percent(COPY)}",
            _percent(found.share(f"{case.method}, float32")), share >= COPY,
            "warps that wait for loads (ncu: long scoreboard): `gpu.sh tune` tries larger chunks, "
            f"then two groups, then streaming hints; from {_percent(SAVED)} on leave it",
        )  # fmt: skip
        for peer in ("torch fused", "torch foreach"):
            if peer in times:
                over = ratio(times, peer, "gpuadapt")
                yield Decision(
                    f"{case.name}, beside {peer}", f"{over:.2f}x as fast", "1.00x",
                    met=over >= 1, then="the shares of both: a kernel's time or a launch's?",
                )  # fmt: skip
                break


def zeros(found: Found) -> Iterator[Decision]:
    """Gradients of zeros, for which division and root take their slow path."""
    plain, *others = (case for case in suites.methods("cuda", False) if case.method == "adam")
    base = found.case("methods", plain.name).get("times", {})
    for case in others:
        times = found.case("methods", case.name).get("times", {})
        if not ("gpuadapt" in times and "copy" in times and {"gpuadapt", "copy"} <= set(base)):
            yield Decision(case.name, MISSING)
            continue
        # By the copy beside each: they were not measured in the same minute.
        over = ratio(base, "copy", "gpuadapt") / ratio(times, "copy", "gpuadapt")
        yield Decision(
            case.name, f"{over:.2f}x the time of other gradients", "1.05x", met=over <= 1.05,
            then="the slow paths of division and root are called: look for CALL in the hot loop",
        )  # fmt: skip


def formats(found: Found) -> Iterator[Decision]:
    """16 and 8 bits, and float64, beside the prediction."""
    for case in suites.formats("cuda", False):
        if not case.kept and case.dtype == "float32":
            continue
        times = found.case("formats", case.name).get("times", {})
        if not {"gpuadapt", "copy"} <= set(times):
            yield Decision(case.name, MISSING)
            continue
        kept = "float64" if case.dtype == "float64" else PREDICTED.get(case.kept)
        expected = None if kept is None else found.share(f"adam, {kept}")
        share = ratio(times, "copy", "gpuadapt")
        low = expected is not None and share < expected - 0.07
        beside = [
            f"{ratio(times, name, 'gpuadapt'):.2f}x as fast as {name}"
            for name in ("torch fused", "torch bfloat16 fused")
            if name in times
        ]
        yield Decision(
            case.name, ", ".join([f"{_percent(share)} of a copy", *beside]),
            predicted=_percent(expected), met=False if low else None,
            then="slower than predicted: ncu says whether instructions or loads are waited for; if "
            "instructions, `access` 8 and `groups` 2 of the tuner",
        )  # fmt: skip


def norm(found: Found) -> Iterator[Decision]:
    """The norm of a long gradient beside a read of it."""
    seconds = found.figure("launches", "a step with max_norm: gpuadapt_squares")
    case = next(iter(found.results.get("roofs", ())), {"times": {}})
    if seconds is None or "read" not in case["times"]:
        yield Decision("norm", MISSING)
        return
    share = 4 * suites.LARGEST["cuda"] / seconds / roofs.rate(case, "read")
    yield Decision(
        "norm", f"{_percent(share)} of the rate of a read", _percent(NORM),
        _percent(found.share("norm, float32")), share >= NORM,
        "too few loads under way: more of them before the sum",
    )  # fmt: skip


def by_rows(found: Found) -> Iterator[Decision]:
    """Rows beside the limit of random rows, and beside torch; which part takes the time."""
    first = rows.cases(False)[0]
    times = found.case("rows", first.name).get("times", {})
    if {"gpuadapt", "limit"} <= set(times):
        share = ratio(times, "limit", "gpuadapt")
        yield Decision(
            first.name, f"{_percent(share)} of the limit of random rows", _percent(ROWS_LIMIT),
            met=share >= ROWS_LIMIT, then="the parts below say where the time is",
        )  # fmt: skip
    else:
        yield Decision(first.name, MISSING)
    if {"gpuadapt", "torch SparseAdam"} <= set(times):
        over = ratio(times, "torch SparseAdam", "gpuadapt")
        yield Decision(
            f"{first.name}, beside torch SparseAdam", f"{over:.1f}x as fast", f"{ROWS_TORCH:.0f}x",
            met=over >= ROWS_TORCH, then="the host's time of a step, then the parts below",
        )  # fmt: skip
    yield from _parts_of_rows(found)


def _parts_of_rows(found: Found) -> Iterator[Decision]:
    label = "a step by rows: "
    parts = {
        figure["name"].removeprefix(label): figure["value"]
        for figure in found.results.get("launches", ())
        if figure["name"].startswith(label) and "value" in figure
    }
    whole = parts.pop("in all", None)
    if not whole:
        yield Decision("parts of a step by rows", MISSING)
        return
    keys = "gpuadapt_keys"
    after = [name for name in parts if name.startswith("before ") and keys not in name]
    sort = parts[after[0]] if keys in parts and after else 0.0
    named = {
        "check and sort" if after and name == after[0] else name: t for name, t in parts.items()
    }
    said = ", ".join(f"{name} {1e6 * t:.0f} us" for name, t in named.items() if t >= 1e-6)
    yield Decision("parts of a step by rows", f"{1e6 * whole:.0f} us in all: {said}")
    yield Decision(
        "the sort's share", _percent(sort / whole), "at most 50 %", met=sort / whole <= 0.5,
        then="sort keys of fewer bits; and skip the check of rows (`out_of_range`) if it waits",
    )  # fmt: skip


def host(found: Found) -> Iterator[Decision]:
    """The host's time for small arrays, and what a captured step saves."""
    for count in (1, 10, 1_000):
        label = f"host time of a step of {count:,} arrays of one element, "
        value = found.figure("host", f"{label}gpuadapt")
        if value is None:
            yield Decision(label.rstrip(", "), MISSING)
            continue
        others = {
            name: found.figure("host", label + name)
            for name in ("gpuadapt captured", "gpuadapt, a dict of new gradients", "torch fused")
        }
        beside = [f"{name} {1e6 * t:.0f} us" for name, t in others.items() if t is not None]
        most = HOST.get(count)
        yield Decision(
            label.rstrip(", "), ", ".join([f"{1e6 * value:.0f} us", *beside]),
            "" if most is None else f"at most {1e6 * most:.0f} us",
            met=None if most is None else value <= most,
            then="a profile of `Optimizer.step`: launches, uploads, checks of gradients",
        )  # fmt: skip


def tuned(found: Found) -> Iterator[Decision]:
    """What the tuner has chosen."""
    if not found.tuning.get("measured"):
        yield Decision("tuner", MISSING)
    for device, families in found.tuning.get("measured", {}).items():
        for family, of in families.items():
            chosen = ", ".join(f"{k} {v}" for k, v in of["parameters"].items())
            said = f"{chosen}: {of['gain']:.3f}x as fast" if chosen else "the default stays"
            yield Decision(f"tuner, {device}, {family}", said)


PARTS: tuple[Part, ...] = (
    *(stages, compiled, memory, methods, zeros, formats, norm, by_rows, host, tuned),
)


if __name__ == "__main__":
    sys.exit(main())
