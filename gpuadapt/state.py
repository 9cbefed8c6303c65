"""Snapshots of an optimizer: made, checked, restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpuadapt.kernels.rule import Rule

from .arrays import backend_of, copied, copy_into, describe, kind_of
from .errors import StateError
from .group import Group
from .hyperparameters import check_known
from .slot import Slot

VERSION = 1
"""Raised when the meaning of a snapshot changes."""


Slots = Mapping[str, Slot]


def snapshot(rule: Rule, step_count: int, groups: Sequence[Group], slots: Slots) -> dict[str, Any]:
    """All that a resumed run needs, as copies; schedules are left out: they are code."""
    return {
        "version": VERSION,
        "rule": rule.name,
        "step_count": step_count,
        "param_groups": [
            {key: list(value) if key == "params" else value
             for key, value in group.settings.items() if not callable(value)}
            for group in groups
        ],
        "state": {
            slot.name: {"updates": slot.updates}
            | {letter: copied(array) for letter, array in slot.kept_arrays.items()}
            for slot in slots.values()
        },
    }  # fmt: skip


def check(state: Mapping[str, Any], rule: Rule, groups: Sequence[Group], slots: Slots) -> None:
    """Raise `StateError` or `HyperparameterError` unless `restore` will succeed."""
    try:
        version, name, step_count = state["version"], state["rule"], state["step_count"]
        saved_groups = [dict(saved) for saved in state["param_groups"]]
        entries = {name: dict(entry) for name, entry in state["state"].items()}
        names = [list(saved["params"]) for saved in saved_groups]
        counts = [step_count, *(entry["updates"] for entry in entries.values())]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"not a state_dict() of an optimizer: {error!r}") from None
    if not (isinstance(version, int) and version == VERSION and name == rule.name):
        raise StateError(
            f"got version {version} of rule {name!r}, expected version {VERSION} of {rule.name!r}"
        )
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise StateError("step_count and updates are whole numbers from 0")
    expected = [list(group.settings["params"]) for group in groups]
    if names != expected:
        raise StateError(f"got parameters {names}, expected {expected}")
    if set(entries) != set(slots):
        raise StateError(f"got states of {sorted(entries)}, expected {sorted(slots)}")
    for group, saved in zip(groups, saved_groups, strict=True):
        check_known(saved, group.settings)
        group.resolve(group.settings | saved, step_count)
        for slot in (slots[name] for name in group.settings["params"]):
            for letter, array in slot.kept_arrays.items():
                given: Any = entries[slot.name].get(letter)
                fits = backend_of(given) is not None and given.shape == array.shape
                if not fits or _type(given) != _type(array):
                    raise StateError(
                        f"parameter {slot.name!r}, state {letter!r}: got {describe(given)}, "
                        f"expected {array.dtype} of shape {array.shape}"
                    )


def restore(state: Mapping[str, Any], groups: Sequence[Group], slots: Slots) -> None:
    """Overwrite settings, counts and state arrays with those of a checked snapshot."""
    for group, saved in zip(groups, state["param_groups"], strict=True):
        group.settings.update({key: saved[key] for key in saved if key != "params"})
        for slot in (slots[name] for name in group.settings["params"]):
            entry = state["state"][slot.name]
            slot.updates = entry["updates"]
            slot.restart()
            for letter, array in slot.kept_arrays.items():
                copy_into(array, entry[letter])


def _type(array: Any) -> str:
    """The element type, whichever backend's name it has."""
    return kind_of(array) or str(array.dtype)
