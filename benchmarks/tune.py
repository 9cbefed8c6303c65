"""`python -m benchmarks.tune`: the launch parameters that are fastest on the GPU at hand.

Each family of kernels (`gpuadapt.kernels.cuda.tuning`) is timed with one parameter after the other
changed, in turns with what is best so far. What is faster than the default by more than `GAIN` goes
to the file that gpuadapt reads. It is written after each family, and a second run goes on with the
families that are missing.

With ``--dry`` every candidate is compiled by NVRTC, and nothing is timed or written: that needs no
GPU.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gpuadapt as ga
from gpuadapt.arrays import check_device, namespace, numpy_dtype
from gpuadapt.benchmark import draws
from gpuadapt.benchmark.draws import in_type, normal
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.benchmark.timing import interleaved, ratio
from gpuadapt.errors import BackendError
from gpuadapt.kernels.cuda import compile, multi_tensor, nvrtc, tuning
from gpuadapt.kernels.cuda import rows as by_row
from gpuadapt.kernels.formats import Formats
from gpuadapt.optimizer import internals

from . import rows
from .saved import save

GAIN = 1.01
"""How many times as fast as the default parameters have to be to take their place."""

ROUNDS, LAST_ROUNDS = 5, 15
"""Rounds in which candidates are compared; and the best one with the default, at the end."""

SIZE, TABLE = 2**26, rows.Case("adam", 1_000_000, 64, 100_000)
"""Elements of an array: far more than a cache holds; a table, and a batch of its rows."""

DEFAULT = "default"


class Subject(NamedTuple):
    """What a family is timed with: Adam, on numbers kept in some way."""

    element: str
    settings: dict[str, Any]
    parameters: tuple[str, ...] = ("chunk", "threads", "groups", "access", "streaming")
    """Launch parameters that the family's kernels have."""
    by_rows: bool = False


STOCHASTIC = {"rounding": "stochastic"}
SUBJECTS = (
    Subject("float32", {}),
    Subject("bfloat16", STOCHASTIC | {"state_dtype": "bfloat16"}),
    Subject("float32", {"state_dtype": "8bit"}, ("chunk", "threads")),
    Subject("float32", {}, ("threads",), by_rows=True),
    Subject("bfloat16", STOCHASTIC),
    Subject("bfloat16", {}),
    Subject("float64", {}),
)
"""One of each family, the most used first."""


def main() -> int:
    """Tune all families, or those named; returns 1 if one of them failed."""
    given = _arguments()
    families = {name_of(subject): subject for subject in SUBJECTS}
    unknown = set(given.family) - set(families)
    if unknown:
        print(f"no family is called {min(unknown)!r}: {'; '.join(families)}", file=sys.stderr)
        return 2
    chosen = {name: families[name] for name in given.family or families}
    if given.dry:
        return dry(chosen)
    try:
        check_device()
    except BackendError as error:
        print(f"{error}\n--dry compiles the candidates without a GPU", file=sys.stderr)
        return 2
    return tune(chosen, given.out or tuning.path(), 60 * given.minutes, given.again)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--backend", choices=("cuda",), default="cuda")
    parser.add_argument("--minutes", type=float, default=5, help="for all families together")
    parser.add_argument(
        "--family", action="append", default=[], help="one of them; may be repeated"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write here, not where gpuadapt reads"
    )
    parser.add_argument("--again", action="store_true", help="also families that FILE has already")
    parser.add_argument("--dry", action="store_true", help="compile all candidates, time none")
    return parser.parse_args()


def formats_of(subject: Subject) -> Formats:
    """How the subject's arrays are kept."""
    parameter = np.zeros((1, 64), numpy_dtype(subject.element, "cpu"))
    optimizer = ga.Adam(parameter, **subject.settings)
    return internals(optimizer).parameters["0"].formats_for(subject.element)


def name_of(subject: Subject) -> str:
    """The family of a subject."""
    return tuning.ROWS if subject.by_rows else tuning.family(formats_of(subject))


def changes(family: str, best: tuning.Launch, parameter: str) -> Iterator[tuning.Launch]:
    """The candidates that differ from the best in one parameter."""
    for value in tuning.allowed(family, parameter):
        if value != getattr(best, parameter):
            yield best._replace(**{parameter: value})


