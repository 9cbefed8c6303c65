"""The order of an optimizer's work on the streams of its GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from . import launch
from .errors import BackendError, CaptureError

CAPTURED = (
    "the stream of the steps before is being captured: call this on that stream, or when the "
    "capture has ended"
)


class StreamOrder:
    """The stream of each device that an optimizer used last; the one that comes next waits for it.

    Whatever gives a GPU work calls `follow` before. So states are there when the first step runs,
    and a step finds what a load has written, whichever streams they are on. On the stream of the
    call before there is nothing to wait for.

    Parameters
    ----------
    devices : iterable of CuPy devices
        What has been made on them so far, the current streams have.
    """

    def __init__(self, devices: Iterable[Any]) -> None:
        self._devices = {device.id: device for device in devices}
        find: Any = launch.stream_finder() if self._devices else None
        self.current = find
        """The function that returns the current stream of a device, by its number."""
        self._last = {number: find(number) for number in self._devices}

    def follow(self) -> bool:
        """Let the current streams wait for those of the calls before.

        Returns
        -------
        bool
            True if one of them is being captured, which waits for nothing: replays do.

        Raises
        ------
        CaptureError
            The stream of the call before is being captured, and it is not the current one.
        """
        capturing = False
        for number, last in self._last.items():
            stream = self.current(number)
            if stream.is_capturing():
                capturing = True
            elif stream is not last and stream.ptr != last.ptr:
                with self._devices[number]:
                    if last.is_capturing():
                        raise CaptureError(CAPTURED)
                    stream.wait_event(last.record())
                self._last[number] = stream
        return capturing

    def wait(self) -> None:
        """Wait for all that the devices have to do, on any stream.

        Raises
        ------
        CaptureError
            A current stream is being captured.
        """
        if self.follow():
            raise CaptureError("this waits for the GPU: call it when the capture has ended")
        for device in self._devices.values():
            device.synchronize()

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """Within this a stream goes on where the current one is, which goes on after it.

        Parameters
        ----------
        stream : CuPy stream
            Of the only device.
        """
        ((number, device),) = self._devices.items()
        current = self.current(number)
        with device:
            if stream.ptr == current.ptr:
                yield
                return
            stream.wait_event(current.record())
            with stream:
                yield
            current.wait_event(stream.record())
            self._last[number] = stream

    def device_of(self, stream: Any, name: str) -> Any:
        """The device in which a stream has to be entered.

        Parameters
        ----------
        stream : CuPy stream
        name : str
            Of a parameter, for the message.

        Raises
        ------
        BackendError
            No parameter is on the stream's device.
        """
        number = getattr(stream, "device_id", -1)
        known = next(iter(self._devices)) if number < 0 else number
        if known not in self._devices:
            places = ", ".join(map(str, self._devices))
            raise BackendError(
                f"stream: it is of device {number}, but parameters such as {name!r} are on device "
                f"{places}: make the stream there (with cupy.cuda.Device(n): cupy.cuda.Stream())"
            )
        return self._devices[known]
