"""What of a file goes where: names, formats, parameters; all checks of a load."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.formats import Format
from gpuadapt.kernels.language.rule import Rule

from ..arrays import describe
from ..errors import ParameterError, StateError
from ..group import Group
from ..parameter import Parameter
from ..state import Left, Plan, examined, plan
from .contents import Contents, Formats, formats_of, letters
from .safetensors_file import Stored

Parameters = Mapping[str, Parameter]

STORED = ("state_dtype", "master", "rounding")
"""Settings that say how numbers are stored."""

LARGEST8 = float(np.uint32(0x7F700000).view(np.float32))
"""The largest number of 8-bit formats."""


class Wanted(NamedTuple):
    """The arguments of `Optimizer.load`."""

    strict: bool
    rename: Mapping[str, str] | None
    only: Collection[str] | None
    params: bool
    convert: bool


def match(
    file: Contents,
    rule: Rule,
    groups: Sequence[Group],
    parameters: Parameters,
    wanted: Wanted,
    whole: bool,
) -> tuple[Plan, dict[str, HostArray], Left]:
    """Plan what to load; changes nothing.

    Parameters
    ----------
    file : Contents
    rule : Rule
    groups : sequence of Group
    parameters : mapping of str to Parameter
    wanted : Wanted
    whole : bool
        Loss scale and extra values of the file are used.

    Returns
    -------
    plan : Plan
    given : dict of str to ndarray
        Numbers of parameters, by name; those of the first rows if ``plan.rows`` has the name.
    left : Left

    Raises
    ------
    StateError, HyperparameterError, ParameterError
    """
    _check(wanted)
    file = _renamed(file, wanted.rename or {})
    chosen = parameters
    if wanted.only is not None:
        chosen, file = _selected(file, parameters, wanted.only)
    examined(file.snapshot, rule)
    refused: dict[str, str] = {}
    for name in [name for name in chosen if name in file.formats]:
        reason = _fit_formats(file, chosen[name], groups, wanted)
        if reason is not None:
            if wanted.strict:
                raise StateError(reason)
            refused[name] = reason
            del file.snapshot["state"][name]
    every = wanted.strict and wanted.only is None
    planned, left = plan(examined(file.snapshot, rule), groups, chosen, every)
    for name, reason in refused.items():
        left.missing.remove(name)
        left.mismatched.append(name)
        left.reasons[name] = reason
    given = _numbers(file, chosen, planned, left, wanted) if wanted.params else {}
    _check_counts(parameters, planned)
    if not whole:
        unused = {"loss_scale": file.loss_scale is not None, "extra": file.extra is not None}
        left.unexpected.extend(name for name, there in unused.items() if there)
    if wanted.strict and any(left):
        raise StateError(f"the file does not fit: {_listed(left)}; strict=False loads the rest")
    return planned, given, left


def _check(wanted: Wanted) -> None:
    for name in ("strict", "params", "convert"):
        if not isinstance(getattr(wanted, name), bool):
            raise StateError(f"{name}: got {getattr(wanted, name)!r}, expected a bool")
    if wanted.rename is not None and not isinstance(wanted.rename, Mapping):
        raise StateError(f"rename: got {wanted.rename!r}, expected a dict from names in the file")
    if isinstance(wanted.only, str):
        raise StateError(f"only: got {wanted.only!r}, expected a list or set of names")


def _listed(left: Left) -> str:
    """Say what is left, in an error."""
    fields = [f"{name} {value}" for name, value in left._asdict().items() if value]
    hint = "; gpuadapt.load reads loss scale and extra values" if {
        "loss_scale", "extra"
    } & {*left.unexpected} else ""  # fmt: skip
    return ", ".join(fields) + hint


def _renamed(file: Contents, rename: Mapping[str, str]) -> Contents:
    """Return a file with other names of parameters; a copy of what `match` changes."""
    state = file.snapshot["state"]
    for old in rename:
        if old not in state:
            raise StateError(f"rename: the file has no parameter {old!r}, but {', '.join(state)}")
    new = {name: rename.get(name, name) for name in state}
    if len({*new.values()}) != len(new):
        raise StateError("rename: two parameters of the file would have one name")
    settings = [
        {**one, "params": [new.get(name, name) for name in one["params"]]}
        for one in file.snapshot["param_groups"]
    ]
    renamed = {new[name]: dict(entry) for name, entry in state.items()}
    return file._replace(
        snapshot={**file.snapshot, "param_groups": settings, "state": renamed},
        parameters={new[name]: array for name, array in file.parameters.items()},
        formats={new[name]: forms for name, forms in file.formats.items()},
    )


def _selected(
    file: Contents, parameters: Parameters, only: Collection[str]
) -> tuple[Parameters, Contents]:
    """Return the parameters of some names, and a file with these alone."""
    names = {*only}
    for name in only:
        if name not in parameters:
            raise ParameterError(f"only: no parameter {name!r}; there are {', '.join(parameters)}")
    state = {name: one for name, one in file.snapshot["state"].items() if name in names}
    file = file._replace(snapshot={**file.snapshot, "state": state})
    return {name: one for name, one in parameters.items() if name in names}, file


def _alike(one: Format, other: Format) -> bool:
    """Return whether two formats have the same bits for the same number."""
    return one == other or (len(one.parts) == len(other.parts) == 1 and one.dtype == other.dtype)


def _fit_formats(
    file: Contents, parameter: Parameter, groups: Sequence[Group], wanted: Wanted
) -> str | None:
    """Convert what the file has of a parameter; the reason if it has other formats that stay."""
    name = parameter.name
    theirs, ours = file.formats[name], formats_of(parameter)
    if theirs.states.keys() != ours.states.keys():
        return f"parameter {name!r}: the file has states {[*theirs.states]}"
    changed = [letter for letter in ours.states
               if not _alike(theirs.states[letter], ours.states[letter])]  # fmt: skip
    changes = not _alike(theirs.parameter, ours.parameter)
    said = f"parameter {name!r}: the file has {_said(theirs)}, this optimizer {_said(ours)}"
    if not wanted.convert:
        return f"{said}; convert=True converts" if changed or changes else None
    if changes and not (wanted.params and name in file.parameters):
        return f"{said}; only a file with the parameters, and params=True, can be converted"
    entry = file.snapshot["state"][name]
    for array in (file.parameters.get(name), *entry.values()):
        if isinstance(array, Stored) and array.size > max(1, parameter.array.size):
            return f"{said}, of shape {parameter.shape}; the file has an array of {array.shape}"
    settings = groups[parameter.group].settings
    for one in file.snapshot["param_groups"]:
        if name in one["params"]:
            one.update({key: settings[key] for key in STORED})
    try:
        for letter in changed:
            for one in letters(theirs.states[letter], letter):
                entry[one] = file.read(entry[one])
            _convert(entry, letter, theirs.states[letter], ours.states[letter], parameter)
        if changes:
            arrays = [file.parameters[name]]
            arrays += [entry.pop(part) for part, _ in theirs.parameter.parts[1:]]
            arrays = [*map(file.read, arrays)]
            numbers = theirs.parameter.decode(arrays).astype(parameter.compute_dtype)
            parts = ours.parameter.encode(numbers)
            file.parameters[name] = _typed(parts[0], ours.parameter)
            rest = zip(ours.parameter.parts[1:], parts[1:], strict=True)
            entry.update({part: array for (part, _), array in rest})
    except (KeyError, ValueError, IndexError) as error:
        return f"{said}; the file's arrays do not fit its formats: {error!r}"
    return None


def _said(formats: Formats) -> str:
    states = ", ".join(f"{letter} {form.name!r}" for letter, form in formats.states.items())
    return f"{formats.parameter.name!r} with states {states or 'none'}"


def _convert(
    entry: dict[str, Any], letter: str, theirs: Format, ours: Format, parameter: Parameter
) -> None:
    """Convert a state in a snapshot."""
    arrays = [entry.pop(name) for name in letters(theirs, letter)]
    numbers = theirs.decode(arrays).astype(parameter.compute_dtype)
    if ours.block:  # which has no codes for others; as a step stores them
        numbers = np.nan_to_num(numbers, nan=0.0, posinf=LARGEST8, neginf=-LARGEST8)
        numbers = numbers.clip(-LARGEST8, LARGEST8)
    parts = ours.encode(numbers)
    parts[0] = _typed(parts[0], ours)
    entry.update(zip(letters(ours, letter), parts, strict=True))


def _typed(array: HostArray, form: Format) -> HostArray:
    """Return the first part of a format in the dtype that users see."""
    return array.view(form.array_dtype("cpu"))


def _numbers(
    file: Contents, chosen: Parameters, planned: Plan, left: Left, wanted: Wanted
) -> dict[str, HostArray]:
    """Return the parameters to write; drops from the plan what does not fit."""
    given: dict[str, HostArray] = {}
    for name in [name for name in planned.arrays if name in file.parameters]:
        parameter, array = chosen[name], file.parameters[name]
        rows = len(array) if array.shape[1:] == parameter.shape[1:] and array.shape else None
        fits = array.dtype == _typed_dtype(parameter)
        longer = rows is not None and bool(parameter.shape) and rows < len(parameter.array)
        if fits and longer and not wanted.strict and not parameter.saved_arrays:
            planned.rows[name] = rows or 0
            left.longer.append(name)
        expected = parameter.shape
        if name in planned.rows:
            expected = (planned.rows[name], *parameter.shape[1:])
        if not (fits and array.shape == expected):
            wrong, dtype = describe(array), _typed_dtype(parameter)
            reason = f"parameter {name!r}: got {wrong}, expected {dtype} of shape {expected}"
            if wanted.strict:
                raise StateError(reason)
            left.mismatched.append(name)
            left.reasons[name] = reason
            del planned.arrays[name]
            continue
        parameter.check_writable()
        given[name] = array
    return given


def _typed_dtype(parameter: Parameter) -> np.dtype:
    return parameter.formats.parameter.array_dtype("cpu")


def _check_counts(parameters: Parameters, planned: Plan) -> None:
    """Refuse fewer steps than a parameter that is left as it is has had updates."""
    for name, parameter in parameters.items():
        if name not in planned.arrays and parameter.update_count > planned.step_count:
            raise StateError(
                f"parameter {name!r}: it is left as it is, after {parameter.update_count} updates, "
                f"but the file has {planned.step_count} steps; load it into a new optimizer"
            )
