"""Make, check and restore snapshots of an optimizer: `state_dict`, `load_state_dict`."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from gpuadapt.kernels.array_types import Array
from gpuadapt.kernels.commit import Call
from gpuadapt.kernels.language.rule import Rule

from .arrays import (
    backend_of,
    copied,
    copy_calls,
    describe,
)
from .errors import HyperparameterError, StateError
from .group import Group
from .growth import first_rows_calls, rows_of
from .hyperparameters import FIXED, SETTINGS, check_known
from .parameter import Parameter
from .schedule_data import from_data, is_code, to_data

VERSION = 1
"""Version of the snapshots; incremented when their meaning changes."""

MAX_COUNT = 2**63
"""Exclusive limit of step and update counts, which are kept as int64."""

Parameters = Mapping[str, Parameter]

UNMARKED: tuple[str, ...] = ()
"""Names of schedules of a snapshot without that key (older versions)."""

NEVER_SCHEDULES = {*SETTINGS} - {"weight_decay", "max_row_norm"}


class Left(NamedTuple):
    """What `load_state_dict(strict=False)` did not restore; all empty if nothing is missing."""

    missing: list[str]
    """Names of parameters that the snapshot does not have."""
    unexpected: list[str]
    """Names of parameters that only the snapshot has, and "name: letter" of such states."""
    mismatched: list[str]
    """Names of parameters whose states have another shape, dtype or format."""
    longer: list[str]
    """Names of tables with more rows than in the snapshot; the first rows were restored."""
    settings: list[str]
    """Settings, for example "param_groups[0]['lr']"."""
    reasons: dict[str, str]
    """From a name in ``mismatched`` to the reason."""


class Snapshot(NamedTuple):
    """A parsed snapshot, checked as far as possible without the optimizer's parameters."""

    step_count: int
    digest: str | None
    """Digest of the rule; None in older snapshots."""
    names: list[list[str]]
    """Names of parameters, for each group."""
    settings: list[dict[str, Any]]
    updates: dict[str, int]
    arrays: dict[str, Mapping[str, Any]]
    """States by name of parameter, then letter; "updates" is among the letters."""


class Plan(NamedTuple):
    """What `restore` will write; all checks are done."""

    step_count: int
    updates: dict[str, int]
    arrays: dict[str, Mapping[str, Any]]
    """By name of parameter, for those to write."""
    rows: dict[str, int]
    """Number of rows to write, for tables that have more rows."""
    settings: list[dict[str, Any]]
    """Settings for each of the optimizer's groups."""


def snapshot(
    rule: Rule, step_count: int, groups: Sequence[Group], parameters: Parameters
) -> dict[str, Any]:
    """Copy all that a resumed run needs, except functions of the user's, which are code.

    Parameters
    ----------
    rule : Rule
    step_count : int
    groups : sequence of Group
    parameters : mapping of str to Parameter

    Returns
    -------
    dict
        ``version``, ``rule``, ``digest``, ``step_count``, ``param_groups``, ``state``.
    """
    state = {name: _entry(parameter) for name, parameter in parameters.items()}
    return heading(rule, step_count, groups) | {"state": state}


def heading(rule: Rule, step_count: int, groups: Sequence[Group]) -> dict[str, Any]:
    """Return a `snapshot` without the states."""
    return {
        "version": VERSION,
        "rule": rule.name,
        "digest": rule.digest,
        "step_count": step_count,
        "param_groups": [
            {key: to_data(value) for key, value in group.settings.items() if not is_code(value)}
            | {"params": [*group.names], "schedules": _schedules(group.settings)}
            for group in groups
        ],
    }


def _entry(parameter: Parameter) -> dict[str, Any]:
    """Return the count of updates and copies of the state arrays of a parameter."""
    saved = parameter.saved_arrays
    entry: dict[str, Any] = {"updates": parameter.update_count, **saved}
    for letter, array in saved.items():
        entry[letter] = copied(array)
    return entry


