"""The arrays of `hostcupy`: NumPy memory behind CuPy's surface.

They are not NumPy arrays, so that code which would fail on a real CuPy array fails here too; a
captured step that finds memory fails as well. What is done to them waits in a stream's queue.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from hoststreams import Device, get_current_stream, keep, not_captured, run, wait
from hoststreams import current_queue as queue


class ndarray:
    """An array "on the GPU": NumPy memory behind CuPy's surface."""

    def __init__(self, host, device=0, imported=False):
        self.host = host
        self.device = Device(device)
        self.imported = imported

    def __del__(self):
        if "host" in vars(self):
            keep(self.host)

    dtype = property(lambda self: self.host.dtype)
    shape = property(
        lambda self: self.host.shape,
        lambda self, new: setattr(self, "host", self.host.reshape(new)),
    )
    strides = property(lambda self: self.host.strides)
    size = property(lambda self: self.host.size)
    ndim = property(lambda self: self.host.ndim)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    flags = property(lambda self: self.host.flags)
    data = property(lambda self: MemoryPointer(self))

    @property
    def memory(self) -> list[Any]:
        """What has to be alive while somebody uses the array; nothing of another library's."""
        return [] if self.imported else [_root(self.host)]

    def _like(self, host):
        """A view."""
        return ndarray(host, self.device.id, self.imported)

    def get(self):
        not_captured("waiting")
        wait()
        return self.host.copy()

    def copy(self):
        return made(self.host.copy, self)

    def reshape(self, *shape):
        view = self.host.reshape(*shape)
        assert np.shares_memory(view, self.host) or not view.size
        return self._like(view)

    def view(self, dtype):
        return self._like(self.host.view(dtype))

    def __len__(self):
        return len(self.host)

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        if not any(isinstance(one, ndarray) for one in keys):
            return self._like(self.host[key])
        wait()  # so that no index is what was there before
        hosts = tuple(getattr(one, "host", one) for one in keys)
        return made(lambda: self.host[hosts], self, *(k for k in keys if isinstance(k, ndarray)))

    def __setitem__(self, key, value):
        given = [one for one in (self, key, value) if isinstance(one, ndarray)]
        at, of = found_later(self.host), found_later(getattr(value, "host", value))
        key = getattr(key, "host", key)
        run(lambda: at().__setitem__(key, of()), *memory_of(given))

    def _with(self, function, other):
        given = [one for one in (self, other) if isinstance(one, ndarray)]
        return made(lambda: function(self.host, getattr(other, "host", other)), *given)

    def __lt__(self, other):
        return self._with(np.less, other)

    def __ge__(self, other):
        return self._with(np.greater_equal, other)

    def __or__(self, other):
        return self._with(np.logical_or, other)

    def __add__(self, other):
        return self._with(np.add, other) if isinstance(other, ndarray) else NotImplemented

    def __lshift__(self, other):
        return self._with(np.left_shift, other)

    def astype(self, dtype):
        return made(lambda: self.host.astype(dtype), self)

    def any(self):
        return made(lambda: np.asarray(self.host.any()), self)

    def argmax(self):
        return made(lambda: np.asarray(self.host.argmax()), self)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def fill(self, value):
        at = found_later(self.host)
        run(lambda: at().fill(value), *self.memory)

    def sort(self):
        assert self.ndim == 1 and self.flags.c_contiguous
        assert self.device.id == Device.current[-1]
        assert Pool.current, "what sorting needs would come from a pool that others use"
        at = found_later(self.host)
        run(lambda: at().sort(), *self.memory, Pool.current[-1].__self__)


class UnownedMemory:
    """What another library has allocated; each import of an array makes one."""


class MemoryPointer:
    """Where an array is."""

    def __init__(self, array):
        self.array, self.ptr = array, array.host.ctypes.data
        self.mem = UnownedMemory() if array.imported else array.memory[0]

    def copy_from_host_async(self, address, size):
        """Copy memory: CUDA reads pinned memory later, and has read all other when this returns."""
        not_captured("a copy from the host")
        assert self.array.flags.c_contiguous and size == self.array.host.nbytes
        target, pinned = self.ptr, PINNED.get(address)
        if pinned is None:
            assert size <= 2**16, "CUDA may wait before it copies so much that is not pinned"
            source = ctypes.string_at(address, size)
        else:
            assert size <= pinned.size
            source = address
        run(lambda: _copy_to(target, source, size), *self.array.memory)


