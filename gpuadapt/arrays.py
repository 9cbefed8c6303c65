"""NumPy and CuPy arrays: the only module that tells them apart."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from gpuadapt.kernels import addresses
from gpuadapt.kernels.addresses import Layouts
from gpuadapt.kernels.array_types import Array, DeviceArray, HostArray
from gpuadapt.kernels.commit import Call, make, within
from gpuadapt.kernels.formats import BITS, PLAIN

from . import pages
from .device_errors import explained, first_line, meaning
from .errors import BackendError, ParameterError, RowIndexError

DTYPES = tuple(PLAIN)
"""The element types of parameters and gradients."""

STAGGER = 1088
"""State n begins n * STAGGER bytes after its parameter, modulo a page.

Arrays with equal offsets in their pages, such as NumPy's large ones, compete for the same sets of
the caches: float32 Adam at 50M elements then takes 1.5 times as long on an EPYC (Zen 4).
"""

MAX_WORK: Any = 2**16
"""Bound of the work of `share_memory`, as of `numpy.shares_memory`: about a millisecond."""

LINE, PAGE = 64, 4096
"""Bytes of a cache line and of a page."""


def backend_of(array: object) -> str | None:
    """Return "cpu" for a NumPy array, "cuda" for a CuPy array, None for anything else."""
    if isinstance(array, np.ndarray):
        return "cpu"
    # Whoever holds a CuPy array has imported CuPy.
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return "cuda"
    return None


def dtype_name(array: Array) -> str | None:
    """Return the element type of an array, one of `DTYPES`, or None.

    CuPy's uint16 is taken for the bits of bfloat16: some versions have no dtype for it.
    """
    name = _name_of(array.dtype)
    if name == "uint16" and backend_of(array) == "cuda":
        return "bfloat16"
    return name if name in DTYPES else None


@cache
def _name_of(dtype: np.dtype) -> str:
    """Return the name of a dtype; "" for other byte orders than the machine's."""
    return str(dtype.name) if dtype.isnative else ""


def numpy_dtype(name: str, backend: str) -> np.dtype:
    """Return the dtype of new arrays of an element type."""
    return PLAIN[name].array_dtype(backend)


def bits_of(array: Array) -> Array:
    """Return an array as kernels see it: a view of the bits of elements of 1 or 2 bytes."""
    bits = BITS.get(array.itemsize)
    return array if bits is None else array.view(bits)


@explained
def to_host(array: Array) -> HostArray:
    """Return a NumPy array with the same elements; waits for all streams of a GPU."""
    if backend_of(array) != "cuda":
        return np.asarray(array)
    array.device.synchronize()
    host: HostArray = array.get()
    # Where CuPy and the host share memory (CUPY_ENABLE_UMP) it is a view, which would change.
    return host if host.flags.owndata else host.copy()


def describe(array: object) -> str:
    """Describe an array, or another object, in a few words."""
    backend = backend_of(array)
    if backend is None or isinstance(array, np.ma.MaskedArray):
        kind = type(array)
        return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    where = "NumPy" if backend == "cpu" else f"CuPy (device {array.device.id})"  # type: ignore[attr-defined]
    return f"{where} {array.dtype} array of shape {array.shape}"  # type: ignore[attr-defined]


def device_name(array: Array) -> str:
    """Return "cpu", or "cuda:" and the number of the device."""
    return "cpu" if isinstance(array, np.ndarray) else f"cuda:{array.device.id}"


def plain(array: Array) -> Array:
    """Return NumPy's subclasses (memory maps, matrices) and numbers as plain arrays."""
    return np.asarray(array) if isinstance(array, (np.ndarray, np.generic)) else array


def contiguous(array: Array, order: str) -> bool:
    """Return whether an array is contiguous in C or in Fortran ("F") order, and aligned."""
    flags = array.flags
    whole = flags.c_contiguous if order == "C" else flags.f_contiguous
    return bool(whole and (not isinstance(array, np.ndarray) or flags.aligned))


