"""From what the user calls parameters to groups and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpuadapt.kernels.language.rule import Rule

from .arrays import SmallArrayArena, check_disjoint, check_parameter, describe
from .errors import ParameterError
from .group import Group
from .hyperparameters import SETTINGS, expand
from .parameter import Parameter
from .storage import element
from .tree import Branch, Place, branch, read


class Built(NamedTuple):
    """Groups and parameters, in the structure of what the user gave."""

    templates: list[Place]
    """Of each group."""
    groups: list[Group]
    parameters: dict[str, Parameter]


def build(
    rule: Rule,
    params: Any,
    common: Mapping[str, Any],
    initial: Mapping[str, Any],
    before: Built,
) -> Built:
    """What there was before, with groups and parameters of what the user calls parameters.

    Parameters
    ----------
    rule : Rule
    params : array, container of arrays and containers, or list of groups
    common : mapping
        Settings that groups do not have of their own.
    initial : mapping
        What states are filled with.
    before : Built
        It is left as it is.

    Raises
    ------
    ParameterError, BackendError, HyperparameterError
    """
    built = Built([*before.templates], [*before.groups], {**before.parameters})
    memory = SmallArrayArena()

    def add(group: Group, name: str, array: Any) -> None:
        if name in built.parameters:
            raise ParameterError(f"parameter {name!r}: two parameters have this name")
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ParameterError(f"parameter {name!r}: half of a character is no text")
        backend = check_parameter(name, array)
        number = len(built.groups) - 1
        parameter = Parameter(name, array, backend, number, rule, group.settings, initial, memory)
        built.parameters[name] = parameter
        group.add(parameter)

    def add_group(given: Any, settings: Mapping[str, Any]) -> None:
        asked = built.groups[0].schedules if built.groups else None
        group = Group(rule, {"params": (), **settings}, initial, asked)
        built.groups.append(group)
        template, found = read(given, len(built.parameters))
        for name, array in found:
            add(group, name, array)
        built.templates.append(template)

    if are_groups(params):
        for given in params:
            settings = {**common, **expand(given)}
            add_group(settings.pop("params"), settings)
    else:
        add_group(params, common)
    check_disjoint(
        (parameter.name, parameter.backend, parameter.array)
        for parameter in built.parameters.values()
    )
    return built


def are_groups(params: Any) -> bool:
    """Whether ``params`` is a list of groups: of dicts that all have "params".

    Raises
    ------
    ParameterError
        Some of it are groups.
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


def structure(built: Built, grouped: bool) -> tuple[Place, Branch]:
    """In what structure gradients come; and all names.

    With groups it is a list of theirs.
    """
    names = list(built.parameters)
    template = branch("", None, built.templates) if grouped else built.templates[0]
    return template, branch("", names, [*names], ordered=False)


def shown(
    kind: str, rule: Rule, groups: Sequence[Group], parameters: Sequence[Parameter], step_count: int
) -> str:
    """An optimizer in one line."""

    def text(value: Any) -> str:
        return getattr(value, "__name__", "<schedule>") if callable(value) else repr(value)

    settings = groups[0].settings
    usual = SETTINGS | {"params": settings["params"]}
    changed = ", ".join(
        f"{key}={text(value)}"
        for key, value in settings.items()
        if key not in usual or value != usual[key]
    )
    changed += _wider(rule, groups[0].settings["state_dtype"], parameters)
    elements = sum(parameter.array.size for parameter in parameters)
    backends = " and ".join(sorted({parameter.backend for parameter in parameters}))
    where = f", {elements:,} elements on {backends}" if parameters else ""
    return (
        f"{kind}({rule.name}: {changed}; {len(groups)} group{'s' * (len(groups) > 1)}, "
        f"{len(parameters)} parameter{'s' * (len(parameters) != 1)}{where}; "
        f"step {step_count})"
    )


def _wider(rule: Rule, asked: Any, parameters: Sequence[Parameter]) -> str:
    """The states that are kept in more bits than was asked for all of them, and in what."""
    if not isinstance(asked, str):
        return ""
    found = {
        f"{state} in {element(form)}"
        for parameter in parameters
        if parameter.group == 0
        for state, form in zip(rule.states, parameter.formats.states, strict=True)
        if element(form) != asked
    }
    return f" (kept wider: {', '.join(sorted(found))})" if found else ""
