"""Translate between the names of other frameworks and ours, in arguments and error messages."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..construct import are_groups
from ..errors import HyperparameterError, KeywordError
from ..hyperparameters import DEFAULTS, SETTINGS, Hyperparameter, number
from ..optimizers.variants import is_zero
from ..schedules import Scaled
from ..signatures import own_names, spelled_out
from ..suggest import HERE, asked, meant, near

Make = TypeVar("Make", bound=Callable[..., Any])

THEIRS: dict[str, tuple[str, ...]] = {
    "lr": ("lr", "learning_rate", "alpha"),
    "rho": ("rho", "alpha", "decay"),
    "eps": ("eps", "epsilon"),
    "beta1": ("beta1", "beta_1", "b1", "betas"),
    "beta2": ("beta2", "beta_2", "b2", "betas"),
    "l1": ("l1_regularization_strength",),
    "l2": ("l2_regularization_strength",),
    "initial_accumulator": ("initial_accumulator_value",),
    "initial_square": ("initial_scale",),
    "weight_decay": ("weight_decay", "weight_decay_rate"),
    "nesterov": ("nesterov", "use_nesterov"),
}
"""From our name of a hyperparameter to its names in other frameworks."""


def preset(make: Make) -> Make:
    """Decorate a framework's constructor: its errors have that framework's names.

    An unknown keyword raises `KeywordError`, a TypeError. Its signature has the keywords of its
    ``**options``.
    """
    framework = make.__module__.rpartition(".")[2]
    title = f"{framework}.{make.__name__}"
    known = inspect.signature(spelled_out(DEFAULTS)(make)).parameters
    own = own_names(make)[1:]
    flags = [name for name in own if isinstance(known[name].default, bool)]

    @functools.wraps(make)
    def construct(*given: Any, **named: Any) -> Any:
        for name in named:
            if name in SETTINGS and name not in known:
                raise KeywordError(
                    f"{title} sets {name!r} itself, as the framework does; leave it out"
                )
            if name not in known:
                raise KeywordError(_unknown(title, name, own))
        for name, value in [*zip(own, given[1:], strict=False), *named.items()]:
            if name in flags and not isinstance(value, (bool, np.bool_)):
                raise HyperparameterError(f"{name}: got {value!r}, expected True or False")
        try:
            return make(*given, **named)
        except HyperparameterError as error:
            params = given[0] if given else named.get("params")
            raise type(error)(_translated(str(error), own, params)) from None

    return construct  # type: ignore[return-value]


def _unknown(title: str, name: str, own: list[str]) -> str:
    """Write the message about an unknown keyword."""
    ours = (name, *HERE.get(name, ()), *(here for here, of in THEIRS.items() if name in of))
    theirs = [each for here in ours for each in THEIRS.get(here, (here,)) if each in own]
    instead = theirs[0] if theirs else near(name, own) or meant(name, SETTINGS)
    return f"{asked(instead)}{title} has no keyword {name!r}; it has {', '.join(own)}"


def _translated(message: str, own: list[str], params: Any) -> str:
    """Replace our name of a hyperparameter at the start of a message by the framework's."""
    ours, colon, rest = message.partition(": ")
    theirs = [name for name in THEIRS.get(ours, ()) if name in own]
    groups = params if are_groups(params) else ()
    if not colon or not theirs or ours in own or any(ours in group for group in groups):
        return message
    place = {"beta1": "betas[0]", "beta2": "betas[1]"}.get(ours, "")
    return f"{place if theirs[0] == 'betas' else theirs[0]}: {rest}"


Decay = Hyperparameter | None
"""Weight decay, or None for none."""


def decoupled(weight_decay: Decay) -> dict[str, Any]:
    """Return the options for weight decay times lr before the update."""
    return {"weight_decay": 0.0 if weight_decay is None else weight_decay, "decay": "decoupled"}


def looking_ahead(nesterov: bool, momentum: Hyperparameter, params: Any) -> bool:
    """Return ``nesterov``, but False without momentum, where frameworks ignore it."""
    return nesterov and not is_zero("momentum", momentum, params)


def scaled(name: str, value: Hyperparameter, factor: float) -> Hyperparameter:
    """Multiply a number >= 0 or a schedule by a factor."""
    return Scaled(value, factor) if callable(value) else factor * not_negative(name, value)


def not_negative(name: str, value: Any) -> float:
    """Check a number >= 0 under the framework's name."""
    found = number(name, value)
    if found < 0:
        raise HyperparameterError(f"{name}: got {value!r}, expected a number >= 0")
    return found


def doubled(l2: Hyperparameter) -> Hyperparameter:
    """Convert the strength of a penalty l2 w^2 to that of l2 w^2 / 2."""
    return scaled("l2_regularization_strength", l2, 2)
