"""gpuadapt itself, as a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import gpuadapt as ga

from ..training import Hyper, Make, MakeRows, RowTrainer, Trainer, library, placed

FORMS = {"adagrad": "inside", "rmsprop": "inside", "adam": "outside"}
"""Where eps stands by default."""


def makers(method: str, backend: str) -> dict[str, Make]:
    found = {"gpuadapt": partial(make, method, backend)}
    if backend == "cuda":
        found["gpuadapt captured"] = partial(make_captured, method)
    return found


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


def make_captured(method: str, start: Sequence[np.ndarray], hyper: Hyper) -> Trainer:
    """A step that is captured in a CUDA graph, and replayed on the current stream."""
    xp = library("cuda")
    parameters, gradients = [[xp.asarray(w) for w in start] for _ in range(2)]
    optimizer = optimizer_of(method, parameters, hyper)
    optimizer.capturable = True
    stream, graphs = xp.cuda.Stream(non_blocking=True), []

    def load(given: Sequence[np.ndarray]) -> None:
        for gradient, values in zip(gradients, given, strict=True):
            gradient[...] = xp.asarray(values)

    def step() -> None:
        if not graphs:
            xp.cuda.get_current_stream().synchronize()
            with stream:
                if optimizer.step_count == 0:
                    optimizer.step(gradients)
                    stream.synchronize()
                    return
                stream.begin_capture()
                optimizer.step(gradients)
                graphs.append(stream.end_capture())
        optimizer.prepare_replay()
        graphs[0].launch(xp.cuda.get_current_stream())

    form = {"eps_mode": FORMS[method]} if method in FORMS else {}
    return Trainer(load, step, lambda: [w.get() for w in parameters], form)


def optimizer_of(
    method: str, parameters: list[np.ndarray], hyper: Hyper, **settings: bool
) -> ga.Optimizer:
    """The public class, with hyperparameters under the reference's names."""
    given: dict[str, Any] = {k: v for k, v in hyper.items() if not k.startswith("beta")}
    if method == "adam":
        given["betas"] = (hyper["beta1"], hyper["beta2"])
    kind = {
        "adagrad": ga.Adagrad,
        "rmsprop": ga.RMSprop,
        "adadelta": ga.Adadelta,
        "adam": ga.Adam,
    }[method]
    return kind(parameters, **given, **settings)


def row_makers(method: str, backend: str) -> dict[str, MakeRows]:
    found = {"gpuadapt": partial(make_rows, method, backend, False)}
    if method == "adagrad":
        found["gpuadapt row-wise"] = partial(make_rows, method, backend, True)
    return found


def make_rows(
    method: str,
    backend: str,
    rowwise: bool,
    start: np.ndarray,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    hyper: Hyper,
) -> RowTrainer:
    xp = library(backend)
    table = placed(start) if xp is np else xp.asarray(start)
    optimizer = optimizer_of(method, [table], hyper, rowwise=rowwise)
    gradients = [ga.RowGrad(xp.asarray(rows), xp.asarray(values)) for rows, values in batches]
    return RowTrainer(
        lambda k: optimizer.step([gradients[k]]),
        lambda: table if xp is np else table.get(),
        {"eps_mode": FORMS[method]},
        rowwise,
    )
