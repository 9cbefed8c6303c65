"""What is this array? NumPy or CuPy; the only place that asks."""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array
from gpuadapt.kernels.formats import BITS, PLAIN

from . import pages
from .errors import BackendError, ParameterError, RowIndexError

DTYPES = tuple(PLAIN)
"""The element types of parameters and gradients."""

STAGGER = 1088
"""Bytes, modulo a page, from where a parameter begins to where its states do, times their number.

Arrays that begin at the same place in their pages, as large ones of NumPy do, compete for the same
sets of the caches: float32 Adam at 50M elements takes 1.5 times as long on an EPYC (Zen 4).
"""

LINE, PAGE = 64, 4096
"""Bytes of a cache line and of a page."""


def backend_of(array: object) -> str | None:
    """ "cpu" for a NumPy array, "cuda" for a CuPy array, None for anything else."""
    if isinstance(array, np.ndarray):
        return "cpu"
    # Whoever holds a CuPy array has imported CuPy.
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return "cuda"
    return None


def dtype_name(array: Any) -> str | None:
    """The element type of an array, one of `DTYPES`; None for others.

    CuPy's uint16 are the bits of bfloat16, for which it has no type of its own everywhere.
    """
    dtype = array.dtype
    if dtype == np.uint16 and backend_of(array) == "cuda":
        return "bfloat16"
    name: str = dtype.name
    return name if dtype.isnative and name in DTYPES else None


def numpy_dtype(name: str, backend: str) -> np.dtype:
    """Return the dtype of new arrays of an element type."""
    return PLAIN[name].array_dtype(backend)


def bits_of(array: Any) -> Any:
    """Return an array as kernels see it: a view of the bits of elements of 1 or 2 bytes."""
    bits = BITS.get(array.dtype.itemsize)
    return array if bits is None else array.view(bits)


def to_host(array: Any) -> np.ndarray:
    """A NumPy array with the same elements; waits for a GPU."""
    host: np.ndarray = array.get() if backend_of(array) == "cuda" else np.asarray(array)
    return host


def describe(array: object) -> str:
    """An array, or what was given instead, in a few words."""
    backend = backend_of(array)
    if backend is None or isinstance(array, np.ma.MaskedArray):
        kind = type(array)
        return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    where = "NumPy" if backend == "cpu" else f"CuPy (device {array.device.id})"  # type: ignore[attr-defined]
    return f"{where} {array.dtype} array of shape {array.shape}"  # type: ignore[attr-defined]


def plain(array: Any) -> Any:
    """NumPy's subclasses (a memory map, a matrix) and numbers as arrays; others as they are."""
    return np.asarray(array) if isinstance(array, (np.ndarray, np.generic)) else array


def owner(array: Any) -> int | None:
    """The identity of the memory that an array is a view of; None if it is not NumPy's or CuPy's.

    It is not where another library allocated it: CuPy makes an owner for each import of it.

    Arrays with different owners share no memory, unless one of them has none.
    """
    own = pages.pages_of(array)
    if own is not None:
        return id(own)
    if not isinstance(array, np.ndarray):
        memory = array.data.mem
        imported = isinstance(memory, namespace("cuda").cuda.UnownedMemory)
        return None if imported else id(memory)
    base = array.base
    while isinstance(base, np.ndarray):
        array, base = base, base.base
    return id(array) if base is None else None


def contiguous(array: Any, order: str) -> bool:
    """Whether an array lies in memory without gaps, in C or in Fortran ("F") order."""
    flags = array.flags
    whole = flags.c_contiguous if order == "C" else flags.f_contiguous
    return bool(whole and (not isinstance(array, np.ndarray) or flags.aligned))


def address(array: Any) -> int:
    """Where the first element of an array is."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def check_parameter(name: str, array: Any) -> str:
    """The backend of an array that can be updated in place.

    Raises
    ------
    ParameterError
        Not an array, a wrong element type, read-only, or elements that share memory.
    BackendError
        A CuPy array where CuPy has no device.
    """
    backend = backend_of(array)
    if backend is None or isinstance(array, np.ma.MaskedArray):
        raise ParameterError(
            f"parameter {name!r}: got {describe(array)}, expected a NumPy or CuPy array"
        )
    if dtype_name(array) is None:
        raise ParameterError(
            f"parameter {name!r}: got dtype {array.dtype}, expected {', '.join(DTYPES[:-1])} or "
            f"{DTYPES[-1]} in native byte order"
        )
    if backend == "cuda":
        check_device()
    elif not array.flags.writeable:
        raise ParameterError(f"parameter {name!r}: the array is read-only; pass a copy")
    if _overlaps_itself(array):
        raise ParameterError(f"parameter {name!r}: elements share memory; pass a copy")
    return backend


def _overlaps_itself(array: Any) -> bool:
    """Whether some element may share memory with another (broadcast and sliding views do)."""
    if not array.size:
        return False
    extent = array.itemsize
    steps = zip(array.strides, array.shape, strict=True)
    for stride, n in sorted((abs(stride), n) for stride, n in steps if n > 1):
        if stride < extent:
            return True
        extent += (n - 1) * stride
    return False


@cache
def check_device() -> None:
    """Raise `BackendError` where CuPy is missing or finds no CUDA device."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendError(f"CuPy has no CUDA device here: {error}") from error
    if count == 0:
        raise BackendError("CuPy has no CUDA device here")


def namespace(backend: str) -> ModuleType:
    """The array library of a backend."""
    if backend == "cpu":
        return np
    import cupy

    module: ModuleType = cupy
    return module


