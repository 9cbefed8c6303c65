"""Train the network on scikit-learn's handwritten digits, once per method and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from .. import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop
from ..arrays import namespace
from .clock import now
from .network import initial, logits, loss_and_gradients

METHODS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda w: SGD(w, lr=0.1),
    "momentum": lambda w: SGD(w, lr=0.02, momentum=0.9),
    "Adagrad": lambda w: Adagrad(w, lr=0.02),
    "RMSprop": lambda w: RMSprop(w, lr=1e-3),
    "Adadelta": lambda w: Adadelta(w),
    "Adam": lambda w: Adam(w, lr=2e-3),
}
"""The methods that are compared; Adadelta has nothing to choose."""

HIDDEN = 64
BATCH = 64
POINTS = 60
"""Points along a run at which loss, accuracy and rates are recorded."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass
class Run:
    """One method on one seed."""

    method: str
    seed: int
    settings: str
    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    """Mean cross-entropy over the whole training set."""
    accuracy: list[float] = field(default_factory=list)
    """On the test set."""
    rates: list[list[float]] = field(default_factory=list)
    """Quantiles of the effective rates, over the elements that have a gradient."""
    optimizer_seconds: float = 0.0
    training_seconds: float = 0.0
    total_steps: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images (n, 64) in [0, 1] and labels; a fixed split, 3 to 1."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]
    cut = len(labels) * 3 // 4
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def total_steps(epochs: int, x: Any) -> int:
    """Steps of so many passes over the training images; a last, smaller batch is left out."""
    return epochs * (len(x) // BATCH)


def train(
    method: str,
    seed: int,
    epochs: int,
    data: tuple[np.ndarray, ...],
    backend: str,
    advance: Callable[[int], None],
) -> Run:
    """One run; calls ``advance(steps)`` now and then."""
    xp = namespace(backend)
    x, labels, test_x, test_labels = map(xp.asarray, data)
    weights = initial(xp, seed, x.shape[1], HIDDEN, 10)
    optimizer = METHODS[method](weights)
    _warm_up(xp, method, weights)
    run = Run(method, seed, repr(optimizer), total_steps=total_steps(epochs, x))
    record_at = set(np.unique(np.geomspace(1, run.total_steps, POINTS).astype(int)).tolist())
    step = reported = 0
    _record(xp, run, step, weights, optimizer, x, labels, test_x, test_labels)
    for gradient_seconds, update_seconds in descend(
        xp, seed, epochs, x, labels, weights, optimizer, backend
    ):
        run.optimizer_seconds += update_seconds
        run.training_seconds += gradient_seconds + update_seconds
        step += 1
        if step in record_at:
            _record(xp, run, step, weights, optimizer, x, labels, test_x, test_labels)
            advance(step - reported)
            reported = step
    advance(step - reported)
    return run


def descend(
    xp: ModuleType,
    seed: int,
    epochs: int,
    x: Any,
    labels: Any,
    weights: dict[str, Any],
    optimizer: Optimizer,
    backend: str,
) -> Iterator[tuple[float, float]]:
    """Train in place; after every step, the seconds that its gradients and its update took.

    Who iterates may look at the weights between steps; it does not count as training.
    """
    batches = len(x) // BATCH
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = xp.asarray(random.permutation(len(x))[: batches * BATCH])
        for rows in order.reshape(batches, BATCH):
            start = now(backend)
            _, gradients = loss_and_gradients(xp, weights, x[rows], labels[rows])
            middle = now(backend)
            optimizer.step(gradients)
            end = now(backend)
            yield middle - start, end - middle


def accuracy(weights: dict[str, Any], x: Any, labels: Any) -> float:
    """The share of images whose highest score is their label's."""
    return float((logits(weights, x)[1].argmax(axis=1) == labels).mean())


def _warm_up(xp: ModuleType, method: str, weights: dict[str, Any]) -> None:
    """Compile what the run will need, on copies, so that no timing includes it."""
    copies = {name: array.copy() for name, array in weights.items()}
    optimizer = METHODS[method](copies)
    optimizer.step({name: xp.zeros_like(array) for name, array in copies.items()})
    optimizer.effective_lr("w1")


def _record(
    xp: ModuleType,
    run: Run,
    step: int,
    weights: dict[str, Any],
    optimizer: Optimizer,
    x: Any,
    labels: Any,
    test_x: Any,
    test_labels: Any,
) -> None:
    run.steps.append(step)
    loss, gradients = loss_and_gradients(xp, weights, x, labels)
    run.loss.append(float(loss))
    run.accuracy.append(accuracy(weights, test_x, test_labels))
    # Pixels that are always black have no gradient, and a rate that means nothing.
    rates = xp.concatenate([optimizer.effective_lr(name)[gradients[name] != 0] for name in weights])
    run.rates.append([float(q) for q in xp.quantile(rates, xp.asarray(QUANTILES))])
