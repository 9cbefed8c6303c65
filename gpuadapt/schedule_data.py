"""Schedules as plain data (dict, list, str, numbers), which snapshots and files keep."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .errors import HyperparameterError, StateError
from .schedules import (
    Constant,
    Cosine,
    Exponential,
    Join,
    Linear,
    OneCycle,
    Piecewise,
    Polynomial,
    Scaled,
    Schedule,
    WarmUp,
)

KEY = "kind"
"""The key of a schedule's kind; the other keys are its fields."""

KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Constant, Cosine, Exponential, Join, Linear, OneCycle, Piecewise, Polynomial, Scaled,
        WarmUp,
    )
}  # fmt: skip


def is_code(value: Any) -> bool:
    """True if a setting is, or calls, a function that cannot be written as data."""
    if not callable(value):
        return False
    if KINDS.get(type(value).__name__) is not type(value):  # a subclass is the user's
        return True
    parts = [getattr(value, field.name) for field in fields(value)]
    return any(any(map(is_code, part if isinstance(part, tuple) else (part,))) for part in parts)


def to_data(value: Any) -> Any:
    """Return a schedule as a dict of its kind and fields; other values as they are.

    Parameters
    ----------
    value
        `is_code` is False for it.
    """
    if not isinstance(value, Schedule):
        return value
    data: dict[str, Any] = {KEY: type(value).__name__}
    for field in fields(value):  # type: ignore[arg-type]
        part = getattr(value, field.name)
        data[field.name] = [*map(to_data, part)] if isinstance(part, tuple) else to_data(part)
    return data


def from_data(name: str, data: Any) -> Any:
    """Return the schedule that `to_data` has written; other values as they are.

    Parameters
    ----------
    name : str
        The setting, for messages.
    data

    Raises
    ------
    StateError
        The kind is not known, or its fields are wrong.
    """
    if not isinstance(data, Mapping):
        return data
    try:
        return _made(data)
    except (HyperparameterError, TypeError, KeyError, RecursionError) as error:
        raise StateError(
            f"{name}: the snapshot has {reprlib.repr(dict(data))}, which is no schedule that this "
            f"version of gpuadapt knows ({error}). Load it with the version that wrote it, or with "
            f"strict=False, which keeps this optimizer's {name}"
        ) from None


def _made(data: Any) -> Any:
    if isinstance(data, list):
        return [*map(_made, data)]
    if not isinstance(data, Mapping):
        return data
    given = dict(data)
    kind = KINDS.get(str(given.pop(KEY)))
    if kind is None:
        raise KeyError(f"no kind {data[KEY]!r}, but {', '.join(KINDS)}")
    return kind(**{key: _made(value) for key, value in given.items()})
