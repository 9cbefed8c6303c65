"""What several presets need to say in our words."""

from __future__ import annotations

from typing import Any

from ..hyperparameters import Hyperparameter

Decay = Hyperparameter | None
"""Weight decay, or None for none."""


def decoupled(weight_decay: Decay) -> dict[str, Any]:
    """Weight decay times lr, before the update."""
    return {"weight_decay": 0.0 if weight_decay is None else weight_decay, "decay": "decoupled"}


def scaled(value: Hyperparameter, factor: float) -> Hyperparameter:
    """A multiple of a number or a schedule."""
    if callable(value):
        return lambda step: factor * value(step)
    return factor * value


def doubled(l2: Hyperparameter) -> Hyperparameter:
    """The strength of a penalty l2 w^2 as that of l2 w^2 / 2."""
    return scaled(l2, 2)