def label(launch: tuning.Launch, family: str) -> str:
    """What of a family's default is changed."""
    default = tuning.default(family)
    changed = [f"{k} {v}" for k, v in launch._asdict().items() if v != getattr(default, k)]
    return ", ".join(changed) or DEFAULT


# Without a GPU


def dry(families: Mapping[str, Subject]) -> int:
    """Compile every candidate that differs from the default in one parameter."""
    known = nvrtc.architectures()
    if not known:
        print("NVRTC is not installed here: nothing was compiled", file=sys.stderr)
        return 2
    architecture, failed = max(a for a in known if a <= 90), 0
    for family, subject in families.items():
        print(f"\n{family}: {_described(subject)}", flush=True)
        for launch in _every(family, subject):
            try:
                options = (*compile.OPTIONS, *tuning.options(launch))
                made = nvrtc.compile(_text(subject, launch), architecture, options)
                verdict = f"compiles for sm_{architecture}: {made.registers} registers"
                verdict += f", {made.spilled} bytes spilled" * bool(made.spilled)
            except BackendError as error:
                failed, verdict = failed + 1, f"DOES NOT COMPILE: {error}"
            print(f"  would time {label(launch, family)}: {verdict}", flush=True)
    print("\nnothing was timed, and no file written")
    return int(failed > 0)


def _every(family: str, subject: Subject) -> list[tuning.Launch]:
    default = tuning.default(family)
    return [
        default,
        *(one for name in subject.parameters for one in changes(family, default, name)),
    ]


def _text(subject: Subject, launch: tuning.Launch) -> str:
    formats = formats_of(subject)
    if subject.by_rows:
        return by_row.source(ga.rules.adam, formats)
    return multi_tensor.source(ga.rules.adam, formats, launch)


def _described(subject: Subject) -> str:
    kept = ", ".join(f"{key} {value}" for key, value in subject.settings.items())
    what = TABLE.name if subject.by_rows else f"Adam, {SIZE:,} elements"
    return f"{what}, {subject.element}{f', {kept}' if kept else ''}"


# On a GPU


def tune(families: Mapping[str, Subject], out: Path, seconds: float, again: bool) -> int:
    """Tune families in an equal share of the time each; what one leaves over, the next ones have.

    Parameters
    ----------
    families : mapping of name to Subject
    out : Path
        The file, which is written after each family.
    seconds : float
        For all of them.
    again : bool
        Also families that the file has.
    """
    file, kind = opened(out), tuning.kind()
    print(f"{kind}: to {out}", flush=True)
    end, errors = time.monotonic() + seconds, Errors()
    done = file["measured"].get(kind, {})
    left = [name for name in families if again or name not in done]
    for name in families:
        if name not in left:
            print(f"\n{name}: in the file already: {done[name]['parameters'] or DEFAULT}")
    for number, name in enumerate(left):
        share = (end - time.monotonic()) / (len(left) - number)
        if share <= 0:
            print(f"\n{name}: no time is left; a second run goes on here", flush=True)
            continue
        print(f"\n{name}: {_described(families[name])}", flush=True)
        with noted(errors, name):
            found = tuned(name, families[name], time.monotonic() + share)
            chosen = found["parameters"]
            file["devices"].setdefault(kind, {})[name] = chosen
            file["measured"].setdefault(kind, {})[name] = found
            save(file, out)
            print(f"  chosen: {', '.join(f'{k} {v}' for k, v in chosen.items()) or DEFAULT}")
    for name, error in errors.items():
        print(f"FAILED: {name}: {error}")
    return int(bool(errors))


