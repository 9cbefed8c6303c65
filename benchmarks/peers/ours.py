"""gpuadapt itself, as a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import gpuadapt as ga
from gpuadapt.arrays import namespace, numpy_dtype
from gpuadapt.benchmark import traffic as shared
from gpuadapt.benchmark.candidates import HYPER, Given, Hyper, Make, MakeRows, RowTrainer, Trainer
from gpuadapt.benchmark.draws import in_type, placed
from gpuadapt.state_formats import decoded

FORMS = {"adagrad": "inside", "rmsprop": "inside", "adam": "outside"}
"""Where eps stands by default."""


FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "bfloat16 state": ("float32", {"state_dtype": "bfloat16"}),
    "float16 state": ("float32", {"state_dtype": "float16"}),
    "8-bit state": ("float32", {"state_dtype": "8bit"}),
    "all bfloat16, stochastic": (
        "bfloat16", {"state_dtype": "bfloat16", "rounding": "stochastic"},
    ),
    "all bfloat16, split": ("bfloat16", {"state_dtype": "bfloat16", "master": "split"}),
    "all bfloat16, kahan": ("bfloat16", {"state_dtype": "bfloat16", "rounding": "kahan"}),
    "all bfloat16, master": ("bfloat16", {"state_dtype": "bfloat16", "master": "float32"}),
    "all bfloat16, nearest": ("bfloat16", {"state_dtype": "bfloat16"}),
    "bfloat16, 8-bit state": ("bfloat16", {"state_dtype": "8bit", "rounding": "stochastic"}),
}  # fmt: skip
"""Parameters' and gradients' element type, and settings."""


def traffic(method: str, kept: str) -> float:
    """Bytes that an update of one element must move."""
    element, settings = FORMATS[kept]
    parameter = np.zeros(1, numpy_dtype(element, "cpu"))
    optimizer = optimizer_of(method, [parameter], HYPER[method], **settings)
    return shared.of(optimizer)


def makers(method: str, backend: str, kept: str = "") -> dict[str, Make]:
    element, settings = FORMATS.get(kept, ("", {}))
    found = {"gpuadapt": partial(make, method, backend, element=element, **settings)}
    if kept:
        return found
    if backend == "cuda":
        found["gpuadapt captured"] = partial(make_captured, method)
    return found


def make(
    method: str,
    backend: str,
    start: Given,
    hyper: Hyper,
    element: str = "",
    **settings: str,
) -> Trainer:
    xp = namespace(backend)

    def kept(values: Any) -> Any:
        """A copy on the backend; of bfloat16 on a GPU the bits."""
        return in_type(values, element, backend) if element else xp.array(values)

    parameters = [kept(w) for w in start]
    optimizer = optimizer_of(method, parameters, hyper, **settings)
    gradients: list[Any] = []

    def load(given: Given) -> None:
        gradients[:] = [kept(g) for g in given]

    return Trainer(
        load,
        lambda: optimizer.step(gradients),
        lambda: [decoded(w) for w in parameters],
        {"eps_mode": FORMS[method]} if method in FORMS else {},
    )


def make_captured(method: str, start: Given, hyper: Hyper) -> Trainer:
    """A step that is captured in a CUDA graph, and replayed on the current stream."""
    xp = namespace("cuda")
    parameters, gradients = [[xp.array(w) for w in start] for _ in range(2)]
    optimizer = optimizer_of(method, parameters, hyper)
    optimizer.capturable = True
    stream, graphs = xp.cuda.Stream(non_blocking=True), []

    def load(given: Given) -> None:
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
    method: str, parameters: list[np.ndarray], hyper: Hyper, **settings: Any
) -> ga.Optimizer:
    """The public class, with hyperparameters under the reference's names."""
    given: dict[str, Any] = {k: v for k, v in hyper.items() if not k.startswith("beta")}
    if method == "adam":
        given["betas"] = (hyper["beta1"], hyper["beta2"])
    kind = {
        "sgd": ga.SGD,
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
    start: Any,
    batches: Sequence[tuple[np.ndarray, Any]],
    hyper: Hyper,
) -> RowTrainer:
    xp = namespace(backend)
    table = placed(start) if xp is np else xp.array(start)
    optimizer = optimizer_of(method, [table], hyper, rowwise=rowwise)
    gradients = [ga.RowGrad(xp.asarray(rows), xp.asarray(values)) for rows, values in batches]
    return RowTrainer(
        lambda k: optimizer.step([gradients[k]]),
        lambda: table if xp is np else table.get(),
        {"eps_mode": FORMS[method]},
        rowwise,
    )
