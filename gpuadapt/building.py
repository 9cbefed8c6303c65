"""From what the user calls parameters to groups and slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpuadapt.kernels.rule import Rule

from .arrays import Memory, check_disjoint, check_parameter
from .errors import ParameterError
from .group import Group
from .hyperparameters import SETTINGS, expand
from .slot import Slot


def build(
    rule: Rule, params: Any, common: Mapping[str, Any], initial: Mapping[str, float]
) -> tuple[Any, list[Group], dict[str, Slot]]:
    """The structure of ``params`` with slots for arrays; the groups; the slots by name.

    A tuple stands for a list of arrays, a list for groups.

    Parameters
    ----------
    rule : Rule
    params : array, list, dict or list of groups
    common : mapping
        Settings that groups do not have of their own.
    initial : mapping
        What states are filled with.

    Raises
    ------
    ParameterError, BackendError, HyperparameterError
    """
    groups: list[Group] = []
    slots: dict[str, Slot] = {}
    memory = Memory()

    def add(group: Group, name: Any, array: Any) -> Slot:
        if not isinstance(name, str):
            raise ParameterError(f"parameter {name!r}: names are strings")
        if name in slots:
            raise ParameterError(f"parameter {name!r}: two parameters have this name")
        backend = check_parameter(name, array)
        number = len(groups) - 1
        slot = Slot(name, array, backend, number, rule, group.settings, initial, memory)
        slots[name] = slot
        group.add(slot)
        return slot

    def add_group(given: Any, settings: Mapping[str, Any]) -> Any:
        group = Group(rule, {"params": (), **settings})
        groups.append(group)
        if isinstance(given, Mapping):
            return {name: add(group, name, array) for name, array in given.items()}
        if isinstance(given, (list, tuple)):
            return tuple(add(group, str(len(slots)), array) for array in given)
        return add(group, str(len(slots)), given)

    template: Any = []
    if are_groups(params):
        for given in params:
            settings = {**common, **expand(given)}
            template.append(add_group(settings.pop("params"), settings))
    else:
        template = add_group(params, common)
    check_disjoint((slot.name, slot.backend, slot.array) for slot in slots.values())
    return template, groups, slots


def are_groups(params: Any) -> bool:
    """Whether ``params`` is a list of groups."""
    return (
        isinstance(params, (list, tuple))
        and len(params) > 0
        and all(isinstance(given, Mapping) and "params" in given for given in params)
    )


def shown(
    kind: str, rule: Rule, groups: Sequence[Group], slots: Sequence[Slot], step_count: int
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
    elements = sum(slot.array.size for slot in slots)
    backends = " and ".join(sorted({slot.backend for slot in slots}))
    where = f", {elements:,} elements on {backends}" if slots else ""
    return (
        f"{kind}({rule.name}: {changed}; {len(groups)} group{'s' * (len(groups) > 1)}, "
        f"{len(slots)} parameter{'s' * (len(slots) != 1)}{where}; "
        f"step {step_count})"
    )
