"""Formats: how parameters and states may be kept, and which pairs every run of the tests tries."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np


class Kept(NamedTuple):
    """How a parameter is kept."""

    element: str
    settings: dict[str, str]

    @property
    def name(self) -> str:
        how = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        return f"{self.element}, {how}" if how else self.element

    @property
    def dtype(self) -> np.dtype:
        return dtype(self.element)


ROUNDINGS = {"rounding": ("nearest", "stochastic", "kahan"), "master": ("float32", "split")}

PARAMETERS = [Kept("float32", {}), Kept("float64", {})] + [
    Kept(element, {key: value} if value != "nearest" else {})
    for element in ("bfloat16", "float16")
    for key, values in ROUNDINGS.items()
    for value in values
    if (element, value) != ("float16", "split")
]

STATES = ("float32", "bfloat16", "float16", "8bit")

GRADIENTS = {
    "float32": "bfloat16",
    "float64": "float32",
    "bfloat16": "float16",
    "float16": "float64",
}
"""The element type of gradients that a parameter is tried with, beside its own."""


def dtype(element: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if element == "bfloat16" else element)


def always(parameter: Kept, state: str) -> bool:
    """Whether a pair is tried in every run: each of both at least twice, 8 bits more often."""
    p, s = PARAMETERS.index(parameter), STATES.index(state)
    return (p + s) % 4 == 0 or (p == 0 and state != "float32")


EVERY = "GPUADAPT_EVERY_FORMAT" in os.environ
"""Whether all pairs are tried: ten minutes."""

PAIRS: list[tuple[Kept, str]] = [
    (parameter, state)
    for parameter in PARAMETERS
    for state in STATES
    if EVERY or always(parameter, state)
]


BY_ROWS = (("float32", "8bit"), ("stochastic", "bfloat16"), ("split", "float16"))

ROWS = [
    pair
    for k, pair in enumerate(PAIRS)
    if EVERY
    or (pair[1] != "float32" and k % 3 == 1)
    or ([pair[0].element, *pair[0].settings.values()][-1], pair[1]) in BY_ROWS
]
"""Those that are tried by rows too, whose kernels take longest to compile."""


def make(method: Any, w: Any, parameter: Kept, state: str, **more: Any) -> Any:
    """An optimizer of a parameter that is kept in that way."""
    return method({"w": w}, state_dtype=state, **parameter.settings, **more)
