"""The devices, streams, events and graphs of `hostcupy`: what a stream is given waits in a queue.

A queue runs when somebody waits for it, so what nothing orders runs late. As CUDA does, the null
stream waits for the blocking streams of its device and they wait for it; non-blocking streams wait
for events alone. As long as nobody asks for `queued`, the null stream does at once what it is
given: with no other stream that is the same.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

DEVICES = 2


class CudaError(RuntimeError):
    """What CuPy raises where CUDA refuses a call."""

    status = 906
    __module__ = "cupy_backends.cuda.api.runtime"


class Device:
    """A CUDA device, by number."""

    def __init__(self, number: int | None = None) -> None:
        self.id = self.current[-1] if number is None else number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None  # type: ignore[assignment]

    current = [0]
    """The stack of devices that are entered."""

    def synchronize(self) -> None:
        refuse_capture(self.id, "waiting for a device", legacy=False)
        made = [queue for queue in Queue.pending.values() if queue.device == self.id]
        for queue in made if Work.oldest_first else reversed(made):
            queue.finish()

    def __enter__(self) -> Device:
        self.current.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        self.current.pop()


class Work:
    """One thing that a stream has to do, after others."""

    late = False
    """Whether the null stream queues too."""
    oldest_first = True
    """Which of a device's streams run first when somebody waits for all of them."""

    def __init__(self, action: Callable[[], object] | None, needs: Sequence[Work | None]) -> None:
        self.action, self.done = action, False
        self.kept: list[Any] = []
        """Memory that has been freed meanwhile."""
        self.needs = [one for one in needs if one is not None and not one.done]

    def run(self) -> None:
        """Do it, and before that what it needs."""
        stack = [self]
        while stack:
            work = stack[-1]
            waiting = [] if work.done else [one for one in work.needs if not one.done]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            if not work.done:
                action, work.action, work.needs, work.done = work.action, None, [], True
                if action is not None:
                    action()
                work.kept = []


class Queue:
    """What a stream has been given, and what it captures."""

    pending: dict[int, Queue] = {}
    """By number: those with work that is not done."""
    numbers = itertools.count()

    def __init__(self, device: int, null: bool, blocking: bool) -> None:
        self.device, self.null, self.blocking = device, null, blocking
        self.number, self.last = next(self.numbers), Work(None, ())
        self.last.done = True
        self.captured: list[Node] | None = None
        self.broken = False
        """Whether CUDA has refused a call and the capture with it."""

    def add(self, action: Callable[[], object] | None, after: Work | None = None) -> Work:
        """Put work at the end, which comes after other work as well."""
        if self.null:
            refuse_capture(self.device, "the null stream", legacy=True)
        others: list[Work] = []
        if self.null or self.blocking:
            for other in [*Queue.pending.values()]:
                if other.device == self.device and (other.blocking if self.null else other.null):
                    others.append(other.last)
        work = self.last = Work(action, [self.last, after, *others])
        Queue.pending[self.number] = self
        if self.null and not Work.late:
            self.finish()
        return work

    @property
    def idle(self) -> bool:
        """Whether what it is given now may be done at once, since nobody could tell."""
        return self.null and not Work.late and not Queue.pending and not capturing_queues

    def finish(self) -> None:
        """Do all that is there."""
        self.last.run()
        for number, queue in [*Queue.pending.items()]:
            if queue.last.done:
                del Queue.pending[number]


capturing_queues: list[Queue] = []
"""Those that are being captured."""


def refuse_capture(device: int, what: str, legacy: bool) -> None:
    """Refuse what CUDA refuses while a stream of a device is captured.

    ``legacy``: the null stream is used, which waits for blocking streams only.
    """
    for queue in capturing_queues:
        if queue.device == device and (queue.blocking or not legacy):
            queue.broken = True
            raise CudaError(f"{what} while a stream is captured")


NULL = [Queue(number, null=True, blocking=False) for number in range(DEVICES)]


class Stream:
    """A CUDA stream."""

    null: Stream
    current: list[list[Stream]]
    """The stack of streams that are entered, of each device."""
    waits: list[tuple[int, int]] = []
    """Pairs of handles: the first stream has been told to wait for the second one."""
    entered: list[int] = []
    """The devices of entered streams."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.device_id = -1 if null else Device.current[-1]
        self._queue = None if null else Queue(self.device_id, False, not non_blocking)
        self.ptr = 0 if null else id(self)
        known[self.ptr] = self

    @property
    def queue(self) -> Queue:
        """Its queue; the null stream has one for each device."""
        return NULL[Device.current[-1]] if self._queue is None else self._queue

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> Stream:
        device = Device.current[-1] if self.device_id == -1 else self.device_id
        if device != Device.current[-1]:
            raise RuntimeError(
                f"The device that the stream is created on ({device}) does not match with the "
                f"current device ({Device.current[-1]})"
            )
        self.current[device].append(self)
        self.entered.append(device)
        return self

    def __exit__(self, *_: object) -> None:
        self.current[self.entered.pop()].pop()

    def begin_capture(self) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        queue = self.queue
        queue.captured, queue.broken = [], False
        capturing_queues.append(queue)

    def end_capture(self) -> Graph:
        queue = self.queue
        capturing_queues.remove(queue)
        captured, queue.captured = queue.captured, None
        if queue.broken or captured is None:
            raise CudaError("the capture has been made invalid by a call that CUDA has refused")
        return Graph(captured)

    def is_capturing(self) -> bool:
        queue = self.queue
        if queue.null and any(o.blocking and o.device == queue.device for o in capturing_queues):
            raise CudaError("the null stream while a blocking stream is captured")
        return queue.captured is not None

    def synchronize(self) -> None:
        queue = self.queue
        if queue.captured is not None:
            queue.broken = True
            raise CudaError("waiting for a stream that is captured")
        # The null stream has no work later than that of the blocking ones.
        queue.add(None)
        queue.finish()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        queue = self.queue
        event.stream, event.captured = self, queue.captured is not None
        event.work = None if event.captured or queue.idle else queue.add(None)
        return event

    def wait_event(self, event: Event) -> None:
        queue = self.queue
        if event.captured != (queue.captured is not None):
            queue.broken = True
            raise CudaError("a wait that leads into a capture, or out of one")
        if event.stream is not None:
            Stream.waits.append((self.ptr, event.stream.ptr))
        if event.work is not None and not event.work.done:
            queue.add(None, after=event.work)


class ExternalStream(Stream):
    """A stream that another library has made, known by its handle."""

    def __init__(self, handle: int, device_id: int = -1) -> None:
        number = Device.current[-1] if device_id == -1 else device_id
        self.ptr, self.device_id = handle, device_id
        key = handle, number
        other = known.get(handle)
        if handle in (0, 1):
            self._queue = None
        elif isinstance(other, Stream) and other._queue is not None:
            self._queue = other._queue
        else:
            self._queue = foreign.setdefault(key, Queue(number, False, False))


known: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
"""Streams by their handles."""

foreign: dict[tuple[int, int], Queue] = {}
"""The queues of other libraries' streams, by handle and device."""

