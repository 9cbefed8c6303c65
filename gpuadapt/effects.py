"""Options that have no effect are refused: who gives one expects something of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpuadapt.kernels.formats import SHORT
from gpuadapt.kernels.language.caching import cached_with_rule
from gpuadapt.kernels.language.renaming import made_anew
from gpuadapt.kernels.language.rule import Rule

from .errors import HyperparameterError
from .hyperparameters import SETTINGS

if TYPE_CHECKING:
    from .parameter import Parameter

Effect = tuple[Callable[["Parameter", Mapping[str, Any]], bool], str]

EFFECTS: dict[str, Effect] = {
    "state_dtype": (
        lambda parameter, settings: bool(parameter.states) or settings["state_dtype"] == {},
        "this optimizer keeps no states",
    ),
    "master": (
        lambda parameter, _: parameter.dtype_name in SHORT,
        "it is for parameters of bfloat16 and float16, and there are none",
    ),
    "rounding": (
        lambda parameter, _: parameter.dtype_name in SHORT,
        "parameters are rounded if they are bfloat16 or float16, and there are none",
    ),
    "seed": (
        lambda parameter, _: parameter.formats.random,
        "nothing is rounded stochastically: no state has 16 or 8 bits, no parameter "
        "rounding='stochastic'",
    ),
    "exactness": (
        lambda _, settings: settings["sparse"] == "exact",
        "it says how exact sparse='exact' is, and rows are lazy",
    ),
}
"""What tells whether a setting has an effect on a parameter, and the reason why it has none."""


def check_effects(groups: Sequence[Mapping[str, Any]], parameters: Sequence[Parameter]) -> None:
    """Raise `HyperparameterError` for settings that change nothing of any parameter.

    ``groups`` holds the settings of each group. A setting may change some of the parameters alone.
    """
    for name, (affects, reason) in EFFECTS.items():
        given = [(parameter, groups[parameter.group]) for parameter in parameters]
        given = [one for one in given if one[1][name] != SETTINGS[name]]
        if given and not any(affects(parameter, settings) for parameter, settings in given):
            raise HyperparameterError(
                f"{name}: got {given[0][1][name]!r}, which has no effect: {reason}; leave it out"
            )


def check_decay(rule: Rule, options: frozenset[str]) -> None:
    """Raise `HyperparameterError` for a decay of a parameter that the rule makes anew."""
    lost = options & {"decoupled", "absolute", "after"}
    if lost and _made_anew(rule):
        raise HyperparameterError(
            f"decay: got {min(lost)!r}, but {rule.name!r} makes the parameter anew of its states "
            "in every step, and forgets what else was done to it: decay='l2' adds to the gradient, "
            "or leave weight_decay at 0"
        )


@cached_with_rule
def _made_anew(rule: Rule) -> bool:
    return made_anew(rule.program)
