"""Chunks of arrays of any strides, as bytes in C order; nothing of an array's size is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray

from ..arrays import on_device, to_host

CHUNK = 2**22
"""Bytes that are copied at once."""

Index = tuple[Any, ...]


def chunks(shape: tuple[int, ...], itemsize: int) -> Iterator[Index]:
    """Cut an array into parts of at most `CHUNK` bytes, which lie in C order.

    Parameters
    ----------
    shape : tuple of int
    itemsize : int
        Bytes of an element.

    Yields
    ------
    tuple
        An index of the array.
    """
    if 0 in shape:
        return
    axis, inner = len(shape), itemsize
    while axis and inner * shape[axis - 1] <= CHUNK:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield (...,)
        return
    axis -= 1
    each = max(1, CHUNK // inner)
    for leading in product(*map(range, shape[:axis])):
        for start in range(0, shape[axis], each):
            yield (*leading, slice(start, start + each))


def bytes_of(array: Array, index: Index) -> memoryview:
    """Return a part of an array as little-endian bytes; waits for a GPU.

    Parameters
    ----------
    array : array
        NumPy or CuPy, of a dtype with at most 8 bytes.
    index : tuple
        Of `chunks`.
    """
    with on_device(array):
        part = to_host(array[index])
    size = part.itemsize
    bits = np.ascontiguousarray(part.view(f"u{size}").astype(f"<u{size}", copy=False))
    return bits.reshape(-1).view(np.uint8).data


def put(array: HostArray, index: Index, data: bytes) -> None:
    """Write little-endian bytes into a part of an array.

    Parameters
    ----------
    array : ndarray
    index : tuple
        Of `chunks`.
    data : bytes
        As many as the part has.
    """
    size = array.dtype.itemsize
    part = array[index]
    bits = np.frombuffer(data, f"<u{size}").astype(f"u{size}", copy=False)
    part.view(f"u{size}")[...] = bits.reshape(part.shape)


def length(shape: tuple[int, ...], itemsize: int, index: Index) -> int:
    """Return the number of bytes of a part of an array."""
    if index == (...,):
        return math.prod(shape) * itemsize
    *leading, part = index
    axis = len(leading)
    count = min(part.stop, shape[axis]) - part.start
    return int(count) * math.prod(shape[axis + 1 :]) * itemsize
