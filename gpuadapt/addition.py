"""Add arrays that are gradients of one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array

from .arrays import backend_of, describe, dtype_name, on_device
from .errors import GradientError


def plain_backend(array: Any) -> str | None:
    """Return `backend_of` an array; None for masked arrays, whose masked elements have values."""
    return None if isinstance(array, np.ma.MaskedArray) else backend_of(array)


def summed(values: Sequence[Array]) -> np.dtype:
    """Return the dtype of the arrays' sum: float64 if one of them is, otherwise float32."""
    wide = any(dtype_name(array) == "float64" for array in values)
    return np.dtype("float64" if wide else "float32")


def widened(array: Array, dtype: np.dtype) -> Array:
    """Convert an array to float32 or float64 without rounding."""
    if array.dtype == np.uint16:  # bfloat16 on a GPU
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(dtype)


def total(arrays: Sequence[Array]) -> Array:
    """Add arrays of one shape in the given order.

    Returns
    -------
    array of float32 or float64, new

    Raises
    ------
    GradientError
        Their shapes, backends or devices differ, or a dtype is not one of gradients.
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
