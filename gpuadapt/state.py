"""Snapshots of an optimizer: made, checked, restored."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpuadapt.kernels.array_types import Array
from gpuadapt.kernels.language.rule import Rule

from .arrays import (
    backend_of,
    bits_of,
    copied,
    copy_into,
    describe,
    namespace,
    on_device,
)
from .errors import HyperparameterError, StateError
from .group import Group
from .growth import put_first, rows_of
from .hyperparameters import FIXED, SETTINGS, check_known
from .parameter import Parameter

VERSION = 1
"""Raised when the meaning of a snapshot changes."""

MOST = 2**53
"""Counts are below it: kernels have them as float64."""

MOST_EXACT = 2**31 - 2**20
"""The same of tables of exact rows, which keep 32 bits of it."""

Parameters = Mapping[str, Parameter]

UNMARKED: tuple[str, ...] = ()
"""In the place of the names of schedules, which snapshots of before do not have."""

NEVER_SCHEDULES = {*SETTINGS} - {"weight_decay", "max_row_norm"}


class Left(NamedTuple):
    """What `load_state_dict` has left as it was; all empty if everything was taken over."""

    missing: list[str]
    """Parameters of the optimizer that the snapshot does not have."""
    unexpected: list[str]
    """Parameters of the snapshot that the optimizer does not have, and "name: letter" of states."""
    mismatched: list[str]
    """Parameters of another shape or element type, or with states in other formats."""
    longer: list[str]
    """Tables with more rows than in the snapshot: the first rows were taken over."""
    settings: list[str]
    """Settings of groups, as "param_groups[0]['lr']"."""
    reasons: dict[str, str]
    """Why, by the names in ``mismatched``."""


class Snapshot(NamedTuple):
    """What `state_dict` gave, looked at without regard to the optimizer."""

    step_count: int
    digest: str | None
    """Of the rule; snapshots of before have none."""
    names: list[list[str]]
    """The parameters of each group."""
    settings: list[dict[str, Any]]
    updates: dict[str, int]
    arrays: dict[str, dict[str, Any]]
    """By parameter and letter."""


class Plan(NamedTuple):
    """What is to be written; nothing of it can fail any more."""

    step_count: int
    updates: dict[str, int]
    arrays: dict[str, dict[str, Any]]
    rows: dict[str, int]
    """How many rows these arrays have, of tables that have more."""
    settings: list[dict[str, Any]]
    """Of each of the optimizer's groups."""


def snapshot(
    rule: Rule, step_count: int, groups: Sequence[Group], parameters: Parameters
) -> dict[str, Any]:
    """All that a resumed run needs, as copies; schedules are left out: they are code."""
    members = _members(groups, parameters)
    return {
        "version": VERSION,
        "rule": rule.name,
        "digest": rule.digest,
        "step_count": step_count,
        "param_groups": [
            {key: value for key, value in group.settings.items() if not callable(value)}
            | {"params": names, "schedules": _schedules(group.settings)}
            for group, names in zip(groups, members, strict=True)
        ],
        "state": {
            parameter.name: {"updates": parameter.update_count}
            | {letter: copied(array) for letter, array in parameter.saved_arrays.items()}
            for parameter in parameters.values()
        },
    }


def _schedules(settings: Mapping[str, Any]) -> list[str]:
    """The names of settings that are schedules, which are code and so not in a snapshot."""
    return [name for name, value in settings.items() if callable(value)]


def _members(groups: Sequence[Group], parameters: Parameters) -> list[list[str]]:
    """The names of each group's parameters."""
    members: list[list[str]] = [[] for _ in groups]
    for name, parameter in parameters.items():
        members[parameter.group].append(name)
    return members


def count(name: str, value: Any) -> int:
    """A whole number from 0, of any integer type.

    Raises
    ------
    StateError
    """
    number = _whole(value)
    if not 0 <= number < MOST:
        raise StateError(
            f"{name}: got {value!r}; step_count and updates are whole numbers from 0, below 2^53"
        )
    return number


def _whole(value: Any) -> int:
    """A number of any integer type; -1 for what is none."""
    try:
        return operator.index(value)
    except TypeError:
        return -1


