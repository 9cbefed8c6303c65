"""The caller's own values in a file: JSON, and arrays in it as tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array

from ..arrays import backend_of, describe
from ..errors import CheckpointError, DamagedFileError
from .safetensors_file import NAMES, compact, parse_json

ARRAY, FLOAT = "__array__", "__float__"
"""Keys of the objects that stand for an array (by the tensor's name) and for NaN or infinity."""

DEPTH = 60
"""Levels of dicts and lists of the deepest value."""

BITS_OF_CUPY = np.dtype(np.uint16)
"""What CuPy has in place of bfloat16; here it is saved as it is."""


def encoded(extra: Any) -> tuple[str, dict[str, tuple[Array, np.dtype]]]:
    """Write the caller's values as JSON and tensors.

    Parameters
    ----------
    extra : dict, list, str, int, float, bool, None or array
        Nested, with strings as keys. Tuples become lists.

    Returns
    -------
    text : str
    tensors : dict of str to (array, dtype)
        Named "extra/" and the path of the array.

    Raises
    ------
    CheckpointError
        Another type, with its path.
    """
    tensors: dict[str, tuple[Array, np.dtype]] = {}
    found = _encode(extra, "extra", tensors, 0)
    try:
        text = compact(found)
    except ValueError as error:
        raise CheckpointError(f"extra: {error}") from None
    return text, tensors


def _encode(value: Any, path: str, tensors: dict[str, Any], depth: int) -> Any:
    if depth > DEPTH:
        raise CheckpointError(f"{path}: expected at most {DEPTH} levels of dicts and lists")
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        value = value.item()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {FLOAT: repr(float(value))}
    if isinstance(value, Mapping):
        keys = [*value]
        if not all(isinstance(key, str) for key in keys) or {ARRAY, FLOAT} & {*keys}:
            raise CheckpointError(
                f"{path}: expected strings as keys, other than {ARRAY!r} and {FLOAT!r}, got {keys}"
            )
        each = value.items()
        return {str(k): _encode(one, f"{path}/{k}", tensors, depth + 1) for k, one in each}
    if isinstance(value, (list, tuple)):
        numbered = enumerate(value)
        return [_encode(one, f"{path}/{k}", tensors, depth + 1) for k, one in numbered]
    if backend_of(value) is None or isinstance(value, np.ma.MaskedArray):
        raise CheckpointError(
            f"{path}: got {describe(value)}, expected None, numbers, strings, lists, dicts and "
            "NumPy or CuPy arrays; convert it (bytes by numpy.frombuffer)"
        )
    dtype = value.dtype.newbyteorder("=")
    if dtype not in NAMES or not value.dtype.isnative:
        raise CheckpointError(
            f"{path}: got {describe(value)}, expected an array of {', '.join(map(str, NAMES))} in "
            "native byte order"
        )
    while path in tensors:  # two paths may have one text, as of the keys "a/b" and "a" of "b"
        path += "/"
    tensors[path] = value, dtype
    return {ARRAY: path}


def checked(text: str, names: set[str]) -> Any:
    """Parse the JSON of a file and compare the arrays that it names.

    Parameters
    ----------
    text : str
    names : set of str
        The names of the file's tensors that are the caller's.

    Raises
    ------
    DamagedFileError
    """
    parsed = parse_json(text, 2 * DEPTH)
    seen: list[str] = []
    decoded(parsed, seen.append)
    if sorted(seen) != sorted(names):
        raise DamagedFileError("its extra values do not name its extra arrays")
    return parsed


def decoded(value: Any, array: Callable[[str], Any]) -> Any:
    """Return the caller's values of parsed JSON.

    Parameters
    ----------
    value : JSON
    array : callable
        Returns an array by the name of its tensor.
    """
    if isinstance(value, list):
        return [decoded(one, array) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, one),) = value.items()
        if key == ARRAY and isinstance(one, str):
            return array(one)
        if key == FLOAT and one in ("inf", "-inf", "nan"):
            return float(one)
    return {key: decoded(one, array) for key, one in value.items()}