Stream.null = Stream(null=True)
Stream.current = [[Stream.null] for _ in range(DEVICES)]


class Event:
    """What a stream had to do at some time."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.stream: Stream | None = None
        self.work: Work | None = None
        self.captured = False

    def record(self, stream: Stream | None = None) -> None:
        (get_current_stream() if stream is None else stream).record(self)

    def synchronize(self) -> None:
        if self.captured:
            raise CudaError("waiting for what is captured")
        if self.work is not None:
            self.work.run()

    @property
    def done(self) -> bool:
        return self.work is None or self.work.done


class Node:
    """One thing that a graph does, by the addresses of arrays, which it does not keep alive."""

    def __init__(self, action: Callable[..., object], memory: Sequence[Any], kernel: bool) -> None:
        self.action, self.kernel = action, kernel
        self.memory = [(weakref.ref(one), *extent(one)) for one in memory]

    def bound(self) -> Callable[[], object]:
        """The action, for memory of which some may be somebody else's by now.

        A kernel may have the address of such memory and read there, but it writes nothing.
        """
        alive = [one() for one, *_ in self.memory]
        freed = {
            start: np.full(size, 0x5A, np.uint8)
            for one, (_, start, size) in zip(alive, self.memory, strict=True)
            if one is None
        }
        assert self.kernel or not freed, "a graph copies, fills or sorts memory that has been freed"
        if not freed:
            return lambda alive=alive: self.action()  # type: ignore[misc]

        def moved(address: int) -> int:
            for start, other in freed.items():
                if start <= address < start + other.size:
                    return int(other.ctypes.data) + address - start
            return address

        def run() -> None:
            self.action(moved)
            written = any((other != 0x5A).any() for other in freed.values())
            assert not written, "a graph writes into memory that has been freed"

        return lambda alive=alive: run()  # type: ignore[misc]


def extent(memory: Any) -> tuple[int, int]:
    """The address and the length of an array's memory; of a pool nothing."""
    return (memory.ctypes.data, memory.nbytes) if isinstance(memory, np.ndarray) else (0, 0)


class Graph:
    """What a stream has captured."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    def launch(self, stream: Stream | None = None) -> None:
        queue = (get_current_stream() if stream is None else stream).queue
        for bound in [node.bound() for node in self.nodes]:
            queue.add(bound)


def keep(memory: Any) -> None:
    """Keep memory until the work at hand is done: CuPy gives what is freed to later work alone."""
    for queue in Queue.pending.values():
        queue.last.kept.append(memory)


def get_current_stream(device_id: int = -1) -> Stream:
    """`cupy.cuda.get_current_stream`."""
    return Stream.current[Device.current[-1] if device_id == -1 else device_id][-1]


def current_queue() -> Queue:
    """The queue of the current stream."""
    return get_current_stream().queue


def run(action: Callable[..., object], *memory: Any, kernel: bool = False) -> None:
    """Do something on the current stream, which uses memory; the action does not keep it alive.

    That of a ``kernel`` takes a function of addresses: where else the memory is, if it was freed.
    """
    queue = current_queue()
    if queue.captured is not None:
        queue.captured.append(Node(action, memory, kernel))
    elif queue.idle:
        action()
    else:
        queue.add(lambda: (action(), memory))


def wait() -> None:
    """Wait for the current stream."""
    if not current_queue().idle:
        get_current_stream().synchronize()


def not_captured(what: str) -> None:
    """A captured step finds no memory, and copies none from the host."""
    queue = current_queue()
    if queue.captured is not None:
        queue.broken = True
        raise CudaError(f"{what} while a stream is captured")


@contextlib.contextmanager
def queued(oldest_first: bool = True) -> Iterator[None]:
    """Within this the null stream queues too; at the end all devices have done what they had."""
    Work.late, Work.oldest_first = True, oldest_first
    try:
        yield
        for number in range(DEVICES):
            Device(number).synchronize()
    finally:
        Work.late = False
        Work.oldest_first = True
        for stack in Stream.current:
            del stack[1:]
        Stream.entered.clear()
        for queue in capturing_queues:
            queue.captured = None
        capturing_queues.clear()
        Queue.pending.clear()
