"""The containers that were passed as parameters: whether they still hold the same arrays.

Who writes ``params["w"] = new`` has another array than the one that is updated.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, MutableSequence, Sequence, ValuesView
from operator import is_
from typing import Any, NamedTuple

from .arrays import backend_of
from .construct import are_groups
from .errors import ParameterError
from .tree import Place, opened

Held = list[tuple[Any, tuple[Any, ...]]]
"""Iterables of what containers hold now, and what they held before."""


class Passed(NamedTuple):
    """What was passed in one call, and the structure of each group in it."""

    given: Any
    templates: list[Place]


def held(given: Any) -> Held:
    """What can be looked at again of a container, and what it holds: dicts, lists and their views.

    Of a group, its settings too.
    """
    found: Held = []
    if backend_of(given) is not None:
        return found
    parts: Sequence[Any] = ()
    if isinstance(given, ItemsView):
        given = getattr(given, "mapping", None)
    if isinstance(given, (Mapping, ValuesView)):
        values = given.values() if isinstance(given, Mapping) else given
        parts = tuple(values)
        if isinstance(values, ValuesView):
            found.append((values, tuple(parts)))
    elif isinstance(given, MutableSequence):
        parts = tuple(given)
        found.append((given, parts))
    elif isinstance(given, tuple):
        parts = given
    return found + [one for part in parts for one in held(part)]


def all_held(passed: Sequence[Passed]) -> Held:
    """As `held`, of all that was passed."""
    return [found for one in passed for found in held(one.given)]


def unchanged(before: Held) -> bool:
    """Whether all of it holds the same objects, of those that are left; more may have come."""
    for now, then in before:  # noqa: SIM110  (in every step: a generator would cost as much again)
        if not all(map(is_, now, then)):
            return False
    return True


def replaced(passed: Passed, arrays: Mapping[str, Any]) -> str | None:
    """The first parameter in whose place another object is now; None if there is none."""
    shares = [passed.given]
    if are_groups(passed.given):
        shares = [group["params"] for group in passed.given]
    for template, share in zip(passed.templates, shares, strict=False):
        name = _replaced(template, share, arrays)
        if name is not None:
            return name
    return None


def _replaced(place: Place, now: Any, arrays: Mapping[str, Any]) -> str | None:
    if isinstance(place, str):
        return None if now is arrays[place] else place
    if isinstance(now, Iterator):  # it has been read
        return None
    inside = opened(now)
    if inside is None or (inside[0] is None) != (place.keys is None):
        return next(iter(_names(place)), None)
    keys, parts = inside
    left = range(len(parts)) if keys is None else keys
    there = dict(zip(left, parts, strict=True))
    for key, part in zip(place.keys or range(len(place.parts)), place.parts, strict=True):
        name = _replaced(part, there[key], arrays) if key in there else None
        if name is not None:
            return name
    return None


def _names(place: Place) -> list[str]:
    if isinstance(place, str):
        return [place]
    return [name for part in place.parts for name in _names(part)]


def look(
    passed: Sequence[Passed], arrays: Mapping[str, Any], grown: frozenset[str]
) -> tuple[list[Passed], Held]:
    """What is to be watched from now on.

    Parameters
    ----------
    arrays : mapping
        The parameters by name.
    grown : frozenset of str
        Those that have been given another array. A container that does not have it is not watched
        any more.

    Raises
    ------
    ParameterError
        Another array is in a parameter's place.
    """
    kept = []
    for one in passed:
        name = replaced(one, arrays)
        if name is None:
            kept.append(one)
        elif name not in grown:
            raise ParameterError(
                f"parameter {name!r}: what was passed as params has another object in this place "
                "now, but the optimizer updates the array that was there before. Write into that "
                "array (array[...] = new; `params` has it), make a new optimizer, or give a table "
                "more rows by `grow`"
            )
    return kept, all_held(kept)


def portable(passed: Sequence[Passed], before: Held | None) -> list[Passed]:
    """Those that a copy can have: of dicts, lists and tuples, with nothing besides parameters."""
    if (
        before is None
        or not unchanged(before)
        or any(len(now) != len(then) for now, then in before)
    ):
        return []
    return [one for one in passed if _is_plain(one.given)]


def _is_plain(given: Any) -> bool:
    if isinstance(given, (Iterator, ValuesView, ItemsView)):
        return False
    parts = given.values() if isinstance(given, Mapping) else given
    containers = isinstance(given, (dict, list, tuple))
    return containers and all(
        backend_of(part) is not None or not _is_container(part) or _is_plain(part) for part in parts
    )


def _is_container(given: Any) -> bool:
    return isinstance(given, (Mapping, Sequence, Iterator, ValuesView, ItemsView)) and not (
        isinstance(given, (str, bytes))
    )
