"""Watch the containers that were passed as parameters: do they still hold the same arrays?

After ``params["w"] = new`` the optimizer would update an array that the user no longer has.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, MutableSequence, Sequence, ValuesView
from operator import is_
from typing import Any, NamedTuple

from .arrays import backend_of
from .construct import are_groups
from .errors import ParameterError
from .foreign import LEAVES
from .tree import Place, opened

Contents = list[tuple[Any, tuple[Any, ...]]]
"""Pairs of (iterable over a container, the objects that were in it)."""


class Passed(NamedTuple):
    """The argument of one call (constructor or `add`), and the structure of each group in it."""

    given: Any
    templates: list[Place]


def contents(given: Any) -> Contents:
    """List the contents of nested dicts, lists and their views; a group's settings included."""
    found: Contents = []
    _find_contents(given, found)
    return found


def _find_contents(given: Any, found: Contents) -> None:
    """Append the contents of a container, and of those in it, to ``found``."""
    parts: Sequence[Any] = ()
    if isinstance(given, ItemsView):
        given = getattr(given, "mapping", None)
    if isinstance(given, (Mapping, ValuesView)):
        values = given.values() if isinstance(given, Mapping) else given
        parts = tuple(values)
        if isinstance(values, ValuesView):
            found.append((values, tuple(parts)))
    elif isinstance(given, MutableSequence) and not isinstance(given, LEAVES):
        parts = tuple(given)
        found.append((given, parts))
    elif isinstance(given, tuple):
        parts = given
    for part in parts:
        if backend_of(part) is None:
            _find_contents(part, found)


def all_contents(passed: Sequence[Passed]) -> Contents:
    """Concatenate `contents` of all calls."""
    return [found for one in passed for found in contents(one.given)]


def unchanged(before: Contents) -> bool:
    """Return True if the containers hold the same objects; they may have become longer or shorter.

    Parameters
    ----------
    before : list
        The result of `contents`.
    """
    for now, then in before:  # noqa: SIM110  (in every step: a generator would cost as much again)
        if not all(map(is_, now, then)):
            return False
    return True


def replaced(passed: Passed, arrays: Mapping[str, Any]) -> str | None:
    """Return the name of the first parameter that was replaced by another object, or None.

    Parameters
    ----------
    passed : Passed
    arrays : mapping
        The optimizer's parameters by name.
    """
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
) -> tuple[list[Passed], Contents]:
    """Check all containers and return those to watch from now on, with their contents.

    Parameters
    ----------
    passed : sequence of Passed
    arrays : mapping
        The optimizer's parameters by name.
    grown : frozenset of str
        Parameters that `grow` has given another array. A container without that array is no longer
        watched.

    Raises
    ------
    ParameterError
        A container holds another object instead of a parameter.
    """
    watched = []
    for one in passed:
        name = replaced(one, arrays)
        if name is None:
            watched.append(one)
        elif name not in grown:
            raise ParameterError(
                f"parameter {name!r}: the params that were passed hold another object there now, "
                "but the optimizer updates the array that was there before. Write into that array "
                "(array[...] = new; `params` has it), make a new optimizer, or give a table more "
                "rows by `grow`"
            )
    return watched, all_contents(watched)


def portable(passed: Sequence[Passed], before: Contents | None) -> list[Passed]:
    """Return the containers that a copy can watch: unchanged dicts, lists and tuples of parameters.

    Parameters
    ----------
    passed : sequence of Passed
    before : list or None
        The result of `all_contents`.
    """
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
        isinstance(given, LEAVES)
    )
