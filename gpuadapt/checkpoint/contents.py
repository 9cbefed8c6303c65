"""What of an optimizer is in a file: tensors, settings, counts and formats."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.formats import MASTERS, NONNEGATIVE, PLAIN, ROUNDINGS, STATES, Format
from gpuadapt.kernels.language.rule import Rule

from ..errors import CheckpointError, DamagedFileError
from ..group import Group
from ..hyperparameters import plain
from ..parameter import Parameter
from ..schedules import Scaled
from ..state import VERSION, heading
from .extras import checked, decoded
from .safetensors_file import SafetensorsFile, Stored, compact, parse_json

Parameters = Mapping[str, Parameter]

PARAM, STATE, EXTRA = "param/", "state/", "extra"
"""How names of tensors begin: "param/NAME", "state/NAME/LETTER", "extra/PATH"."""

_TABLES: list[Mapping[str, Format]] = [
    PLAIN, *ROUNDINGS.values(), *MASTERS.values(), STATES, NONNEGATIVE,
]  # fmt: skip

FORMATS = {form.name: form for table in _TABLES for form in table.values()}
"""All formats, by name."""


class Formats(NamedTuple):
    """How a parameter and its states are stored."""

    parameter: Format
    states: dict[str, Format]
    """By the rule's letter."""


class Contents(NamedTuple):
    """A file, parsed; its arrays are `Stored` until they are read."""

    source: SafetensorsFile
    snapshot: dict[str, Any]
    """As of `Optimizer.state_dict`."""
    parameters: dict[str, HostArray]
    """The parameters, by name."""
    formats: dict[str, Formats]
    """By name of the parameter."""
    loss_scale: dict[str, Any] | None
    extra: Any
    """The caller's values as JSON; None if there are none."""

    def read(self, array: Any) -> Any:
        """Return the array that stands for a tensor; others as they are."""
        return self.source.array(array.name) if isinstance(array, Stored) else array

    def read_extra(self) -> Any:
        """Return the caller's values."""
        return decoded(self.extra, self.source.array)


def formats_of(parameter: Parameter) -> Formats:
    """Return how a parameter and its states are stored."""
    row = PLAIN[parameter.formats.compute]
    states = {one.letter: row if one.by_row else one.form for one in parameter.storage.states}
    return Formats(parameter.formats.parameter, states)


def letters(form: Format, letter: str) -> list[str]:
    """Return the names of a state's arrays in a snapshot."""
    return [letter] if len(form.parts) == 1 else [f"{letter}.codes", f"{letter}.scales"]


def dtypes_of(formats: Formats) -> dict[str, np.dtype]:
    """Return the dtypes in a file of a parameter's saved arrays, by their names."""
    found: dict[str, np.dtype] = {}
    for letter, form in formats.states.items():
        first = form.array_dtype("cpu")
        others = [np.dtype(dtype) for _, dtype in form.parts[1:]]
        found |= dict(zip(letters(form, letter), [first, *others], strict=True))
    return found | {name: np.dtype(dtype) for name, dtype in formats.parameter.parts[1:]}


def tensors_of(parameters: Parameters, params: bool) -> dict[str, tuple[Array, np.dtype]]:
    """Return the arrays of parameters (if ``params``) and states, with their dtypes in a file.

    Raises
    ------
    ParameterError
        An array of another library lies elsewhere now.
    """
    tensors: dict[str, tuple[Array, np.dtype]] = {}
    for name, parameter in parameters.items():
        parameter.check_place()
        if params:
            dtype = PLAIN[parameter.dtype_name].array_dtype("cpu")
            tensors[PARAM + name] = parameter.array, dtype
        dtypes = dtypes_of(formats_of(parameter))
        for letter, array in parameter.saved_arrays.items():
            tensors[f"{STATE}{name}/{letter}"] = array, dtypes[letter]
    return tensors


