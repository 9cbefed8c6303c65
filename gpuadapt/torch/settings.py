"""Checks gpuadapt's keywords of all groups: their values, and that each has an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.options import compose

from ..effects import check_effects
from .options import check, of_all, of_group, own_settings
from .recipes import Recipe, options_of
from .slots import names_of
from .storage import storage_of
from .tensors import element_type, local


class _Affected(NamedTuple):
    """What a keyword may have an effect on: parameters of one group and element type."""

    group: int
    rule_states: tuple[str, ...]
    dtype_name: str
    formats: Formats


def check_settings(recipe: Recipe, groups: Sequence[Mapping[str, Any]]) -> None:
    """Check gpuadapt's keywords of all groups.

    Parameters
    ----------
    recipe : Recipe
    groups : sequence of dict
        ``optimizer.param_groups``.

    Raises
    ------
    HyperparameterError
        A value is out of range, or a keyword has no effect on any parameter that it is for.
    ParameterError, RuleError
        A keyword is not for these parameters, or not for this rule.
    """
    if not any(map(own_settings, groups)):
        return
    settings = [of_group(group) for group in groups]
    for own in settings:
        check(own)
    of_all(groups)
    names, found = iter(names_of(groups)), {}
    for number, group in enumerate(groups):
        rule = compose(recipe.rule(group), options_of(group))
        for parameter, name in zip(map(local, group["params"]), names, strict=False):
            dtype = element_type(parameter)
            if dtype is None or (number, parameter.dtype) in found:  # torch's own step, if at all
                continue
            storage = storage_of(rule, recipe, settings[number], parameter, name)
            affected = _Affected(number, rule.states, dtype, storage.formats)
            found[number, parameter.dtype] = affected
    check_effects(settings, list(found.values()))
