"""Uploads small arrays to a GPU without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..commit import make

STAGED = 2**16
"""Bytes that CUDA copies aside at once, so that a copy of memory that is not pinned waits for
nothing: CUDA C++ Programming Guide, implicit synchronization."""

Pinned = tuple[Any, Any, int]
"""An event after the last copy from pinned memory, the memory, its bytes."""

_pinned: dict[Any, list[Pinned]] = {}
"""What has been in use, by CuPy's class of events and the device. Two are enough for steps that
take turns; no more are made than copies are under way."""


def upload(target: Any, source: np.ndarray) -> None:
    """Overwrite a contiguous CuPy array, on the current stream; the source may change at once."""
    if not source.nbytes:
        return
    if source.nbytes <= STAGED:
        target.data.copy_from_host_async(source.ctypes.data, source.nbytes)
        return
    import cupy

    kept = _pinned.setdefault((cupy.cuda.Event, target.device.id), [])
    one = _unused(kept, source.nbytes)
    event, memory, _ = one
    np.frombuffer(memory, np.uint8, source.nbytes)[:] = source.reshape(-1).view(np.uint8)
    copy = target.data.copy_from_host_async, memory.ptr, source.nbytes
    make([copy, (event.record,), (kept.append, one)])


def _unused(kept: list[Pinned], count: int) -> Pinned:
    """Pinned memory of so many bytes from which nothing is being copied; it is kept no more."""
    import cupy

    for one in (*kept,):
        event, _, size = one
        if event.done:
            try:
                kept.remove(one)
            except ValueError:  # a thread, or a signal handler, has taken it
                continue
            if size >= count:
                return one
    size = 1 << (count - 1).bit_length()
    return cupy.cuda.Event(disable_timing=True), cupy.cuda.alloc_pinned_memory(size), size


def held(owner: Any) -> dict[int, Any]:
    """Arrays and memory pools that belong to an object, or to objects of this package in it.

    What a captured step uses has to be kept for as long as somebody may replay it, also when the
    object has replaced it by something larger.

    Returns
    -------
    dict of int to CuPy array or MemoryPool
        By id, so that it is kept once.
    """
    import cupy

    found: dict[int, Any] = {}
    seen, left = set[int](), [owner]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (cupy.ndarray, cupy.cuda.MemoryPool)):
            found[id(one)] = one
        elif isinstance(one, (list, tuple)):
            left += one
        elif isinstance(one, dict):
            left += one.values()
        elif type(one).__module__.startswith(__package__):
            left += vars(one).values()
    return found


class Mirror:
    """The device copy of a small host array; it is uploaded only when its values change."""

    def __init__(self, dtype: type) -> None:
        self._dtype = np.dtype(dtype)
        self._device: Any = None
        self._host: np.ndarray | None = None
        """The values on the device; None if they are not known, as after an upload that failed."""
        self._latest: np.ndarray | None = None
        """The array that had them."""

    def of(self, values: np.ndarray) -> Any:
        """Return the values as a CuPy array, which the next call may overwrite.

        Nobody may write to ``values`` later.
        """
        if values is self._latest and self._host is not None:
            return self._device
        import cupy

        self._latest = values
        values = values.astype(self._dtype)
        if self._host is None or not np.array_equal(values, self._host):
            self._host = None
            if self._device is None or self._device.size != max(values.size, 1):
                self._device = cupy.zeros(max(values.size, 1), self._dtype)
            upload(self._device, values)
            self._host = values
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
