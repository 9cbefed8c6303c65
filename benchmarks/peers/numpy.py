"""Plain expressions, as the papers have them: NumPy on the CPU, CuPy on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gpuadapt.arrays import namespace
from gpuadapt.benchmark.candidates import Given, Hyper, Make, MakeRows, RowTrainer, Trainer
from gpuadapt.benchmark.draws import placed

from ..training import reference

NAME = "numpy"
PACKAGES = ("numpy",)
DTYPES = ("float32", "float64")


def library() -> Any:
    return np


def makers(method: str, backend: str) -> dict[str, Make]:
    return {namespace(backend).__name__: partial(make, method, backend)}


def make(method: str, backend: str, start: Given, hyper: Hyper) -> Trainer:
    xp = namespace(backend)
    update = getattr(reference, method)
    parameters = [xp.array(w) for w in start]
    states: list[dict[str, Any]] = [{} for _ in start]
    gradients: list[Any] = []
    count = 0

    def load(given: Given) -> None:
        gradients[:] = [xp.asarray(g) for g in given]

    def step() -> None:
        nonlocal count
        count += 1
        for k, (gradient, state) in enumerate(zip(gradients, states, strict=True)):
            parameters[k] = update(parameters[k], gradient, state, count, **hyper)

    return Trainer(load, step, lambda: [w if xp is np else w.get() for w in parameters])


def row_makers(method: str, backend: str) -> dict[str, MakeRows]:
    return {"numpy": partial(make_rows, method)} if backend == "cpu" else {}


def make_rows(
    method: str,
    start: np.ndarray,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    hyper: Hyper,
) -> RowTrainer:
    """Sort, sum the duplicates, update the touched rows."""
    table, update = placed(start), getattr(reference, method)
    names = {"adam": "mv", "adagrad": "G"}[method]
    # Ones times zero: memory that nobody has written is one page, and stays in the cache.
    states = {name: start * np.float32(0) for name in names}
    count = 0

    def step(k: int) -> None:
        nonlocal count
        count += 1
        numbers, values = batches[k]
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=-1))
        touched = ordered[begins]
        gradient = np.add.reduceat(values[order], begins)
        here = {name: state[touched] for name, state in states.items()}
        table[touched] = update(table[touched], gradient, here, count, **hyper)
        for name, state in here.items():
            states[name][touched] = state

    return RowTrainer(step, lambda: table)
