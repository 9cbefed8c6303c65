"""A small classifier, forward and backward, in array code that NumPy and CuPy share."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

Arrays = dict[str, Any]


def initial(xp: ModuleType, seed: int, inputs: int, hidden: int, classes: int) -> Arrays:
    """Weights of inputs -> hidden (ReLU) -> classes; He's scale; the same on every backend."""
    random = np.random.default_rng(seed)
    w1 = random.normal(0, (2 / inputs) ** 0.5, (inputs, hidden))
    w2 = random.normal(0, (2 / hidden) ** 0.5, (hidden, classes))
    weights = {"w1": w1, "b1": np.zeros(hidden), "w2": w2, "b2": np.zeros(classes)}
    return {name: xp.asarray(array, dtype=xp.float32) for name, array in weights.items()}


def logits(w: Arrays, x: Any) -> tuple[Any, Any]:
    """Hidden activations (n, hidden) and scores (n, classes)."""
    hidden = (x @ w["w1"] + w["b1"]).clip(0)
    return hidden, hidden @ w["w2"] + w["b2"]


def loss_and_gradients(xp: ModuleType, w: Arrays, x: Any, labels: Any) -> tuple[Any, Arrays]:
    """Mean cross-entropy over a batch, as a 0-d array, and its gradients."""
    hidden, scores = logits(w, x)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - xp.log(xp.exp(scores).sum(axis=1, keepdims=True))
    rows = xp.arange(len(labels))
    d_scores = xp.exp(log_p)
    d_scores[rows, labels] -= 1
    d_scores /= len(labels)
    d_hidden = (d_scores @ w["w2"].T) * (hidden > 0)
    return -log_p[rows, labels].mean(), {
        "w1": x.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_scores,
        "b2": d_scores.sum(axis=0),
    }