def on_device(array: Any) -> AbstractContextManager[Any]:
    """A context in which new arrays lie where this one does."""
    device: AbstractContextManager[Any] = (
        array.device if backend_of(array) == "cuda" else nullcontext()
    )
    return device


class SmallArrayArena:
    """Zeros for many small arrays, one behind the other: a step over all of them is faster."""

    SMALL, CHUNK = 2**16, 2**20
    """Bytes: of the largest array that is small, and of what is allocated for small ones."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.uint8)

    def take(self, count: int) -> np.ndarray:
        """So many bytes."""
        if count > self.SMALL:
            return pages.zeros(count)
        if count > self._rest.size:
            self._rest = np.zeros(self.CHUNK, np.uint8)
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


def zeros_like(
    array: Any,
    backend: str,
    dtype: np.dtype,
    order: str = "K",
    memory: SmallArrayArena | None = None,
    number: int = 0,
) -> Any:
    """Zeros of the array's shape, on its device, in its order of memory ("K") or in C's.

    On the CPU they begin as far from the beginning of a cache line: where a row of the array is
    one line, so is that of its states. ``number`` is that of the state, from 1.
    """
    if backend == "cpu" and array.flags.c_contiguous and array.flags.aligned:
        nbytes = array.size * dtype.itemsize
        within = LINE if nbytes <= SmallArrayArena.SMALL else PAGE
        raw = memory.take(nbytes + within) if memory else np.zeros(nbytes + within, np.uint8)
        start = (array.ctypes.data + number * STAGGER - raw.ctypes.data) % within
        return raw[start : start + nbytes].view(dtype).reshape(array.shape)
    if order == "C":
        return new_zeros(array.shape, dtype, array)
    if backend == "cpu" and memory:
        # As NumPy's zeros_like: no gaps, the axes in the array's order.
        axes = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
        shape = tuple(array.shape[axis] for axis in axes)
        return new_zeros(shape, dtype, array).transpose(np.argsort(axes))
    with on_device(array):
        return namespace(backend).zeros_like(array, dtype=dtype)


def new_zeros(shape: Any, dtype: np.dtype, array: Any) -> Any:
    """Zeros of a shape, on the device of an array."""
    if backend_of(array) == "cpu":
        count = math.prod(shape) * dtype.itemsize
        return pages.zeros(count).view(dtype).reshape(shape)
    with on_device(array):
        return namespace(backend_of(array) or "cpu").zeros(shape, dtype)


def copied(array: Any) -> Any:
    """A copy, on the device where the array is."""
    with on_device(array):
        return array.copy()


def copy_into(destination: Any, source: Any) -> None:
    """Overwrite an array with the elements of another of its shape, from either backend."""
    destination, source = bits_of(destination), bits_of(source)
    if backend_of(destination) == "cuda":
        with destination.device:
            destination[...] = namespace("cuda").asarray(source)
    else:
        destination[...] = source.get() if backend_of(source) == "cuda" else source


def take_rows(table: Array, rows: Array, skip: bool) -> Array:
    """Return rows of a table in a new array.

    Parameters
    ----------
    table : array
    rows : array of integers, shape (n,)
    skip : bool
        Whether rows that are out of range are zeros.

    Raises
    ------
    RowIndexError
        A row is out of range, without ``skip``.
    """
    xp = namespace(backend_of(table) or "cpu")
    out_of_range = (rows < 0) | (rows >= len(table))
    if not skip and bool(out_of_range.any()):
        index = int(out_of_range.argmax())
        raise RowIndexError.of(int(rows[index]), index, len(table))
    result = xp.zeros((len(rows), *table.shape[1:]), table.dtype)
    if len(table):
        result[...] = table[xp.where(out_of_range, 0, rows)]
        bits_of(result)[out_of_range] = 0
    return result


def check_disjoint(arrays: Iterable[tuple[str, str, Any]]) -> None:
    """Raise `ParameterError` if two of (name, backend, array) share memory."""
    placed = sorted(((*bounds(array), name, backend, array)
                     for name, backend, array in arrays if array.size),
                    key=lambda entry: entry[:3])  # fmt: skip
    active: list[tuple[Any, ...]] = []
    for entry in placed:
        device, low, _, name, backend, array = entry
        active = [other for other in active if other[0] == device and other[2] > low]
        for other in active:
            if namespace(backend).shares_memory(array, other[5]):
                raise ParameterError(f"parameters {other[3]!r} and {name!r} share memory")
        active.append(entry)


def bounds(array: Any) -> tuple[int, int, int]:
    """Device (-1 for the CPU), first byte and the byte after the last."""
    if isinstance(array, np.ndarray):
        device, start = -1, array.ctypes.data
    else:
        device, start = array.device.id, array.data.ptr
    steps = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    low = start + sum(step for step in steps if step < 0)
    high = start + sum(step for step in steps if step > 0) + array.itemsize
    return device, low, high


def merged_bounds(arrays: Iterable[Any]) -> list[tuple[int, int, int]]:
    """The bounds of arrays in order, those that overlap made one."""
    result: list[tuple[int, int, int]] = []
    for device, low, high in sorted(bounds(array) for array in arrays if array.size):
        if result and result[-1][0] == device and low < result[-1][2]:
            device, low, before = result.pop()
            high = max(high, before)
        result.append((device, low, high))
    return result


def overlaps_any(array: Any, places: list[tuple[int, int, int]]) -> bool:
    """Whether an array lies across any of the places that `merged_bounds` gave."""
    if not array.size:
        return False
    device, low, high = bounds(array)
    index = bisect.bisect_left(places, (device, high, high))
    return index > 0 and places[index - 1][0] == device and places[index - 1][2] > low
