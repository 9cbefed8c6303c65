"""Thinc's Adam (spaCy's), one call for each array."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..training import Hyper, Make, Trainer

NAME = "thinc"
DTYPES = ("float32",)


@cache
def library() -> Any:
    try:
        import thinc
        import thinc.api
    except ImportError:
        return None
    return thinc


def version() -> str | None:
    import importlib.metadata

    return library() and importlib.metadata.version("thinc")


def makers(method: str, backend: str) -> dict[str, Make]:
    return {"thinc": make} if (method, backend) == ("adam", "cpu") else {}


def make(start: Sequence[np.ndarray], hyper: Hyper) -> Trainer:
    optimizer = library().api.Adam(
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
