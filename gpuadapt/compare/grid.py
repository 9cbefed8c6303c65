"""Train on the digits over a grid of every method's settings: how much does the choice matter?

The question of sections 4.1 and 4.2 of Zeiler, ADADELTA, 2012, with his tables' values of rho and
eps, and of learning rates one decade further up than his.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import SGD, Adadelta, Adagrad, Optimizer
from ..arrays import namespace
from .digits import HIDDEN, accuracy, descend, total_steps
from .network import initial

RHO = (0.9, 0.95, 0.99)
EPS = (1e-2, 1e-4, 1e-6, 1e-8)
RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
SEED = 0
"""One is enough to see what decades do, and three would take three times as long."""
EPOCHS = 30
"""At most; enough for the slowest of Adadelta's settings."""

METHODS: dict[str, Callable[..., Optimizer]] = {
    "SGD": SGD,
    "momentum": SGD,
    "Adagrad": Adagrad,
    "Adadelta": Adadelta,
}

SETTINGS: list[tuple[str, dict[str, float]]] = [
    *(("SGD", {"lr": lr}) for lr in RATES),
    *(("momentum", {"lr": lr, "momentum": 0.9}) for lr in RATES),
    *(("Adagrad", {"lr": lr}) for lr in RATES),
    *(("Adadelta", {"rho": rho, "eps": eps}) for rho in RHO for eps in EPS),
]
"""What is tried. Adadelta's own ``lr``, which the paper does not have, stays at 1."""


@dataclass
class Trial:
    """One method with one choice of its settings."""

    method: str
    settings: dict[str, float]
    error: float
    """On the test set, after the last step: a share."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def train(
    epochs: int,
    data: tuple[np.ndarray, ...],
    backend: str,
    advance: Callable[[str, int], None],
) -> list[Trial]:
    """A trial for each of the settings; calls ``advance(method, steps)`` after each.

    Nothing is recorded on the way, so that so many runs take few seconds.
    """
    trials = []
    for method, settings in SETTINGS:
        error = final_error(METHODS[method], settings, epochs, data, backend)
        trials.append(Trial(method, settings, error))
        advance(method, total_steps(epochs, data[0]))
    return trials


def final_error(
    method: Callable[..., Optimizer],
    settings: dict[str, float],
    epochs: int,
    data: tuple[np.ndarray, ...],
    backend: str,
) -> float:
    """The share of test images that the trained network gets wrong."""
    xp = namespace(backend)
    x, labels, test_x, test_labels = map(xp.asarray, data)
    weights = initial(xp, SEED, x.shape[1], HIDDEN, 10)
    optimizer = method(weights, **settings)
    # A rate may be so large that numbers overflow. That is a result, not an accident: once the
    # scores are NaN, argmax calls every image a 0, and the error is that of guessing.
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in descend(xp, SEED, epochs, x, labels, weights, optimizer, backend):
            pass
        return 1 - accuracy(weights, test_x, test_labels)


def summary(trials: list[Trial]) -> list[dict[str, Any]]:
    """One row per method: what was tried, the best and the worst of it."""
    rows = []
    for method in dict.fromkeys(trial.method for trial in trials):
        own = [trial for trial in trials if trial.method == method]
        errors = [trial.error for trial in own]
        values = {name: [trial.settings[name] for trial in own] for name in own[0].settings}
        rows.append(
            {
                "method": method,
                "trials": len(own),
                "settings": ", ".join(f"{name} {_range(tried)}" for name, tried in values.items()),
                "best": min(errors),
                "worst": max(errors),
            }
        )
    return rows


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
