"""Construct groups and parameters from what the user passes as ``params``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.language.rule import Rule

from .arrays import SmallArrayArena, check_disjoint, check_parameter, describe, dtype_name
from .errors import ParameterError
from .foreign import as_array
from .group import Group
from .hyperparameters import expand
from .parameter import Parameter
from .state_formats import Storage, storage_of
from .tree import Branch, Place, branch, read


class Built(NamedTuple):
    """The groups and parameters of an optimizer."""

    templates: list[Place]
    """The structure of each group's ``params``, with names in place of arrays."""
    groups: list[Group]
    parameters: dict[str, Parameter]


def build(
    rule: Rule,
    params: Any,
    common: Mapping[str, Any],
    initial: Mapping[str, Any],
    before: Built,
) -> Built:
    """Add groups and parameters to those of an optimizer, which stay as they are.

    Parameters
    ----------
    rule : Rule
    params : array, container of arrays and containers, or list of groups
    common : mapping
        Settings for groups without their own.
    initial : mapping of str to float or Start
        Initial values of states.
    before : Built

    Raises
    ------
    ParameterError, BackendError, HyperparameterError
    """
    built = Built([*before.templates], [*before.groups], {**before.parameters})
    arena = SmallArrayArena()

    def add_group(params: Any, settings: Mapping[str, Any]) -> None:
        """Add a group with all its parameters."""
        schedules = built.groups[0].schedules if built.groups else None
        group = Group(rule, {"params": (), **settings}, initial, schedules)
        built.groups.append(group)
        template, arrays = read(params, len(built.parameters))
        made: list[Parameter] = []
        storages: dict[tuple[str, np.dtype], Storage] = {}
        common = group.settings, initial, arena
        for name, given in arrays:
            array = given
            if type(given) is not np.ndarray:
                array = as_array(f"parameter {name!r}", given, ParameterError, writable=True)
            backend = _checked(name, array, built)
            key = backend, array.dtype
            if key not in storages:
                element = dtype_name(array) or ""
                storages[key] = storage_of(rule, name, element, backend, *common[:2])
            number = len(built.groups) - 1
            new = Parameter(name, array, backend, number, storages[key], *common, owner=given)
            built.parameters[name] = new
            made.append(new)
        group.add(made)
        built.templates.append(template)

    if are_groups(params):
        for group in params:
            settings = {**common, **expand(group)}
            add_group(settings.pop("params"), settings)
    else:
        add_group(params, common)
    check_disjoint({name: one.array for name, one in built.parameters.items()})
    return built


def _checked(name: str, array: Any, built: Built) -> str:
    """Check a new parameter; return its backend."""
    if name in built.parameters:
        raise ParameterError(f"parameter {name!r}: two parameters have this name")
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ParameterError(f"parameter {name!r}: half of a character is no text")
    return check_parameter(name, array)


def are_groups(params: Any) -> bool:
    """True if ``params`` is a list of groups: of dicts that all have "params".

    Raises
    ------
    ParameterError
        If only some of them have.
    """
    if not isinstance(params, (list, tuple)):
        return False
    groups = [isinstance(given, Mapping) and "params" in given for given in params]
    if any(groups) and not all(groups):
        raise ParameterError(
            f"params: {groups.index(True)} is a group, a dict with 'params', and "
            f"{groups.index(False)} is {describe(params[groups.index(False)])}; give groups alone, "
            "or none"
        )
    return bool(groups) and all(groups)


def gradient_templates(built: Built, grouped: bool) -> tuple[Place, Branch]:
    """The structure of ``params``, and one dict by name: a step takes gradients in either.

    With ``grouped`` the first is a list of the groups' structures.
    """
    names = list(built.parameters)
    template = branch("", None, built.templates) if grouped else built.templates[0]
    return template, branch("", names, [*names], ordered=False)