def examined(state: Any, rule: Rule) -> Snapshot:
    """A snapshot of a rule, looked at.

    Raises
    ------
    StateError
        It is none, or of another rule.
    """
    try:
        version, name, digest = state["version"], state["rule"], state.get("digest")
        settings = [dict(given) for given in state["param_groups"]]
        names = [list(given.pop("params")) for given in settings]
        schedules = [list(given.get("schedules", ())) for given in settings]
        entries = {name: dict(entry) for name, entry in state["state"].items()}
        counts = {key: entry.pop("updates") for key, entry in entries.items()}
        step_count = state["step_count"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"not a state_dict() of an optimizer: {error!r}") from None
    texts = [*entries, *(one for of in names + schedules for one in of)]
    texts += [key for given in settings for key in given]
    if not all(isinstance(text, str) for text in [name, *texts]):
        raise StateError("not a state_dict() of an optimizer: a name is no string")
    if _whole(version) != VERSION or name != rule.name:
        raise StateError(
            f"got version {version} of rule {name!r}, expected version {VERSION} of {rule.name!r}"
        )
    if digest is not None and not (isinstance(digest, str) and digest == rule.digest):
        raise StateError(f"got a rule {name!r} with other formulas than this optimizer's")
    found = Snapshot(
        count("step_count", step_count), digest, names, settings,
        {key: count(f"updates of {key!r}", value) for key, value in counts.items()}, entries,
    )  # fmt: skip
    for key, updates in found.updates.items():
        if updates > found.step_count:
            raise StateError(f"{key!r}: got {updates} updates in {found.step_count} steps")
    return found


def plan(
    found: Snapshot, groups: Sequence[Group], parameters: Parameters, strict: bool
) -> tuple[Plan, Left]:
    """What is to be taken over of a snapshot, and what is left; nothing is changed.

    Raises
    ------
    StateError, HyperparameterError
        With ``strict``, if anything would be left. Otherwise if a parameter that is left has had
        more updates than the snapshot has steps.
    """
    left = Left([], [], [], [], [], {})
    taken = Plan(found.step_count, {}, {}, {}, [])
    if strict:
        _check_names(found, groups, parameters)
    for number, (group, names) in enumerate(zip(groups, _members(groups, parameters), strict=True)):
        saved = _saved(names, found, number)
        if strict:
            taken.settings.append(_settings(group, saved or {}))
        else:
            taken.settings.append(_fitting(group, saved, number, left))
    left.missing.extend(name for name in parameters if name not in found.updates)
    left.unexpected.extend(name for name in found.updates if name not in parameters)
    for name in [name for name in parameters if name in found.updates]:
        _plan_parameter(parameters[name], found, taken, left, strict)
    if not strict:
        for name, parameter in parameters.items():
            if name not in taken.updates and parameter.update_count > found.step_count:
                raise StateError(
                    f"parameter {name!r}: it is left as it is, after {parameter.update_count} "
                    f"updates, but the snapshot has {found.step_count} steps; load it into a new "
                    "optimizer"
                )
    return taken, left


def _check_names(found: Snapshot, groups: Sequence[Group], parameters: Parameters) -> None:
    """Groups may come in another order, and names in a group."""
    expected = _members(groups, parameters)
    if sorted(map(sorted, found.names)) != sorted(map(sorted, expected)):
        raise StateError(
            f"got parameters {found.names}, expected {expected}; strict=False takes over what fits"
        )
    if found.updates.keys() != parameters.keys():
        raise StateError(f"got states of {sorted(found.updates)}, expected {sorted(parameters)}")


def _plan_parameter(
    parameter: Parameter, found: Snapshot, taken: Plan, left: Left, strict: bool
) -> None:
    """Take over the states of a parameter, or leave it."""
    name, kept = parameter.name, parameter.saved_arrays
    given: dict[str, Any] = {letter: found.arrays[name].get(letter) for letter in kept}
    unknown = [letter for letter in found.arrays[name] if letter not in kept]
    reason, rows = None, None
    if unknown and strict:
        raise StateError(f"parameter {name!r}: got {', '.join(map(repr, unknown))} besides states")
    for letter, array in kept.items():
        one = given[letter]
        if backend_of(one) is None or not _same_dtype(one, array):
            reason = _reason(name, letter, one, array)
            break
    else:
        wrong = [letter for letter, array in kept.items() if given[letter].shape != array.shape]
        if wrong:
            rows = rows_of(parameter, given)
            longer = rows is not None and rows < len(parameter.array)
            if strict or not longer:
                rows, reason = None, _reason(name, wrong[0], given[wrong[0]], kept[wrong[0]])
                if longer:
                    reason += (
                        ": the table has more rows here; strict=False takes over the first rows, "
                        "and `grow` gives a table more rows"
                    )
    updates = found.updates[name]
    if reason is None and parameter.exact and updates >= MOST_EXACT:
        reason = f"parameter {name!r}: {updates} updates are more than exact rows can have"
    if reason is not None:
        if strict:
            raise StateError(reason)
        left.mismatched.append(name)
        left.reasons[name] = reason
        return
    left.unexpected.extend(f"{name}: {letter}" for letter in unknown)
    if rows is not None:
        left.longer.append(name)
        taken.rows[name] = rows
    taken.updates[name] = updates
    taken.arrays[name] = {letter: _brought(one, parameter) for letter, one in given.items()}