def _copy_to(target, source, size):
    assert type(source) is bytes or source in PINNED, "pinned memory was freed before its copy"
    ctypes.memmove(target, source, size)


PINNED = weakref.WeakValueDictionary()
"""Pinned memory that is in use, by its address."""


class PinnedMemory(np.ndarray):
    """`cupy.cuda.PinnedMemoryPointer`."""

    ptr = property(lambda self: self.ctypes.data)


def alloc_pinned_memory(size):
    not_captured("memory")
    made = np.full(size, 0xA5, np.uint8).view(PinnedMemory)
    PINNED[made.ptr] = made
    return made


class Pool:
    """`cupy.cuda.MemoryPool`."""

    current: list[object] = []

    def malloc(self, size):
        raise AssertionError


@contextlib.contextmanager
def using_allocator(allocator):
    Pool.current.append(allocator)
    yield
    Pool.current.pop()


def _root(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def memory_of(arrays) -> list[Any]:
    """What has to be alive while somebody uses arrays."""
    return [one for array in arrays for one in array.memory]


def found_later(array: Any) -> Callable[[], Any]:
    """A function that returns an array, which it does not keep alive: it has its address."""
    if queue().idle or not isinstance(array, np.ndarray):
        return lambda: array
    interface = {**array.__array_interface__, "data": (array.ctypes.data, False)}
    owner, dtype = _Host(None, interface), array.dtype
    return lambda: np.asarray(owner).view(dtype)


def made(compute: Callable[[], Any], *given: Any) -> ndarray:
    """A new array with what a function of arrays returns; until then it is somebody's memory."""
    not_captured("memory")
    if queue().idle:
        return ndarray(compute(), Device.current[-1])
    like = compute()  # of what the arrays are by now: for its type and shape
    used = np.full(max(like.nbytes, 1), 0xA5, np.uint8)
    new = ndarray(np.ndarray(like.shape, like.dtype, used, 0, like.strides), Device.current[-1])
    run(lambda: new.host.__setitem__(..., compute()), *memory_of([new, *given]))
    return new


def asarray(array):
    if hasattr(array, "__cuda_array_interface__"):
        return _imported(array)
    if isinstance(array, ndarray):
        return array
    values = np.array(array)
    return made(lambda: values.copy(order="K"))


class _Host:
    """Memory that another library calls a GPU's, as NumPy takes it."""

    def __init__(self, owner, interface):
        self.owner = owner
        names = "shape", "typestr", "data", "strides"
        self.__array_interface__ = {name: interface.get(name) for name in names} | {"version": 3}


def _imported(array):
    interface = array.__cuda_array_interface__
    assert interface.get("stream") is None, "CuPy lets the host wait for this stream"
    return ndarray(np.asarray(_Host(array, interface)), imported=True)


def from_dlpack(array):
    """`cupy.from_dlpack`: a capsule is an array here."""
    kind, number = array.__dlpack_device__()
    assert kind == 2, "memory of the host"
    return ndarray(array.__dlpack__(stream=get_current_stream().ptr), number, imported=True)


def ascontiguousarray(array):
    return array if array.flags.c_contiguous else array.copy()


def zeros_like(array, dtype):
    return made(lambda: np.zeros_like(array.host, dtype))


def made_by(function):
    """A function of NumPy's that makes an array, for ours."""
    return lambda *arguments: made(lambda: function(*arguments))


def empty(*arguments):
    """Memory that somebody has used before."""
    not_captured("memory")
    used = np.empty(*arguments)
    used.view(np.uint8).fill(0xA5)
    return ndarray(used, Device.current[-1])


def where(condition, a, b):
    given = [one for one in (condition, a, b) if isinstance(one, ndarray)]
    hosts = [getattr(one, "host", one) for one in (condition, a, b)]
    return made(lambda: np.where(*hosts), *given)


def concatenate(arrays):
    arrays = [*arrays]
    return made(lambda: np.concatenate([array.host for array in arrays]), *arrays)


def unique(array, return_inverse):
    assert return_inverse
    found = np.unique(array.get(), return_inverse=True)
    return tuple(made(lambda one=one: one) for one in found)


def broadcast_to(array, shape):
    return ndarray(np.broadcast_to(array.host, shape), array.device.id)