def address(array: Array) -> int:
    """Return the address of the first element."""
    return addresses.address(array) if isinstance(array, np.ndarray) else int(array.data.ptr)


def check_parameter(name: str, array: Array) -> str:
    """Return the backend of an array that can be updated in place.

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
    strides = array.strides
    if not array.flags.c_contiguous and elements_overlap(array.shape, strides, array.itemsize):
        raise ParameterError(f"parameter {name!r}: elements share memory; pass a copy")
    return backend


def elements_overlap(shape: Sequence[int], strides: Sequence[int], extent: int) -> bool:
    """Return whether two elements may share memory, as in broadcast and sliding views.

    Parameters
    ----------
    shape, strides : sequence of int
    extent : int
        The length of an element in the unit of the strides.
    """
    if 0 in shape:
        return False
    for stride, n in sorted(
        (abs(step), n) for step, n in zip(strides, shape, strict=True) if n > 1
    ):
        if stride < extent:
            return True
        extent += (n - 1) * stride
    return False


@cache
def check_device() -> None:
    """Raise `BackendError` where CuPy is missing or finds no CUDA device."""
    try:
        import cupy
    except ModuleNotFoundError as error:
        what = "is not installed" if error.name == "cupy" else f"cannot be imported ({error})"
        raise BackendError(
            f'CuPy {what}: to use a GPU, pip install "gpuadapt[cuda12]" or "gpuadapt[cuda13]", as '
            "the driver is for CUDA 12 or 13"
        ) from error
    except Exception as error:
        raise BackendError(
            f"CuPy has no CUDA device here: it cannot be imported ({first_line(error)}). Install "
            "the CuPy that fits the CUDA of this machine, and only one"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendError(f"CuPy has no CUDA device here: {meaning(error) or error}") from error
    if count == 0:
        raise BackendError("CuPy has no CUDA device here")


def namespace(backend: str) -> ModuleType:
    """Return NumPy or CuPy."""
    if backend == "cpu":
        return np
    import cupy

    module: ModuleType = cupy
    return module


def on_device(array: Array) -> AbstractContextManager[Any]:
    """Return a context in which new arrays lie on the device of this one."""
    device: AbstractContextManager[Any] = (
        array.device if backend_of(array) == "cuda" else nullcontext()
    )
    return device


CHUNKS: WeakValueDictionary[int, HostArray] = WeakValueDictionary()
"""By id: the memory of every `SmallArrayArena`, in which nothing but its arrays lies."""


def arena_memory(bases: Iterable[int]) -> list[HostArray]:
    """Return the memory of arenas among the objects with these ids, which are alive."""
    return [chunk for base in {*bases} if (chunk := CHUNKS.get(base)) is not None]


class SmallArrayArena:
    """Allocates zeros of many small arrays side by side: a step over all of them is faster."""

    SMALL, CHUNK = 2**16, 2**20
    """Bytes of the largest small array, and of an allocation for several of them."""

    def __init__(self) -> None:
        self._chunk = np.zeros(0, np.uint8)
        self._address = self._next = 0
        """The address of the chunk, and the offset of its first free byte."""

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype, nbytes: int, beside: int) -> HostArray:
        """Return zeros with the offset in a cache line that the address ``beside`` has.

        Of more than `SMALL` bytes they have memory of their own, and the offset in a page.
        """
        if nbytes > self.SMALL:
            return _beside(pages.zeros(nbytes + PAGE), shape, dtype, beside, PAGE)
        start = self._next + (beside - self._address - self._next) % LINE
        if start + nbytes > len(self._chunk):
            self._chunk = np.zeros(self.CHUNK, np.uint8)
            CHUNKS[id(self._chunk)] = self._chunk
            self._address = address(self._chunk)
            start = (beside - self._address) % LINE
        self._next = start + nbytes
        return np.ndarray(shape, dtype, self._chunk, start)


def _beside(
    memory: HostArray, shape: tuple[int, ...], dtype: np.dtype, address_: int, unit: int
) -> HostArray:
    """Return an array in memory, with the offset of an address modulo ``unit`` bytes."""
    return np.ndarray(shape, dtype, memory, (address_ - address(memory)) % unit)


def zeros_like(
    array: Array,
    backend: str,
    dtype: np.dtype,
    order: str = "K",
    memory: SmallArrayArena | None = None,
    beside: int | None = None,
) -> Array:
    """Return zeros of an array's shape, on its device.

    On the CPU their offset in a cache line is that of the array, or of the address ``beside``, so
    that a row of one line has states of one line.

    Parameters
    ----------
    array : array
    backend : {"cpu", "cuda"}
    dtype : dtype
    order : {"K", "C"}
        The memory order: the array's or C's.
    memory : SmallArrayArena, optional
    beside : int, optional
    """
    if backend == "cpu" and array.flags.c_contiguous and array.flags.aligned:
        nbytes = array.size * dtype.itemsize
        beside = address(array) if beside is None else beside
        if memory:
            return memory.zeros(array.shape, dtype, nbytes, beside)
        unit = LINE if nbytes <= SmallArrayArena.SMALL else PAGE
        return _beside(np.zeros(nbytes + unit, np.uint8), array.shape, dtype, beside, unit)
    if order == "C":
        return new_zeros(array.shape, dtype, array)
    if backend == "cpu" and memory:
        # As NumPy's zeros_like: no gaps, the axes in the array's order.
        axes = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
        shape = tuple(array.shape[axis] for axis in axes)
        return new_zeros(shape, dtype, array).transpose(np.argsort(axes))
    with on_device(array):
        return namespace(backend).zeros_like(array, dtype=dtype)


def new_zeros(shape: Any, dtype: np.dtype, array: Array) -> Array:
    """Return zeros of a shape, on the device of an array."""
    if backend_of(array) == "cpu":
        count = math.prod(shape) * dtype.itemsize
        return pages.zeros(count).view(dtype).reshape(shape)
    with on_device(array):
        return namespace(backend_of(array) or "cpu").zeros(shape, dtype)


def copied(array: Array) -> Array:
    """Return a copy on the device of the array."""
    if isinstance(array, np.ndarray):
        return array.copy()
    with on_device(array):
        return array.copy()


def copy_into(destination: Array, source: Array) -> None:
    """Copy the bits of an array into another of its shape, from either backend."""
    make(copy_calls(destination, source))


def copy_calls(destination: Array, source: Array) -> list[Call]:
    """The calls that copy the bits of an array into another of its shape, from either backend."""
    if type(destination) is type(source) is np.ndarray and destination.dtype == source.dtype:
        return [(destination.__setitem__, ..., source)]
    destination, source = bits_of(destination), bits_of(source)
    if isinstance(destination, np.ndarray):
        return [(destination.__setitem__, ..., to_host(source))]
    device = destination.device
    with device:
        copy = destination.__setitem__, ..., namespace("cuda").asarray(source)
    return within([copy], device)


def take_elements(array: Array, *indices: HostArray) -> Array:
    """Return the elements at indices of NumPy, one array for each of the first dimensions."""
    if backend_of(array) != "cuda":
        return array[indices]
    with array.device:
        library = namespace("cuda")
        return array[tuple(map(library.asarray, indices))]


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


def check_disjoint(arrays: Mapping[str, Array]) -> None:
    """Raise `ParameterError` if two arrays, by name of the parameter, share memory."""
    # Flat, since Python looks for garbage while it makes many tuples.
    flat: list[int] = []
    names = [name for name, array in arrays.items() if array.size]
    for name in names:
        flat.extend(bounds(arrays[name]))
    if len(names) < 2:
        return
    devices, lows, highs = np.array(flat, np.int64).reshape(-1, 3).T
    order = np.lexsort((lows, devices))
    devices, lows, highs = devices[order], lows[order], highs[order]
    # If two of them overlap, so do two neighbours.
    if not ((devices[1:] == devices[:-1]) & (highs[:-1] > lows[1:])).any():
        return
    active: list[tuple[int, int, str]] = []
    for k, device, low, high in zip(order, devices, lows, highs, strict=True):
        name = names[k]
        active = [other for other in active if other[0] == device and other[1] > low]
        for *_, before in active:
            if share_memory(arrays[name], arrays[before]):
                raise ParameterError(f"parameters {before!r} and {name!r} share memory")
        active.append((device, high, name))


def share_memory(one: Array, other: Array) -> bool:
    """Return whether two arrays, both of NumPy or both of CuPy, have a byte in common.

    Neither is read. True as well if `MAX_WORK` is not enough to find out. CuPy's own
    `shares_memory` compares the addresses of all elements on the GPU, which takes memory and waits,
    and it does not see elements that overlap in part.
    """
    if not isinstance(one, np.ndarray) and one.device.id != other.device.id:
        return False
    try:
        return bool(np.shares_memory(_outline(one), _outline(other), max_work=MAX_WORK))
    except (np.exceptions.TooHardError, OverflowError):
        return True


class _Place:
    """Where an array lies, as NumPy takes it."""

    def __init__(self, array: DeviceArray) -> None:
        self.__array_interface__ = {
            "data": (address(array), True), "shape": array.shape, "strides": array.strides,
            "typestr": f"|V{array.itemsize}", "version": 3,
        }  # fmt: skip


def _outline(array: Array) -> HostArray:
    """Return a NumPy array with the address, shape and strides of an array; nobody may read it."""
    if isinstance(array, np.ndarray):
        return array
    return np.asarray(_Place(array)) if array.size else np.empty(0)


def bounds(array: Array) -> tuple[int, int, int]:
    """Return the device (-1 for the CPU), the first address and the one after the last."""
    device = -1 if isinstance(array, np.ndarray) else array.device.id
    start = address(array)
    if array.flags.c_contiguous:
        return device, start, start + array.nbytes
    steps = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    low = start + sum(step for step in steps if step < 0)
    high = start + sum(step for step in steps if step > 0) + array.itemsize
    return device, low, high


def cupy_layouts(arrays: Sequence[DeviceArray]) -> Layouts:
    """Return where CuPy arrays lie in memory; see `launch.layouts`."""
    found = [(address(a), *bounds(a)[1:], a.size) for a in arrays]
    first, low, high, size = np.array(found, np.int64).reshape(-1, 4).T.copy()
    orders = {name: np.array([contiguous(a, name) for a in arrays], bool) for name in "CF"}
    return Layouts(first, low, high, size, orders, np.zeros_like(first))


def memory_ranges(layouts: Layouts, chunks: Sequence[HostArray]) -> tuple[HostArray, HostArray]:
    """Return the ranges of addresses in which arrays lie; those that overlap are joined.

    Parameters
    ----------
    layouts : Layouts
    chunks : sequence of ndarray
        Memory of arenas, whose range covers the arrays in it.

    Returns
    -------
    starts, ends : ndarray of int64, shape (m,), ascending
    """
    bases, ids = layouts.bases.tolist(), {*map(id, chunks)}
    own = (layouts.sizes > 0) & ~np.fromiter(map(ids.__contains__, bases), bool, len(bases))
    starts = np.array([addresses.address(chunk) for chunk in chunks], np.int64)
    ends = starts + SmallArrayArena.CHUNK
    lows, highs = np.append(layouts.lows[own], starts), np.append(layouts.highs[own], ends)
    order = lows.argsort()
    lows, highs = lows[order], np.maximum.accumulate(highs[order])
    first = np.ones(lows.size + 1, bool)
    first[1:-1] = lows[1:] >= highs[:-1]
    return lows[first[:-1]], highs[first[1:]]


def numbered(keys: Sequence[Hashable]) -> tuple[list[int], HostArray]:
    """Number equal keys, in the order in which they occur first.

    Returns
    -------
    firsts : list of int
        The index of the first key with each number.
    numbers : ndarray of int64, shape (keys,)
    """
    known = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    firsts = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
    numbers = np.fromiter(map(known.__getitem__, keys), np.int64, len(keys))
    return [firsts[key] for key in known], numbers
