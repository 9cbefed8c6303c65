"""What torch's methods are in gpuadapt's terms: rules, states by torch's names, hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpuadapt.kernels import pieces, rules
from gpuadapt.kernels.language.rule import Rule

from ..errors import HyperparameterError
from .options import refuse_function
from .rules import torch_centered, torch_centered_momentum, torch_nadam

Settings = Mapping[str, Any]
"""A group of ``param_groups``."""

MU_PRODUCT = "mu_product"
"""The state of NAdam that is one number for a parameter, beside its step."""


class Recipe(NamedTuple):
    """A method of torch.optim."""

    rule: Callable[[Settings], Rule]
    """The rule of a group, without weight decay and other options."""
    names: Mapping[str, str]
    """Torch's name of a state, by the rule's letter."""
    counts: bool = True
    """Whether a parameter has a state "step", with the number of its updates."""
    count_is_int: bool = False
    """Whether "step" is an int, not a tensor."""
    lazy: bool = False
    """Whether torch takes sparse gradients, and updates the rows that occur."""


def _sgd(group: Settings) -> Rule:
    if group["momentum"] == 0:
        return rules.sgd
    return rules.nesterov if group["nesterov"] else rules.momentum


def _rmsprop(group: Settings) -> Rule:
    forms = {
        (False, False): rules.rmsprop.variant(root=pieces.outside),
        (False, True): rules.rmsprop_momentum.variant(root=pieces.outside),
        (True, False): torch_centered,
        (True, True): torch_centered_momentum,
    }
    return forms[bool(group["centered"]), group["momentum"] > 0]


def _adam(group: Settings) -> Rule:
    return rules.amsgrad if group["amsgrad"] else rules.adam


MEANS = {"m": "exp_avg", "v": "exp_avg_sq", "w": "max_exp_avg_sq"}

RECIPES = {
    "SGD": Recipe(_sgd, {"b": "momentum_buffer"}, counts=False, lazy=True),
    "Adagrad": Recipe(
        lambda _: rules.adagrad.variant(root=pieces.outside), {"G": "sum"}, lazy=True
    ),
    "RMSprop": Recipe(_rmsprop, {"G": "square_avg", "M": "grad_avg", "b": "momentum_buffer"}),
    "Adadelta": Recipe(lambda _: rules.adadelta, {"G": "square_avg", "U": "acc_delta"}),
    "Adam": Recipe(_adam, MEANS),
    "SparseAdam": Recipe(
        lambda _: rules.adam.variant(root=pieces.uncorrected), MEANS, count_is_int=True, lazy=True
    ),
    "Adamax": Recipe(lambda _: rules.adamax_floor, {"m": "exp_avg", "u": "exp_inf"}),
    "NAdam": Recipe(lambda _: torch_nadam, MEANS),
    "RAdam": Recipe(lambda _: rules.radam.variant(root=pieces.uncorrected), MEANS),
}
"""By the name of torch's class; AdamW is Adam with another decay."""


def decay_of(group: Settings) -> str | None:
    """Return the option of weight decay that a group has, None without any."""
    if not group.get("weight_decay", 0):
        return None
    chosen: str = group.get("decay", "l2")
    return "decoupled" if group.get("decoupled_weight_decay") else chosen


def options_of(group: Settings) -> frozenset[str]:
    """Return the options of `gpuadapt.kernels.options` that a group asks for."""
    decay = decay_of(group)
    chosen = {decay} if decay else set()
    return frozenset(chosen | {"maximize"} if group.get("maximize") else chosen)


FROM_GROUP: dict[str, Callable[[Settings], Any]] = {
    "beta1": lambda group: group["betas"][0],
    "beta2": lambda group: group["betas"][1],
    "rho": lambda group: group["alpha"] if "alpha" in group else group["rho"],
    # RAdam's, which torch does not let anyone change.
    "threshold": lambda group: group.get("threshold", 5.0),
    "threshold_inclusive": lambda group: group.get("threshold_inclusive", 0.0),
}
"""By hyperparameter: where it is in a group, if not under its own name."""


def values_of(rule: Rule, group: Settings) -> dict[str, float]:
    """Return the hyperparameters of a rule that a group has, as numbers of the host."""
    return {
        name: number_of(name, group)
        for name in rule.hyperparameters
        if name in FROM_GROUP or name in group
    }


def number_of(name: str, group: Settings) -> float:
    """Return a hyperparameter of a group; tensors of one number are read.

    Raises
    ------
    HyperparameterError
        It is not a number.
    """
    try:
        return float(group[name] if name in group else FROM_GROUP[name](group))
    except (TypeError, ValueError, IndexError, KeyError, RuntimeError):
        key = next((each for each in (name, "betas", "alpha") if each in group), name)
        refuse_function(key, group.get(key))
        raise HyperparameterError(f"{key}: got {group.get(key)!r}, expected numbers") from None