def metadata_of(
    rule: Rule, step_count: int, groups: Sequence[Group], parameters: Parameters
) -> dict[str, str]:
    """Return what a file has of an optimizer beside its arrays.

    Raises
    ------
    CheckpointError
        A setting, or a name, that cannot be written.
    """
    head = heading(rule, step_count, groups)
    for group, given in zip(groups, head["param_groups"], strict=True):
        for name, value in given.items():
            if name not in ("params", "schedules"):
                given[name] = _encoded(name, value)
        given["schedules"] = {name: described(group.settings[name]) for name in given["schedules"]}
    updates = {name: one.update_count for name, one in parameters.items()}
    forms = {name: formats_of(one) for name, one in parameters.items()}
    names = {
        name: [one.parameter.name, {letter: form.name for letter, form in one.states.items()}]
        for name, one in forms.items()
    }
    try:
        for name in (rule.name, *parameters):
            name.encode()
        return {
            "rule": rule.name,
            "rule_digest": rule.digest,
            "settings": compact(head["param_groups"]),
            "counts": compact({"steps": step_count, "updates": updates}),
            "formats": compact(names),
        }
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"param_groups or names cannot be written as JSON: {error}") from None


def _encoded(name: str, value: Any) -> Any:
    """Return a setting as JSON has it; infinity as a string."""
    value = plain(name, value)
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, (bool, int)) and isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else repr(number)
    return value


def _decoded(value: Any) -> Any:
    return float(value) if value in ("inf", "-inf", "nan") else value


def described(schedule: Any) -> str:
    """Describe a schedule that is code, for people: it is not saved."""
    if isinstance(schedule, Scaled):
        return f"{schedule.factor!r} times {described(schedule.schedule)}"
    if isinstance(schedule, functools.partial):
        return f"partial of {described(schedule.func)}"
    one = schedule if hasattr(schedule, "__qualname__") else type(schedule)
    return f"{one.__module__}.{one.__qualname__}"


def contents(file: SafetensorsFile) -> Contents:
    """Parse what `metadata_of` has written; reads no tensor.

    Raises
    ------
    DamagedFileError
    """
    try:
        return _contents(file)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(f"{file.path}: its metadata are wrong: {error!r}") from None


def _contents(file: SafetensorsFile) -> Contents:
    metadata = file.metadata
    counts, groups = parse_json(metadata["counts"]), parse_json(metadata["settings"])
    for given in groups:
        for name, value in given.items():
            given[name] = _decoded(value) if isinstance(value, str) else value
        if not isinstance(given["schedules"], dict):
            raise DamagedFileError("its schedules are no names")
    forms = {name: _formats(given) for name, given in parse_json(metadata["formats"]).items()}
    state: dict[str, dict[str, Any]] = {
        name: {"updates": count} for name, count in counts["updates"].items()
    }
    parameters: dict[str, HostArray] = {}
    own: set[str] = set()
    for full in file.tensors:
        tensor = file.stored(full)
        if full.startswith(STATE):
            name, _, letter = full.removeprefix(STATE).rpartition("/")
            if letter == "updates":  # a count, which is in the metadata
                raise DamagedFileError(f"it has an unknown tensor {full!r}")
            state[name][letter] = tensor
        elif full.startswith(PARAM):
            parameters[full.removeprefix(PARAM)] = tensor
        elif full == EXTRA or full.startswith(EXTRA + "/"):
            own.add(full)
        else:
            raise DamagedFileError(f"it has an unknown tensor {full!r}")
    if forms.keys() != state.keys() or (parameters and parameters.keys() != state.keys()):
        raise DamagedFileError("its parameters, formats and counts have different names")
    scale = metadata.get("loss_scale")
    snapshot = {
        "version": VERSION,
        "rule": metadata["rule"],
        "digest": metadata["rule_digest"],
        "step_count": counts["steps"],
        "param_groups": groups,
        "state": state,
    }
    extra = checked(metadata.get("extra", "null"), own)
    scale_state = None if scale is None else dict(parse_json(scale))
    return Contents(file, snapshot, parameters, forms, scale_state, extra)


def _formats(given: Any) -> Formats:
    parameter, states = given
    return Formats(FORMATS[parameter], {letter: FORMATS[name] for letter, name in states.items()})
