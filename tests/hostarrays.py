"""The arrays, devices, streams and graphs of `hostcupy`: NumPy memory behind CuPy's surface.

Its arrays are not NumPy arrays, so that code which would fail on a real CuPy array fails here too;
a captured step that waits or finds memory fails as well.
"""

from __future__ import annotations

import contextlib
import ctypes

import numpy as np


class Device:
    """A CUDA device, by number."""

    def __init__(self, number=None):
        self.id = self.current[-1] if number is None else number

    def __eq__(self, other):
        return self.id == other.id

    __hash__ = None

    current = [0]
    """The stack of devices that are entered."""

    def synchronize(self):
        not_captured("waiting")

    def __enter__(self):
        self.current.append(self.id)
        return self

    def __exit__(self, *_):
        self.current.pop()


class ndarray:
    """An array "on the GPU": NumPy memory behind CuPy's surface."""

    def __init__(self, host, device=0, imported=False):
        self.host = host
        self.device = Device(device)
        self.imported = imported

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
    memory = property(lambda self: _root(self.host))

    def get(self):
        not_captured("waiting")
        return self.host.copy()

    def copy(self):
        not_captured("memory")
        return ndarray(self.host.copy(), Device.current[-1])

    def reshape(self, *shape):
        view = self.host.reshape(*shape)
        assert np.shares_memory(view, self.host) or not view.size
        return ndarray(view, self.device.id)

    def view(self, dtype):
        return ndarray(self.host.view(dtype), self.device.id)

    def __len__(self):
        return len(self.host)

    def __getitem__(self, key):
        return ndarray(self.host[getattr(key, "host", key)], self.device.id)

    def __setitem__(self, key, value):
        self.host[getattr(key, "host", key)] = getattr(value, "host", value)

    def _with(self, function, other):
        return made(function(self.host, getattr(other, "host", other)))

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
        return made(self.host.astype(dtype))

    def any(self):
        return made(np.asarray(self.host.any()))

    def argmax(self):
        return made(np.asarray(self.host.argmax()))

    def __bool__(self):
        not_captured("waiting")
        return bool(self.host)

    def __int__(self):
        return int(self.host)

    def fill(self, value):
        run(lambda: self.host.fill(value))

    def sort(self):
        assert self.ndim == 1 and self.flags.c_contiguous
        assert self.device.id == Device.current[-1]
        assert Pool.current, "what sorting needs would come from a pool that others use"
        run(self.host.sort)


class UnownedMemory:
    """What another library has allocated; each import of an array makes one."""


class MemoryPointer:
    """Where an array is."""

    def __init__(self, array):
        self.array, self.ptr, self.mem = array, array.host.ctypes.data, array.memory
        if array.imported:
            self.mem = UnownedMemory()

    def copy_from_host_async(self, address, size):
        not_captured("a copy from the host")
        assert self.array.flags.c_contiguous and size == self.array.host.nbytes
        ctypes.memmove(self.ptr, address, size)


class Stream:
    """A CUDA stream: what it is given is done at once, or captured."""

    current: list[Stream] = []
    captured: list | None = None

    def __init__(self, non_blocking=False):
        self.ptr = id(self)

    def __enter__(self):
        self.current.append(self)
        return self

    def __exit__(self, *_):
        self.current.pop()

    def begin_capture(self):
        assert self.current[-1] is self
        Stream.captured = []

    def end_capture(self):
        captured, Stream.captured = Stream.captured, None
        return Graph(captured)

    def synchronize(self):
        not_captured("waiting")

    def is_capturing(self):
        return Stream.captured is not None

    def record(self):
        return Event(self)

    def wait_event(self, event):
        """What is done at once need not wait; the order that was asked for is noted."""
        Stream.waits.append((self.ptr, event.stream.ptr))

    waits: list[tuple[int, int]] = []
    """Pairs of handles: the first stream has been told to wait for the second one."""


class ExternalStream(Stream):
    """A stream that another library has made, known by its handle."""

    def __init__(self, handle, device_id=-1):
        self.ptr, self.device_id = handle, device_id


Stream.current.append(Stream())


class Event:
    """What a stream has to do at some time."""

    def __init__(self, stream):
        self.stream = stream


class Graph:
    """What a stream has captured."""

    def __init__(self, nodes):
        self.nodes = nodes

    def launch(self, stream=None):
        for node in self.nodes:
            node()


def run(action):
    """Do something on the current stream."""
    if Stream.captured is None:
        action()
    else:
        Stream.captured.append(action)


def not_captured(what):
    """A captured step neither waits nor finds memory."""
    assert Stream.captured is None, what


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


def made(host):
    """A new array."""
    not_captured("memory")
    return ndarray(host, Device.current[-1])


def asarray(array):
    if hasattr(array, "__cuda_array_interface__"):
        return _imported(array)
    return array if isinstance(array, ndarray) else made(np.array(array))


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
    return ndarray(array.__dlpack__(stream=Stream.current[-1].ptr), number, imported=True)


def ascontiguousarray(array):
    return array if array.flags.c_contiguous else made(array.host.copy())


def zeros_like(array, dtype):
    return made(np.zeros_like(array.host, dtype))


def made_by(function):
    """A function of NumPy's that makes an array, for ours."""
    return lambda *arguments: made(function(*arguments))


def empty(*arguments):
    """Memory that somebody has used before."""
    used = np.empty(*arguments)
    used.view(np.uint8).fill(0xA5)
    return made(used)


def where(condition, a, b):
    return made(np.where(*(getattr(one, "host", one) for one in (condition, a, b))))


def concatenate(arrays):
    return made(np.concatenate([array.host for array in arrays]))


def unique(array, return_inverse):
    assert return_inverse
    return tuple(map(made, np.unique(array.host, return_inverse=True)))


def broadcast_to(array, shape):
    return ndarray(np.broadcast_to(array.host, shape), array.device.id)


def shares_memory(a, b):
    return np.shares_memory(a.host, b.host)
