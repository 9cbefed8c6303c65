"""Exact rows: a step, a read and a step, beside the lazy step and the dense one that it equals."""

from __future__ import annotations

import random as shuffling
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import gpuadapt as ga
from gpuadapt.arrays import namespace
from gpuadapt.benchmark import draws, limits, traffic
from gpuadapt.benchmark.draws import normal, over_batches
from gpuadapt.benchmark.timing import measured, spread
from gpuadapt.kernels import rules

from . import rows

WIDTH, BATCH = 64, 100_000
FITTING = 5_000_000
"""Rows of the largest table beside which there is memory for the limit's own."""

LR, SCALE = 1e-3, 1e-2
"""Learning rate, and the size of gradients."""


class Case(NamedTuple):
    """A table, and how many steps were taken before any is timed."""

    rows: int
    before: int
    batch: int = BATCH
    drawn: int | None = None
    """As of `rows.Case`: a table of just these rows takes the place of the other candidates."""

    @property
    def name(self) -> str:
        like = rows.Case("adam", self.rows, WIDTH, self.batch, drawn=self.drawn)
        return f"exact {like.name}"


def cases(quick: bool) -> list[Case]:
    """Tables of the goals, in the state that they are in after so many steps."""
    if quick:
        return [Case(100_000, 50, 10_000)]
    return [
        Case(1_000_000, 600),
        Case(10_000_000, 2_500),
        Case(5_000_000, 600, 10_000, drawn=50_000),
    ]


def run(case: Case, backend: str, rounds: int) -> dict[str, Any]:
    """As `rows.run`. Every step has rows of its own: how long ago they occurred is what counts."""
    check(backend)
    xp, random = namespace(backend), np.random.default_rng(0)
    kind = rows.Case("adam", case.rows, WIDTH, case.batch, drawn=case.drawn)
    values = SCALE * normal(backend, 0)((case.batch, WIDTH))
    apart = case.rows // (case.drawn or case.rows)

    def draw() -> Any:
        return xp.asarray(rows.draw(kind, random))

    exact = optimizer(backend, case.rows, sparse="exact")
    other = optimizer(backend, case.drawn or case.rows, sparse="exact" if apart > 1 else "lazy")
    for _ in range(case.before):
        batch = draw()
        exact.step({"table": ga.RowGrad(batch, values)})
        if apart > 1:
            other.step({"table": ga.RowGrad(batch // apart, values)})

    def read_and_step(batch: Any) -> None:
        exact.read("table", batch)
        exact.step({"table": ga.RowGrad(batch, values)})

    steps: dict[str, Callable[[Any], None]] = {
        "gpuadapt": lambda batch: exact.step({"table": ga.RowGrad(batch, values)}),
        "gpuadapt read and step": read_and_step,
    }
    if apart > 1:
        steps["gpuadapt, small"] = lambda batch: other.step(
            {"table": ga.RowGrad(batch // apart, values)}
        )
    else:
        gradient = xp.empty((case.rows, WIDTH), np.float32)
        gradient.fill(SCALE)
        steps["gpuadapt lazy"] = lambda batch: other.step({"table": ga.RowGrad(batch, values)})
        steps["gpuadapt dense"] = lambda batch: other.step({"table": gradient})
    if case.rows <= FITTING:
        few = [rows.draw(kind, random) for _ in range(draws.BATCHES)]
        limit = limits.rows(backend, (case.rows, WIDTH), few, len(rules.adam.states))
        step = over_batches(limit)
        steps["limit"] = lambda _: step()
    turns: dict[str, list[float]] = {name: [] for name in steps}
    order, shuffle, touched = list(steps), shuffling.Random(0).shuffle, []
    for number in range(rounds + 1):
        shuffle(order)
        for name in order:
            # Caches and threads are still the last candidate's.
            steps[name](draw())
            batch = draw()
            seconds = measured(backend, lambda: steps[name](batch))  # noqa: B023
            if number:
                turns[name].append(seconds)
                touched.append(int(np.unique(rows_of(batch)).size))
    count = round(float(np.mean(touched)))
    return {
        "name": case.name,
        "case": "adam",
        "size": count * WIDTH,
        "table": [case.rows, WIDTH],
        "batch": case.batch,
        "touched": count,
        "steps before": case.before,
        "backend": backend,
        "bytes": traffic.rows(rules.adam, np.dtype(np.float32), WIDTH, case.batch, count),
        "times": {name: spread(of) for name, of in turns.items()},
    }


def rows_of(batch: Any) -> np.ndarray:
    """Numbers of rows as a NumPy array."""
    found: np.ndarray = batch if isinstance(batch, np.ndarray) else batch.get()
    return found


def optimizer(backend: str, count: int, **settings: Any) -> ga.Optimizer:
    """Adam of a table that is drawn where it is: there is no memory for another of its size."""
    table, draw = namespace(backend).empty((count, WIDTH), np.float32), normal(backend, 1)
    for start in range(0, count, BATCH):
        part = table[start : start + BATCH]
        part[...] = 0.1 * draw(part.shape)
    return ga.Adam({"table": table}, lr=LR, **settings)


def check(backend: str) -> None:
    """Thirty steps on a small table.

    Raises
    ------
    AssertionError
        Exact rows are not those of dense steps.
    """
    xp, random = namespace(backend), np.random.default_rng(1)
    start = random.standard_normal((500, WIDTH), np.float32)
    tables = {how: xp.array(start) for how in ("bits", "close", "dense")}
    tables["float64"] = xp.array(start.astype(np.float64))
    optimizers = {}
    for how, table in tables.items():
        exact = {"sparse": "exact", "exactness": how} if how in ("bits", "close") else {}
        optimizers[how] = ga.Adam({"table": table}, lr=LR, **exact)
    for _ in range(30):
        numbers = np.unique(random.integers(0, 500, 40))
        values = random.standard_normal((numbers.size, WIDTH), np.float32)
        gradient = np.zeros_like(start)
        gradient[numbers] = values
        by_rows = ga.RowGrad(xp.asarray(numbers), xp.asarray(values))
        for how, one in optimizers.items():
            whole = xp.asarray(gradient.astype(tables[how].dtype))
            one.step({"table": by_rows if how in ("bits", "close") else whole})
    for how in ("bits", "close"):
        optimizers[how].flush()
    bits, close, dense, wide = map(rows_of, tables.values())
    assert np.array_equal(bits, dense), "exact rows, bit for bit: not those of dense steps"
    units = np.spacing(np.maximum(np.abs(start), np.abs(dense)) + 30 * LR)
    ours, theirs = (np.abs(table - wide) / units for table in (close, dense))
    assert ours.max() <= theirs.max() + 4, "exact rows: too far from float64"
