"""Thinc's Adam (spaCy's), one call for each array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..candidates import Hyper, Make, Trainer
from .installed import load

NAME = "thinc"
PACKAGES = ("thinc",)
DTYPES = ("float32",)


def library() -> Any:
    return load("thinc.api")


def makers(method: str, backend: str) -> dict[str, Make]:
    return {"thinc": make} if (method, backend) == ("adam", "cpu") else {}


def make(start: Sequence[np.ndarray], hyper: Hyper) -> Trainer:
    optimizer = library().Adam(
        hyper["lr"],
        beta1=hyper["beta1"],
        beta2=hyper["beta2"],
        eps=hyper["eps"],
        L2=0.0,
        grad_clip=0.0,
        use_averages=False,
    )
    parameters = [w.copy() for w in start]
    given: list[np.ndarray] = []
    consumed = [np.empty_like(w) for w in start]

    def load(gradients: Sequence[np.ndarray]) -> None:
        given[:] = gradients

    def step() -> None:
        for key, (w, gradient, keep) in enumerate(zip(parameters, consumed, given, strict=True)):
            # It leaves zeros in the gradient; filling it again is a small part of its time.
            np.copyto(gradient, keep)
            optimizer((key, "w"), w, gradient)

    return Trainer(load, step, lambda: parameters, {"eps_mode": "uncorrected"})