def tuned(family: str, subject: Subject, end: float) -> dict[str, Any]:
    """The parameters of a family that differ from its default, and what was measured.

    Parameters
    ----------
    family : str
    subject : Subject
    end : float
        When to stop, by `time.monotonic`; what is being timed then is finished.
    """
    best = default = tuning.default(family)
    work = _work(subject)
    tried: dict[str, float] = {}
    for parameter in subject.parameters:
        if time.monotonic() > end:
            print(f"  its time is up: {parameter} was not tried", flush=True)
            continue
        candidates = [best, *changes(family, best, parameter)]
        times = _timed(work, family, candidates, ROUNDS)
        now = label(best, family)
        if now not in times:
            raise RuntimeError(f"{now} could not be timed")
        for launch in candidates:
            name = label(launch, family)
            if name in times:
                tried[name] = ratio(times, now, name)
                print(f"  {name}: {1e3 * times[name]['median']:.3f} ms, "
                      f"{tried[name]:.3f}x as fast as {now}", flush=True)  # fmt: skip
        best = max(candidates, key=lambda one: tried.get(label(one, family), 0.0))
    gain = 1.0
    if best != default:
        times = _timed(work, family, [default, best], LAST_ROUNDS)
        if len(times) == 2:
            gain = ratio(times, DEFAULT, label(best, family))
            print(f"  {label(best, family)}: {gain:.3f}x as fast as the default", flush=True)
    changed = {k: v for k, v in best._asdict().items() if v != getattr(default, k)}
    return {
        "parameters": changed if gain >= GAIN else {},
        "gain": gain if gain >= GAIN else 1.0,
        "tried": tried,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "gpuadapt": ga.__version__,
    }


Work = Callable[[], Callable[[], Any]]
"""Makes an optimizer with the parameters in force, and returns a step of it."""


def _work(subject: Subject) -> Work:
    """Arrays that all candidates have in common, and what makes an optimizer of them."""
    xp, draw = namespace("cuda"), normal("cuda", 0)
    if subject.by_rows:
        table = draw((TABLE.rows, TABLE.width))
        random, values = np.random.default_rng(0), draw((TABLE.batch, TABLE.width))
        batches = [
            ga.RowGrad(xp.asarray(rows.draw(TABLE, random)), values) for _ in range(draws.BATCHES)
        ]
        return lambda: _stepper(ga.Adam([table]), batches)
    parameter, gradient = (in_type(draw(SIZE), subject.element) for _ in range(2))
    return lambda: _stepper(ga.Adam([parameter], **subject.settings), [gradient])


def _stepper(optimizer: ga.Optimizer, gradients: Sequence[Any]) -> Callable[[], Any]:
    """A step of an optimizer whose kernels are compiled; it takes turns over the gradients."""
    optimizer.step([gradients[0]])
    turns = itertools.cycle(gradients)
    return lambda: optimizer.step([next(turns)])


def _timed(
    work: Work, family: str, candidates: Sequence[tuning.Launch], rounds: int
) -> dict[str, Any]:
    """The times of candidates by their labels; without those that fail, which are printed."""
    steps: dict[str, Callable[[], Any]] = {}
    errors = Errors()
    for launch in candidates:
        name = label(launch, family)
        with noted(errors, name), in_force(family, launch):
            steps[name] = work()
    times = interleaved(steps, "cuda", rounds, errors=errors)
    for name, error in errors.items():
        print(f"  {name}: FAILED: {error}", flush=True)
    return times


@contextmanager
def in_force(family: str, launch: tuning.Launch) -> Iterator[None]:
    """Optimizers that take their first step here have these parameters, by a file of their own."""
    before = os.environ.get("GPUADAPT_TUNING")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuning.json"
        devices = {tuning.kind(): {family: launch._asdict()}}
        path.write_text(json.dumps({"version": tuning.VERSION, "devices": devices}))
        os.environ["GPUADAPT_TUNING"] = str(path)
        try:
            yield
        finally:
            if before is None:
                del os.environ["GPUADAPT_TUNING"]
            else:
                os.environ["GPUADAPT_TUNING"] = before


# The file


def opened(path: Path) -> dict[str, Any]:
    """The content of the file, to be added to; a new one if there is none.

    One that gpuadapt would not read gets another name.
    """
    new: dict[str, Any] = {"version": tuning.VERSION, "devices": {}, "measured": {}}
    try:
        content = path.read_text(encoding="utf-8")
        tuning.parsed(content)
        return new | json.loads(content)
    except FileNotFoundError:
        return new
    except ValueError as error:
        aside = path.with_name(f"{path.name}.old")
        os.replace(path, aside)
        print(f"{path} is not used: {error}. It is {aside} now")
        return new


if __name__ == "__main__":
    sys.exit(main())
