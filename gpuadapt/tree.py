"""Flatten nested dicts, lists, tuples and iterators of arrays; an array is named by its path.

Parameters are read once. Gradients have the same structure, or are a dict by name.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from typing import Any, NamedTuple

from .arrays import backend_of, describe
from .errors import GradientError, ParameterError
from .foreign import LEAVES, offers_memory
from .row_indices import advice


class Branch(NamedTuple):
    """A container in the structure of the parameters."""

    path: str
    """Path of the container; "" for the outermost."""
    keys: list[str] | None
    """Keys of a dict, named tuple or (name, array) pairs; None for a list or tuple."""
    parts: list[Place]
    ordered: bool
    """True if gradients may be a list."""
    flat: bool
    """True if all parts are arrays."""
    size: int
    """Number of arrays, nested ones included."""


Place = Branch | str
"""A container, or the name of an array: a node of the structure."""


def branch(path: str, keys: list[str] | None, parts: list[Place], ordered: bool = True) -> Branch:
    """Make a `Branch`; flat and size follow from the parts."""
    nested = [part for part in parts if isinstance(part, Branch)]
    size = len(parts) + sum(part.size - 1 for part in nested)
    return Branch(path, keys, parts, ordered, not nested, size)


def opened(given: Any) -> tuple[list[Any] | None, list[Any]] | None:
    """Return (keys, parts) of a container, read once; keys are None for a list or tuple.

    Return None if ``given`` is no container. The names of (name, array) pairs are keys, as in
    ``dict.items()`` or torch's ``named_parameters()``.
    """
    if backend_of(given) is not None:
        return None
    if isinstance(given, Mapping):
        return list(given), list(given.values())
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        return list(given._fields), list(given)
    in_order = isinstance(given, (Sequence, Iterator, ValuesView, ItemsView))
    if not in_order or isinstance(given, LEAVES):
        return None
    parts = list(given)
    if parts and all(_is_pair(part) for part in parts):
        return [name for name, _ in parts], [part for _, part in parts]
    return None, parts


def _is_pair(given: Any) -> bool:
    return isinstance(given, (tuple, list)) and len(given) == 2 and isinstance(given[0], str)


def read(given: Any, first: int) -> tuple[Place, list[tuple[str, Any]]]:
    """Return the structure of parameters, and (name, array) pairs in order.

    Parameters
    ----------
    given : array, or container of arrays and containers
    first : int
        Index of the first parameter in a list; names of a list are indices.

    Raises
    ------
    ParameterError
        A key is no string, a value no array, or an iterator is exhausted.
    """
    found: list[tuple[str, Any]] = []

    def place(path: str | None, given: Any) -> Place:
        inside = opened(given)
        if inside is None:
            name = str(first) if path is None else path
            known = hasattr(given, "dtype") or offers_memory(given)
            if not known and isinstance(given, Iterable):
                raise ParameterError(
                    f"parameter {name!r}: got {describe(given)}, expected a NumPy or CuPy array; "
                    "if arrays are in it, pass them as list(...)"
                )
            found.append((name, given))
            return name
        keys, parts = inside
        if isinstance(given, Iterator) and not parts:
            raise _exhausted(path, given)
        if not all(isinstance(key, str) for key in keys or ()):
            key = next(key for key in keys or () if not isinstance(key, str))
            raise ParameterError(f"parameter {_below(path, key)!r}: names are strings")
        start = first if path is None else 0
        named = keys if keys is not None else map(str, range(start, start + len(parts)))
        below = [place(_below(path, key), part) for key, part in zip(named, parts, strict=True)]
        return branch(path or "", keys, below, not isinstance(given, Mapping))

    try:
        return place(None, given), found
    except RecursionError:
        raise ParameterError("params: containers are in each other, or too many in a row") from None


def taken(params: Any) -> Any:
    """Convert an iterator to a list; return anything else as it is.

    Raises
    ------
    ParameterError
        The iterator is exhausted.
    """
    if not isinstance(params, Iterator):
        return params
    if not (parts := list(params)):
        raise _exhausted(None, params)
    return parts


def _exhausted(path: str | None, given: Any) -> ParameterError:
    where = "params" if path is None else f"params at {path!r}"
    return ParameterError(
        f"{where}: this {type(given).__name__} gives no arrays; an iterator gives them once: if it "
        "has been used before, make a new one, or pass a list"
    )


def _below(path: str | None, key: Any) -> Any:
    return key if path is None else f"{path}.{key}"


def flatten(template: Place, names: Branch, grads: Any) -> list[Any]:
    """List gradients in the order of the parameters.

    Parameters
    ----------
    template : Branch or str
        The structure of the parameters; with groups, a branch with one part for each group.
    names : Branch
        A flat branch whose keys are all names.
    grads
        In the structure of ``template``, or a dict by name. If all groups are dicts: one dict with
        the keys of all groups.

    Returns
    -------
    list of array, RowGrad, list or None

    Raises
    ------
    GradientError
        The structures differ.
    """
    if isinstance(template, str):
        return _by_name(names, grads) if isinstance(grads, Mapping) else [grads]
    if template.flat and (found := _in_order(template, grads)) is not None:
        return found
    if not isinstance(grads, Mapping):
        return _flatten(template, grads)
    if template.keys is not None:
        paths = not set(names.keys or ()).difference(template.keys).isdisjoint(grads)
        return _by_name(names, grads) if paths else _flatten(template, grads)
    dicts = [part for part in template.parts if isinstance(part, Branch) and not part.ordered]
    keys = [key for part in dicts for key in part.keys or ()]
    if template.parts == dicts and len(keys) == len(grads) and set(keys) == grads.keys():
        shares = [{key: grads[key] for key in part.keys or ()} for part in dicts]
        pairs = zip(dicts, shares, strict=True)
        return [grad for part, share in pairs for grad in _flatten(part, share)]
    return _by_name(names, grads)


def _flatten(place: Place, grads: Any) -> list[Any]:
    if isinstance(place, str):
        return [grads]
    if grads is None and place.path:
        return [None] * place.size
    parts = _in_order(place, grads)
    if parts is None:
        parts = _by_position(place, grads) if place.keys is None else _by_name(place, grads)
    if place.flat:
        return parts
    pairs = zip(place.parts, parts, strict=True)
    return [grad for part, given in pairs for grad in _flatten(part, given)]


def _in_order(place: Branch, grads: Any) -> list[Any] | None:
    """Return the parts of a dict whose keys are in order, or of a plain list; otherwise None.

    It is the fast path for gradients that need no rearrangement.
    """
    kind = type(grads)
    if kind is dict:
        return [*grads.values()] if place.keys is not None and [*grads] == place.keys else None
    listed = (kind is list or kind is tuple) and place.keys is None
    if listed and len(grads) == len(place.parts) and not (grads and _is_pair(grads[0])):
        return [*grads]
    return None


def _by_position(place: Branch, grads: Any) -> list[Any]:
    inside = None if isinstance(grads, Mapping) else opened(grads)
    named = inside is not None and inside[0] is not None and not hasattr(grads, "_fields")
    if inside is not None and not named and len(inside[1]) == len(place.parts):
        return inside[1]
    got = describe(grads) if inside is None else len(inside[1])
    got = f"{got} with names" if named else got
    raise GradientError(
        f"{_named(place)}: got {got}, expected a list of {len(place.parts)} "
        f"(None stands for no gradient){_of_rows(grads)}"
    )


def _by_name(place: Branch, grads: Any) -> list[Any]:
    expected = place.keys or []
    inside = opened(grads)
    if inside is not None and inside[0] is None and place.ordered:
        return _by_position(place, inside[1])
    if inside is None or inside[0] is None:
        raise GradientError(
            f"{_named(place)}: got {describe(grads)}, expected a dict by name{_of_rows(grads)}"
        )
    given = dict(zip(inside[0], inside[1], strict=True))
    if given.keys() != set(expected) or len(given) < len(inside[0]):
        below, known = place.path or None, set(expected)
        problems = [f"unknown {_below(below, key)!r}" for key in given if key not in known]
        problems += [f"missing {_below(below, key)!r}" for key in expected if key not in given]
        problems = problems or ["a name occurs twice"]
        raise GradientError(
            f"{_named(place)}: {', '.join(problems)} (None stands for no gradient){_of_rows(grads)}"
        )
    return [given[key] for key in expected]


def _of_rows(grads: Any) -> str:
    """Return the end of a message if ``grads`` looks like one gradient of rows; "" otherwise."""
    pair = isinstance(grads, Mapping) and "values" in grads
    return advice(grads) if pair or opened(grads) is None else ""


def _named(place: Branch) -> str:
    return f"gradients of {place.path!r}" if place.path else "gradients"