def _reason(name: str, letter: str, given: Any, array: Any) -> str:
    return (
        f"parameter {name!r}, state {letter!r}: got {describe(given)}, expected {array.dtype} of "
        f"shape {array.shape}"
    )


def _brought(array: Any, parameter: Parameter) -> Any:
    """An array where the parameter is: what may fail does so before anything is written."""
    if backend_of(array) == parameter.backend:
        return array
    with on_device(parameter.array):
        return (
            array.get() if parameter.backend == "cpu" else namespace("cuda").asarray(bits_of(array))
        )


def _saved(names: list[str], found: Snapshot, number: int) -> dict[str, Any] | None:
    """The settings of the group that parameters were in; None if they were in several."""
    places = {k for k, of in enumerate(found.names) if any(name in of for name in names)}
    if not names and number < len(found.names):
        places = {number}
    return found.settings[places.pop()] if len(places) == 1 else None


def _settings(group: Group, saved: dict[str, Any]) -> dict[str, Any]:
    """All settings of a group from a snapshot, checked; schedules that it does not have stay."""
    marked, saved = _parted(saved)
    check_known(saved, group.settings)
    for name, value in group.settings.items():
        if callable(value) and name in saved:
            raise StateError(
                f"{name}: the snapshot has {saved[name]!r}, this optimizer a schedule. To take the "
                f"number, put it into param_groups before loading; to keep the schedule, delete "
                f"{name!r} from the snapshot's param_groups"
            )
        if name == "params" or name in saved or callable(value):
            continue
        if name in marked or (marked is UNMARKED and name not in NEVER_SCHEDULES):
            raise StateError(
                f"{name}: it was a schedule in the snapshot, which has no code; this optimizer has "
                f"{value!r}. Put the schedule into param_groups before loading, or the number "
                "into the snapshot's"
            )
        if not (name in SETTINGS and SETTINGS[name] == value):
            raise StateError(f"{name}: the snapshot has no value for it, this optimizer {value!r}")
    group.resolve(group.settings | saved, None)
    return saved


def _parted(saved: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, Any]]:
    """The names of a saved group's schedules, and the values of its other settings."""
    values = {name: value for name, value in saved.items() if name != "schedules"}
    return list(saved["schedules"]) if "schedules" in saved else UNMARKED, values


def _fitting(group: Group, saved: dict[str, Any] | None, number: int, left: Left) -> dict[str, Any]:
    """Those settings of a group that it can take over."""
    if saved is None:
        return {}
    marked, saved = _parted(saved)
    now = group.settings
    kept = {
        name: value
        for name, value in saved.items()
        if name in now and name not in FIXED and not callable(now[name])
    }
    try:
        group.resolve(now | kept, None)
    except HyperparameterError:
        kept = {}
    gone = [
        name
        for name in saved
        if name not in kept and not (name in FIXED and _same(name, saved, now))
    ] + [name for name in marked if not callable(now.get(name))]
    left.settings.extend(f"param_groups[{number}][{name!r}]" for name in gone)
    return kept


def _same(name: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return name in now and type(saved[name]) is type(now[name]) and bool(saved[name] == now[name])


def restore(taken: Plan, groups: Sequence[Group], parameters: Parameters) -> None:
    """Write what is planned; as often as it takes, it comes to the same."""
    for group, settings in zip(groups, taken.settings, strict=True):
        group.settings.update(settings)
    for name, updates in taken.updates.items():
        parameter = parameters[name]
        parameter.update_count = updates
        parameter.drop_history()
        if name in taken.rows:
            put_first(parameter, taken.arrays[name], taken.rows[name])
            continue
        for letter, array in parameter.saved_arrays.items():
            copy_into(array, taken.arrays[name][letter])


def _same_dtype(given: Array, array: Array) -> bool:
    """Whether two arrays have one dtype; CuPy and NumPy's files have the bits of `ml_dtypes`."""
    extended = [one.dtype.isbuiltin == 2 for one in (given, array)]
    bits = [
        one.dtype == f"V{one.itemsize}" or (backend_of(one) == "cuda" and one.dtype.kind == "u")
        for one in (given, array)
    ]
    return bool(
        given.dtype == array.dtype
        or (given.itemsize == array.itemsize and any(bits) and all(map(max, bits, extended)))
    )
