"""Rows of a table: sparse updates beside the machine's limit for the same random rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.benchmark import draws, limits, traffic
from gpuadapt.benchmark.candidates import HYPER, MakeRows, checked
from gpuadapt.benchmark.draws import normal, over_batches, placed
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.benchmark.timing import interleaved
from gpuadapt.kernels import rules

from . import peers
from .training import expected
from .update import THEIRS


class Case(NamedTuple):
    """A table, and the rows that a batch touches."""

    method: str
    rows: int
    width: int
    batch: int
    kind: str = "Zipf-like"
    """One of `draws.KINDS`."""
    drawn: int | None = None
    """Among how many rows, spread over the table; all of them if None. A table of just those
    is timed beside it: what size alone costs."""

    @property
    def name(self) -> str:
        among = "" if self.drawn is None else f" of {self.drawn:,}"
        table = f"{self.rows:,} x {self.width}"
        return f"{self.method}, {table}, {self.batch:,} {self.kind} rows{among}"


def cases(quick: bool) -> list[Case]:
    """The tables of the goals, then batch size, width and duplicates one at a time."""
    if quick:
        return [Case(method, 100_000, 64, 10_000) for method in ("adam", "adagrad")]
    methods, million = ("adam", "adagrad"), 1_000_000
    found = [Case(method, million, 64, 100_000) for method in methods]
    found += [Case(method, 2 * million, 128, 65_536) for method in methods]
    found += [Case("adam", 5 * million, 16, 500_000)]
    found += [Case("adam", million, 64, batch) for batch in (1_000, 10_000)]
    found += [Case("adam", million, width, 100_000) for width in (16, 256)]
    found += [Case("adam", million, 64, 100_000, kind) for kind in ("uniform", "hot")]
    return [*found, Case("adam", 5 * million, 64, 10_000, drawn=50_000)]


def run(case: Case, backend: str, rounds: int) -> dict[str, Any]:
    """As `update.run`; "size" is the number of elements that a batch touches."""
    errors: Errors = {}
    makers, hyper = peers.rows(case.method, backend, errors), HYPER[case.method]
    first = check(case.method, backend, makers, errors)
    random, table = np.random.default_rng(0), normal(backend, 0)
    batches = [draw(case, random) for _ in range(draws.BATCHES)]
    values = [table((case.batch, case.width)) for _ in batches]
    if backend == "cpu":
        values = [placed(rows) for rows in values]
    start = table((case.rows, case.width))
    loaded = list(zip(batches, values, strict=True))
    # What to make of which table, and with which batches.
    given = {name: (makers[name], start, loaded) for name in first}
    if case.drawn is not None:
        apart = case.rows // case.drawn
        close = [(numbers // apart, rows) for numbers, rows in loaded]
        given = {
            "gpuadapt": (makers["gpuadapt"], start, loaded),
            "gpuadapt, small": (makers["gpuadapt"], start[: case.drawn], close),
        }
    steps: dict[str, Any] = {}
    for name, (make, of, by) in given.items():
        with noted(errors, name):
            steps[name] = over_batches(make(of, by, hyper).step)
    rule = getattr(rules, case.method)
    with noted(errors, "limit"):
        limit = limits.rows(backend, (case.rows, case.width), batches, len(rule.states))
        steps["limit"] = over_batches(limit)
    times = interleaved(steps, backend, rounds, errors=errors)
    for name in times.keys() & first.keys():
        times[name]["first"] = first[name]
    touched = round(float(np.mean([np.unique(numbers).size for numbers in batches])))
    return {
        "name": case.name,
        "case": case.method,
        "size": touched * case.width,
        "table": [case.rows, case.width],
        "batch": case.batch,
        "touched": touched,
        "kind": case.kind,
        "backend": backend,
        "bytes": traffic.rows(rule, np.dtype(np.float32), case.width, case.batch, touched),
        "times": times,
    } | ({"errors": errors} if errors else {})


def draw(case: Case, random: np.random.Generator) -> np.ndarray:
    """The row of each gradient row, int64, with duplicates."""
    count = case.drawn or case.rows
    return draws.rows(count, case.batch, case.kind, random) * (case.rows // count)


def check(
    method: str, backend: str, makers: dict[str, MakeRows], errors: Errors | None = None
) -> dict[str, float]:
    """Three steps on a small table, with duplicates; returns the seconds of each first step.

    Raises
    ------
    AssertionError
        A result is too far from what its form of the method gives. ``errors`` is as that of
        `update.check`.
    """
    random, hyper = np.random.default_rng(2), checked(method)
    first: dict[str, float] = {}
    small = Case(method, 500, 32, 400)
    start = random.standard_normal((small.rows, small.width), np.float32)
    batches = [
        (draw(small, random), random.standard_normal((small.batch, small.width), np.float32))
        for _ in range(3)
    ]
    allowed = THEIRS * np.finfo(np.float32).eps
    for name, make in makers.items():
        with noted(errors, name):
            began = time.perf_counter()
            trainer = make(start, batches, hyper)
            trainer.step(0)
            seconds = time.perf_counter() - began
            for k in (1, 2):
                trainer.step(k)
            exact = lazily(method, start, batches, hyper, trainer.form, trainer.rowwise)
            error = np.abs(trainer.result() - exact).max()
            assert error <= allowed, f"{name}, {method}: off by {error:.2g}"
            first[name] = seconds
    return first


def lazily(
    method: str,
    start: np.ndarray,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    hyper: dict[str, float],
    form: dict[str, Any],
    rowwise: bool,
) -> np.ndarray:
    """Duplicates summed, touched rows updated, the others left alone; float64.

    ``rowwise`` is with the mean of squares over a row in place of every square.
    """
    table = start.astype(np.float64)
    states: dict[str, np.ndarray] = {}
    form = form | ({"square": _mean_square} if rowwise else {})
    for t, (numbers, values) in enumerate(batches, 1):
        touched, where = np.unique(numbers, return_inverse=True)
        gradient = np.zeros((touched.size, start.shape[1]))
        np.add.at(gradient, where, values.astype(np.float64))
        here = {name: state[touched] for name, state in states.items()}
        table[touched] = expected(method, table[touched], [gradient], hyper, form, here, t)
        for name, state in here.items():
            states.setdefault(name, np.zeros((len(table), state.shape[1])))[touched] = state
    return table


def _mean_square(gradient: np.ndarray) -> np.ndarray:
    mean: np.ndarray = np.mean(gradient**2, axis=1, keepdims=True)
    return mean
