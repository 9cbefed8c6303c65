"""Refuse settings that have no effect: whoever gives one expects it to do something."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from gpuadapt.kernels.formats import SHORT, Formats

from .errors import HyperparameterError
from .hyperparameters import SETTINGS


class Affected(Protocol):
    """What a setting may have an effect on: a parameter, or several that are alike."""

    @property
    def group(self) -> int: ...

    @property
    def rule_states(self) -> Collection[str]: ...

    @property
    def dtype_name(self) -> str: ...

    @property
    def formats(self) -> Formats: ...


Effect = tuple[Callable[[Affected, Mapping[str, Any]], bool], str]

EFFECTS: dict[str, Effect] = {
    "state_dtype": (
        lambda parameter, settings: bool(parameter.rule_states) or settings["state_dtype"] == {},
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
"""For each setting, whether it affects a parameter of a group, and why it would not."""


def check_effects(groups: Sequence[Mapping[str, Any]], parameters: Sequence[Affected]) -> None:
    """Raise `HyperparameterError` for a setting that affects none of the parameters it is for.

    ``groups`` are the settings of each group; one that is not there has its default.
    """
    for name, (affects, reason) in EFFECTS.items():
        given = [settings.get(name, SETTINGS[name]) != SETTINGS[name] for settings in groups]
        if not any(given):
            continue
        changed = [one for one in parameters if given[one.group]]
        if changed and not any(affects(one, groups[one.group]) for one in changed):
            value = groups[changed[0].group][name]
            raise HyperparameterError(
                f"{name}: got {value!r}, which has no effect: {reason}; leave it out"
            )
