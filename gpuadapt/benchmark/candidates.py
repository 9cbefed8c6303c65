"""What every candidate is: something that takes gradients, makes steps and shows its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Hyper = dict[str, float]

HYPER: dict[str, Hyper] = {
    "sgd": {"lr": 1e-2},
    "adagrad": {"lr": 1e-2, "eps": 1e-8},
    "rmsprop": {"lr": 1e-3, "rho": 0.9, "eps": 1e-8},
    "adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
}
"""Of what is timed."""

CHECKED: Hyper = {"lr": 0.1, "eps": 1e-3}
"""What checks use instead: it shows where eps stands, which differs between libraries."""


def checked(method: str) -> Hyper:
    """The hyperparameters of a method for checks."""
    return {name: CHECKED.get(name, value) for name, value in HYPER[method].items()}


Given = Sequence[Any]
"""Parameters or gradients that all candidates are given, and copy: NumPy's arrays, or CuPy's."""


class Trainer(NamedTuple):
    """Parameters of a candidate's own, and its optimizer."""

    load: Callable[[Given], Any]
    """Set the gradients of the next steps."""
    step: Callable[[], Any]
    """Update the parameters; this is what is timed."""
    result: Callable[[], list[np.ndarray]]
    """The parameters now."""
    form: dict[str, Any] = {}
    """Which form of the method this is: keywords of its class, such as ``eps_mode``."""


class RowTrainer(NamedTuple):
    """A table of a candidate's own, its optimizer, and batches of gradient rows."""

    step: Callable[[int], Any]
    """Update by batch k."""
    result: Callable[[], np.ndarray]
    """The table now."""
    form: dict[str, Any] = {}
    """As `Trainer.form`."""
    rowwise: bool = False
    """Whether a row has one second moment, the mean over its elements."""


Make = Callable[[Given, Hyper], Trainer]
"""From the first parameters and the hyperparameters, for one method on one backend."""

MakeRows = Callable[[Any, Sequence[tuple[np.ndarray, Any]], Hyper], RowTrainer]
"""From the table, batches of (row numbers, gradient rows) and the hyperparameters; as `Given`."""
