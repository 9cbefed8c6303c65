"""Where the kernels of a step run: on the CPU, or on torch's current stream of a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.commit import Call, within
from gpuadapt.kernels.formats import BITS
from gpuadapt.kernels.numerics.overflow import Measured, decide

from .. import launch
from ..launch import StepScalars
from ..measure import Launch, measure
from ..step_options import StepResult
from .shards import Cut, Spot, of_all_parts
from .tensors import real_view


def place_of(tensor: Tensor) -> torch.device:
    """Return the device on which a tensor is updated."""
    return tensor.device


def stream_of(device: torch.device) -> int:
    """Return the handle of torch's current stream on a CUDA device."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def device_view(tensor: Tensor) -> Array:
    """Return a real tensor on a CUDA device as a CuPy array that shares its memory."""
    import cupy

    return cupy.from_dlpack(tensor)


@contextmanager
def entered(device: torch.device) -> Iterator[None]:
    """Within this, CuPy's current device and stream are those of torch."""
    if device.type == "cpu":
        yield
        return
    current, stream = on_stream(device)
    with current, stream:
        yield


def on_stream(device: torch.device) -> tuple[Any, Any]:
    """Return the contexts in which a CUDA device and torch's stream of it are CuPy's."""
    import cupy

    stream = cupy.cuda.ExternalStream(stream_of(device), device.index)
    return cupy.cuda.Device(device.index), stream


def array_view(tensor: Tensor) -> Array:
    """Return a real tensor as an array that shares its memory, as kernels see it.

    Parameters
    ----------
    tensor : Tensor
        On the CPU or a CUDA device, of any strides.

    Returns
    -------
    NumPy or CuPy array
        Of the tensor's shape; elements of 16 bits are uint16.
    """
    plain = tensor.detach()
    if plain.dtype in (torch.bfloat16, torch.float16):
        plain = plain.view(torch.int16)
    array: Array = plain.numpy() if place_of(tensor).type == "cpu" else device_view(plain)
    bits = BITS.get(array.itemsize)
    return array if bits is None else array.view(bits)


def flat_view(tensor: Tensor) -> Array:
    """Return the memory of a dense tensor as a flat array, elements of 16 bits as their bits."""
    plain = real_view(tensor)
    return array_view(torch.as_strided(plain, (plain.numel(),), (1,)))


class Places:
    """The scalars of steps on each device of an optimizer's parameters."""

    def __init__(self) -> None:
        self._scalars: dict[torch.device, StepScalars] = {}
        self._rounds: dict[torch.device, int] = {}
        """Number of rounds that each device has run."""

    def _begin(
        self, device: torch.device, numbers: HostArray, measured: bool
    ) -> tuple[StepScalars, list[Call]]:
        """Give a device, which is the current one, the scalars of its next round."""
        scalars = self._scalars.get(device)
        if scalars is None:
            scalars = launch.step_scalars(device.type)
            scalars.restart(0)
            self._rounds[device] = 0
            self._scalars[device] = scalars  # last: an interrupt may come between these lines
        scalars.load(self._rounds[device], [numbers])  # type: ignore[list-item]
        return scalars, scalars.select_step(None, (), 1, measured)

    def calls(self, launches: Mapping[Spot, Sequence[Launch]], numbers: HostArray) -> list[Call]:
        """The calls of all updates of a round with these scalars."""
        calls: list[Call] = []
        for (device, _), own in launches.items():
            if device.type == "cpu":
                for update, gradient, offset in own:
                    calls += update.calls(gradient, offset, numbers)
                continue
            with entered(device):
                scalars, first = self._begin(device, numbers, False)
                calls += self._on_gpu(device, scalars, first, own)
        return calls

    def _on_gpu(
        self,
        device: torch.device,
        scalars: StepScalars,
        first: list[Call],
        launches: Sequence[Launch],
    ) -> list[Call]:
        """The calls of a round on a CUDA device, of which the last update counts it."""
        calls = [*first, *launch.update_calls(launches, scalars)]
        calls += scalars.end_step()
        counted = self._rounds.__setitem__, device, self._rounds[device] + 1
        return [*within(calls, *on_stream(device)), counted]

    def clipped_calls(
        self,
        device: torch.device,
        launches: Sequence[Launch],
        numbers: HostArray,
        limits: tuple[float, float],
        clip_places: Sequence[int],
    ) -> tuple[StepScalars, list[Call]]:
        """Measure on one CUDA device, without waiting for it; the calls that clip and update.

        Parameters
        ----------
        device : torch.device
        launches : sequence of Launch
        numbers : ndarray of float64
        limits : pair of float
            Largest norm and largest magnitude.
        clip_places : sequence of int
            The scalars that become the clip factor.

        Returns
        -------
        StepScalars
            It has the step's result.
        list of Call
        """
        with entered(device):
            scalars, first = self._begin(device, numbers, True)
            found = measure(launches, scalars, scalars.numbers)
            _, judged = scalars.finish_norm(found, None, *limits, False, clip_places, None)
            return scalars, self._on_gpu(device, scalars, [*first, *judged], launches)

    def measured(
        self,
        launches: Mapping[Spot, Sequence[Launch]],
        cuts: Sequence[Cut],
        numbers: HostArray,
        limits: tuple[float, float],
        skip: bool,
    ) -> StepResult:
        """Measure all gradients, and decide on the host; waits for a GPU, and other processes.

        Parameters
        ----------
        launches : mapping of Spot to sequence of Launch
        cuts : sequence of Cut
            Between which processes parameters are divided.
        numbers : ndarray of float64
        limits : pair of float
            Largest norm and largest magnitude.
        skip : bool
            Whether a step is skipped if gradients are not finite.
        """
        found: list[Measured] = []
        parts: dict[Cut, list[Measured]] = {}
        for (device, cut), own in launches.items():
            with entered(device):
                scalars, _ = self._begin(device, numbers, True)
                one = measure(own, scalars, scalars.numbers)
                one = one._replace(numbers=np.array(scalars.to_host(one.numbers)))
            (found if cut is None else parts.setdefault(cut, [])).append(one)
        found += [of_all_parts(parts.get(cut, []), cut) for cut in cuts]
        verdict = decide(found, *limits)
        return StepResult(verdict.norm, verdict.clip_factor, skip and not verdict.finite)


def result_of(last: Any) -> StepResult | None:
    """Return the result of a step; waits for a GPU that has it."""
    if last is None or isinstance(last, StepResult):
        return last
    return StepResult(*last.result())
