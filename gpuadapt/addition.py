"""Arrays that are gradients of one parameter, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import backend_of, describe, dtype_name, on_device
from .errors import GradientError


def plain_backend(array: Any) -> str | None:
    """As `backend_of`, without masked arrays: what is masked would be taken for numbers."""
    return None if isinstance(array, np.ma.MaskedArray) else backend_of(array)


def summed(values: Sequence[Any]) -> np.dtype:
    """The type of sums of arrays' elements."""
    wide = any(dtype_name(array) == "float64" for array in values)
    return np.dtype("float64" if wide else "float32")


def widened(array: Any, dtype: np.dtype) -> Any:
    """An array as float32 or float64, which hold what it holds."""
    if array.dtype == np.uint16:  # bfloat16 on a GPU
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(dtype)


def total(arrays: Sequence[Any]) -> Any:
    """The sum of arrays of one shape, from the first to the last, in a new one.

    Raises
    ------
    GradientError
        Their shapes, backends or devices differ, or they are not of a type that gradients have.
    """
    first = arrays[0]
    for other in arrays:
        if dtype_name(other) is None or other.shape != first.shape:
            raise GradientError(f"cannot add {describe(other)} to {describe(first)}")
        if backend_of(other) != backend_of(first) or (
            backend_of(first) == "cuda" and other.device != first.device
        ):
            raise GradientError(f"cannot add {describe(other)} to {describe(first)}")
    with on_device(first), np.errstate(all="ignore"):
        dtype = summed(arrays)
        result = widened(first, dtype)
        for other in arrays[1:]:
            result = result + widened(other, dtype)
        return result
