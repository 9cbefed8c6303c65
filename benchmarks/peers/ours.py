"""gpuadapt itself, as a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

import gpuadapt as ga

from ..training import Hyper, Make, MakeRows, RowTrainer, Trainer, library

FORMS = {"adagrad": "inside", "rmsprop": "inside", "adam": "outside"}
"""Where eps stands by default."""


def makers(method: str, backend: str) -> dict[str, Make]:
    return {"gpuadapt": partial(make, method, backend)}


def make(method: str, backend: str, start: Sequence[np.ndarray], hyper: Hyper) -> Trainer:
    xp = library(backend)
    parameters = [xp.array(w) for w in start]
    optimizer = optimizer_of(method, parameters, hyper)
    gradients: list[np.ndarray] = []

    def load(given: Sequence[np.ndarray]) -> None:
        gradients[:] = [xp.asarray(g) for g in given]

    return Trainer(
        load,
        lambda: optimizer.step(gradients),
        lambda: [w if xp is np else w.get() for w in parameters],
        {"eps_mode": FORMS[method]} if method in FORMS else {},
    )


def optimizer_of(method: str, parameters: list[np.ndarray], hyper: Hyper) -> ga.Optimizer:
    """The public class, with hyperparameters under the reference's names."""
    given: dict[str, object] = {k: v for k, v in hyper.items() if not k.startswith("beta")}
    if method == "adam":
        given["betas"] = (hyper["beta1"], hyper["beta2"])
    kind = {
        "adagrad": ga.Adagrad,
        "rmsprop": ga.RMSprop,
        "adadelta": ga.Adadelta,
        "adam": ga.Adam,
    }[method]
    return kind(parameters, **given)


def row_makers(method: str, backend: str) -> dict[str, MakeRows]:
    """The whole table: the same formula only where a zero gradient changes nothing."""
    if (method, backend) != ("adagrad", "cpu"):
        return {}
    return {"gpuadapt, whole table": partial(make_rows, method)}


def make_rows(
    method: str,
    start: np.ndarray,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    hyper: Hyper,
) -> RowTrainer:
    table, gradient = start.copy(), np.zeros_like(start)
    optimizer = optimizer_of(method, [table], hyper)

    def step(k: int) -> None:
        gradient[:] = 0
        np.add.at(gradient, *batches[k])
        optimizer.step([gradient])

    return RowTrainer(step, lambda: table, {"eps_mode": FORMS[method]})
