"""What several presets need to say in our words."""

from __future__ import annotations

from typing import Any

from ..hyperparameters import Hyperparameter, number
from ..optimizers.forms import is_zero
from ..schedules import Scaled

Decay = Hyperparameter | None
"""Weight decay, or None for none."""


def decoupled(weight_decay: Decay) -> dict[str, Any]:
    """Weight decay times lr, before the update."""
    return {"weight_decay": 0.0 if weight_decay is None else weight_decay, "decay": "decoupled"}


def looking_ahead(nesterov: bool, momentum: Hyperparameter, params: Any) -> bool:
    """Whether Nesterov's form is meant: frameworks ignore it where there is no momentum."""
    return nesterov and not is_zero("momentum", momentum, params)


def scaled(name: str, value: Hyperparameter, factor: float) -> Hyperparameter:
    """A multiple of a number or a schedule."""
    return Scaled(value, factor) if callable(value) else factor * number(name, value)


def doubled(l2: Hyperparameter) -> Hyperparameter:
    """The strength of a penalty l2 w^2 as that of l2 w^2 / 2."""
    return scaled("l2_regularization_strength", l2, 2)
