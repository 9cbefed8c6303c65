"""Uploads small arrays to a GPU without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def upload(target: Any, source: np.ndarray) -> None:
    """Overwrite a contiguous CuPy array, on the current stream.

    CUDA takes a copy of memory that is not pinned before it returns, so the source may change.
    """
    if source.nbytes:
        target.data.copy_from_host_async(source.ctypes.data, source.nbytes)


class Mirror:
    """The device copy of a small host array; it is uploaded only when its values change."""

    def __init__(self, dtype: type) -> None:
        self._host: np.ndarray = np.zeros(0, dtype)
        self._device: Any = None

    def of(self, values: np.ndarray) -> Any:
        """Return the values as a CuPy array, which the next call may overwrite."""
        import cupy

        if self._device is None or values.size != self._host.size:
            self._device = cupy.zeros(max(values.size, 1), self._host.dtype)
            self._host = np.zeros(values.size, self._host.dtype)
        values = values.astype(self._host.dtype)
        if not np.array_equal(values, self._host):
            self._host = values
            upload(self._device, self._host)
        return self._device


def layouts(arrays: Sequence[Any]) -> np.ndarray:
    """Write the layouts of tables for ``layout.cuh``.

    Parameters
    ----------
    arrays : sequence of arrays, shape (rows, ...)

    Returns
    -------
    ndarray of int64
        The length of a layout, then a layout for each array.
    """
    length = 2 + 2 * max(array.ndim - 1 for array in arrays)
    rows = []
    for array in arrays:
        stride, *strides = (stride // array.itemsize for stride in array.strides)
        pairs = zip(array.shape[:0:-1], strides[::-1], strict=True)
        layout = [array.ndim - 1, stride, *(number for pair in pairs for number in pair)]
        rows += layout + [0] * (length - len(layout))
    return np.array([length, *rows], np.int64)