def _schedules(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that are code."""
    return [name for name, value in settings.items() if is_code(value)]


def count(name: str, value: Any) -> int:
    """Check a count: an integer of any type from 0, below MAX_COUNT.

    Raises
    ------
    StateError
    """
    number = _whole(value)
    if not 0 <= number < MAX_COUNT:
        raise StateError(
            f"{name}: got {value!r}; step_count and updates are whole numbers from 0, below 2^63"
        )
    return number


def _whole(value: Any) -> int:
    """Convert an integer of any type to int; -1 for other values."""
    try:
        return operator.index(value)
    except TypeError:
        return -1


def examined(state: Any, rule: Rule) -> Snapshot:
    """Parse a snapshot.

    Raises
    ------
    StateError
        Not a snapshot, or a snapshot of another rule.
    """
    try:
        version, name, digest = state["version"], state["rule"], state.get("digest")
        settings = [dict(given) for given in state["param_groups"]]
        names = [list(given.pop("params")) for given in settings]
        schedules = [list(given.get("schedules", ())) for given in settings]
        entries = dict(state["state"].items())
        if not {*map(type, entries.values())} <= {dict}:
            entries = {name: dict(entry) for name, entry in entries.items()}
        updates = {key: entry["updates"] for key, entry in entries.items()}
        step_count = state["step_count"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"not a state_dict() of an optimizer: {error!r}") from None
    texts = [*entries, *(one for of in names + schedules for one in of)]
    texts += [key for given in settings for key in given]
    if not all(issubclass(kind, str) for kind in {type(name), *map(type, texts)}):
        raise StateError("not a state_dict() of an optimizer: a name is no string")
    if _whole(version) != VERSION or name != rule.name:
        raise StateError(
            f"got version {version} of rule {name!r}, expected version {VERSION} of {rule.name!r}"
        )
    if digest is not None and not (isinstance(digest, str) and digest == rule.digest):
        raise StateError(f"got a rule {name!r} with other formulas than this optimizer's")
    steps = count("step_count", step_count)
    if not all(type(value) is int and 0 <= value <= steps for value in updates.values()):
        updates = {key: count(f"updates of {key!r}", value) for key, value in updates.items()}
        for key, value in updates.items():
            if value > steps:
                raise StateError(f"{key!r}: got {value} updates in {steps} steps")
    return Snapshot(steps, digest, names, settings, updates, entries)


def plan(
    parsed: Snapshot, groups: Sequence[Group], parameters: Parameters, strict: bool
) -> tuple[Plan, Left]:
    """Plan what to restore and what to leave; changes nothing.

    Parameters
    ----------
    parsed : Snapshot
    groups : sequence of Group
    parameters : mapping of str to Parameter
    strict : bool
        Raise if anything does not fit.

    Raises
    ------
    StateError, HyperparameterError
        With ``strict``, if anything does not fit. Otherwise if a parameter that is not restored has
        had more updates than the snapshot has steps.
    """
    left = Left([], [], [], [], [], {})
    planned = Plan(parsed.step_count, parsed.updates, {}, {}, [])
    members = [[*group.names] for group in groups]
    if strict:
        _check_names(parsed, members, parameters)
    settings = _saved_settings(parsed, members)
    for number, (group, saved) in enumerate(zip(groups, settings, strict=True)):
        if strict:
            planned.settings.append(_settings(group, saved or {}))
        else:
            planned.settings.append(_fitting(group, saved, number, left))
    if not strict:
        left.unexpected.extend(name for name in parsed.updates if name not in parameters)
    for name, parameter in parameters.items():
        saved_arrays = parsed.arrays.get(name)
        if saved_arrays is None:
            left.missing.append(name)
        elif not parameter.exact and _equal_kinds(saved_arrays, parameter.saved_arrays):
            planned.arrays[name] = saved_arrays
        else:
            _plan_parameter(parameter, parsed, planned, left, strict)
    if not strict:
        for name, parameter in parameters.items():
            if name not in planned.arrays and parameter.update_count > parsed.step_count:
                raise StateError(
                    f"parameter {name!r}: it is left as it is, after {parameter.update_count} "
                    f"updates, but the snapshot has {parsed.step_count} steps; load it into a new "
                    "optimizer"
                )
    return planned, left


def _check_names(parsed: Snapshot, expected: list[list[str]], parameters: Parameters) -> None:
    """Check that the groups have the expected names, in any order."""
    same = parsed.names == expected  # mostly they are in one order too
    if not same and sorted(map(sorted, parsed.names)) != sorted(map(sorted, expected)):
        raise StateError(
            f"got parameters {parsed.names}, expected {expected}; strict=False takes over what fits"
        )
    if parsed.updates.keys() != parameters.keys():
        raise StateError(f"got states of {sorted(parsed.updates)}, expected {sorted(parameters)}")


def _plan_parameter(
    parameter: Parameter, parsed: Snapshot, planned: Plan, left: Left, strict: bool
) -> None:
    """Enter a parameter into the plan, or into ``left``."""
    name, current = parameter.name, parameter.saved_arrays
    saved: dict[str, Any] = {letter: parsed.arrays[name].get(letter) for letter in current}
    unknown = [letter for letter in parsed.arrays[name] if letter not in {*current, "updates"}]
    reason, rows = None, None
    if unknown and strict:
        raise StateError(f"parameter {name!r}: got {', '.join(map(repr, unknown))} besides states")
    for letter, array in current.items():
        if backend_of(saved[letter]) is None or not _same_dtype(saved[letter], array):
            reason = _reason(name, letter, saved[letter], array)
            break
    else:
        wrong = [letter for letter, array in current.items() if saved[letter].shape != array.shape]
        if wrong:
            rows = rows_of(parameter, saved)
            longer = rows is not None and rows < len(parameter.array)
            if strict or not longer:
                rows, reason = None, _reason(name, wrong[0], saved[wrong[0]], current[wrong[0]])
                if longer:
                    reason += (
                        ": the table has more rows here; strict=False takes over the first rows, "
                        "and `grow` gives a table more rows"
                    )
    if reason is not None:
        if strict:
            raise StateError(reason)
        left.mismatched.append(name)
        left.reasons[name] = reason
        return
    left.unexpected.extend(f"{name}: {letter}" for letter in unknown)
    if rows is not None:
        left.longer.append(name)
        planned.rows[name] = rows
    planned.arrays[name] = saved


def _equal_kinds(saved: Mapping[str, Any], current: Mapping[str, Array]) -> bool:
    """True if both have the same letters, with arrays of one type, dtype and shape."""
    for letter, array in current.items():
        given: Any = saved.get(letter)
        if type(given) is not type(array):
            return False
        if given.shape != array.shape or given.dtype != array.dtype:
            return False
    return len(saved) == len(current) + 1  # and "updates"


def _reason(name: str, letter: str, given: Any, array: Any) -> str:
    return (
        f"parameter {name!r}, state {letter!r}: got {describe(given)}, expected {array.dtype} of "
        f"shape {array.shape}"
    )


def _saved_settings(
    parsed: Snapshot, members: Sequence[Sequence[str]]
) -> list[dict[str, Any] | None]:
    """Return the saved settings of groups with these names; None if they were in several groups."""
    if parsed.names == members:  # as mostly
        return [*parsed.settings]
    # The number of each name's group; None for a name that is in several.
    places: dict[str, int | None] = {}
    for number, group in enumerate(parsed.names):
        for name in group:
            places[name] = number if places.get(name, number) == number else None
    settings: list[dict[str, Any] | None] = []
    for number, names in enumerate(members):
        found = {places[name] for name in names if name in places}
        if not names and number < len(parsed.names):
            found = {number}
        place = found.pop() if len(found) == 1 else None
        settings.append(None if place is None else parsed.settings[place])
    return settings


def _settings(group: Group, saved: dict[str, Any]) -> dict[str, Any]:
    """Check the saved settings of a group and return them; the group keeps functions of its own."""
    marked, saved = _split(saved)
    check_known(saved, group.settings)
    saved = {name: _restored(name, value) for name, value in saved.items()}
    for name, value in group.settings.items():
        if is_code(value) and name in saved:
            raise StateError(
                f"{name}: the snapshot has {saved[name]!r}, this optimizer a schedule that is "
                "code. To take the former, put it into param_groups before loading; to keep the "
                f"schedule, load with strict=False, or delete {name!r} from the snapshot's "
                "param_groups"
            )
        if name == "params" or name in saved or callable(value):
            continue
        if name in marked or (marked is UNMARKED and name not in NEVER_SCHEDULES):
            what = f" ({marked[name]})" if isinstance(marked, Mapping) else ""
            raise StateError(
                f"{name}: it was a schedule{what} in the snapshot, which has no code; this "
                f"optimizer has {value!r}. Put the schedule into param_groups before loading; to "
                "keep the number, load with strict=False, or put it into the snapshot's"
            )
        if not (name in SETTINGS and SETTINGS[name] == value):
            raise StateError(f"{name}: the snapshot has no value for it, this optimizer {value!r}")
    group.resolve(group.settings | saved, None)
    return saved


def _split(saved: Mapping[str, Any]) -> tuple[Collection[str], dict[str, Any]]:
    """Split the saved settings of a group into (names of schedules, other settings).

    The names are a mapping to descriptions if the settings come from a file.
    """
    values = {name: value for name, value in saved.items() if name != "schedules"}
    if "schedules" not in saved:
        return UNMARKED, values
    marked = saved["schedules"]
    return marked if isinstance(marked, Mapping) else list(marked), values


def _restored(name: str, value: Any) -> Any:
    """Return a saved setting, schedules as objects."""
    return value if name in FIXED else from_data(name, value)


def _fitting(group: Group, saved: dict[str, Any] | None, number: int, left: Left) -> dict[str, Any]:
    """Return the saved settings that fit a group; the names of others go into ``left``."""
    if saved is None:
        return {}
    marked, saved = _split(saved)
    current = group.settings
    fitting = {}
    for name, value in saved.items():
        if name in current and name not in group.fixed and not is_code(current[name]):
            with suppress(StateError):
                fitting[name] = _restored(name, value)
    try:
        group.resolve(current | fitting, None)
    except HyperparameterError:
        fitting = {}
    unused = [
        name
        for name in saved
        if name not in fitting and not (name in group.fixed and _same(name, saved, current))
    ] + [name for name in marked if not callable(current.get(name))]
    left.settings.extend(f"param_groups[{number}][{name!r}]" for name in unused)
    return fitting


def _same(name: str, saved: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """True if both have a setting, of the same type and value."""
    if name not in current or type(saved[name]) is not type(current[name]):
        return False
    return bool(saved[name] == current[name])


def restore_calls(planned: Plan, groups: Sequence[Group], parameters: Parameters) -> list[Call]:
    """The calls that write a plan; see `kernels.commit`."""
    calls: list[Call] = []
    for group, settings in zip(groups, planned.settings, strict=True):
        calls.append((group.settings.update, settings))
    for name, saved in planned.arrays.items():
        parameter = parameters[name]
        calls.append(parameter.recount_call(planned.updates[name]))
        if name in planned.rows:
            calls += first_rows_calls(parameter, saved, planned.rows[name])
            continue
        for letter, array in parameter.saved_arrays.items():
            calls += copy_calls(array, saved[letter])
    return calls


def _same_dtype(given: Array, array: Array) -> bool:
    """True if two arrays have one dtype; CuPy and NumPy's files have the bits of `ml_dtypes`."""
    extended = [one.dtype.isbuiltin == 2 for one in (given, array)]
    bits = [
        one.dtype == f"V{one.itemsize}" or (backend_of(one) == "cuda" and one.dtype.kind == "u")
        for one in (given, array)
    ]
    return bool(
        given.dtype == array.dtype
        or (given.itemsize == array.itemsize and any(bits) and all(map(max, bits, extended)))
    )
