"""The parameters of one device, and what is known of their memory."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from gpuadapt.kernels.addresses import address
from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.language.rule import Rule

from . import launch
from .arrays import contiguous, merged_bounds, on_device, overlaps_any, owner
from .pages import has_pages
from .parameter import Parameter

MAX_UPDATES = 16
"""Number of multi-tensor updates that are kept; the oldest is dropped for a new one."""


class DeviceParameters:
    """The parameters of one device, and what is known of their memory.

    Parameters
    ----------
    backend : {"cpu", "cuda"}
    indices : ndarray of int64, shape (n,)
        The device's parameters among ``all_parameters``.
    all_parameters : sequence of Parameter
        The parameters of all devices.

    Attributes
    ----------
    parameters : list of Parameter
    scalars : StepScalars
    memory_orders : list of str
        For each parameter "C", "F", or "" if its arrays are not contiguous in one order.
    paged : list of int
        Parameters whose states are large enough to choose their page size.
    """

    def __init__(
        self, backend: str, indices: HostArray, all_parameters: Sequence[Parameter]
    ) -> None:
        self.backend = backend
        self.indices = indices
        self.all_parameters = all_parameters
        self.parameters: list[Parameter] = [all_parameters[k] for k in indices.tolist()]
        self.device = on_device(self.parameters[0].array if self.parameters else None)
        with self.device:
            self.scalars = launch.step_scalars(backend)
        memory = [parameter.arrays for parameter in self.parameters]
        arrays = [array for own in memory for array in own]
        self._owners = {owner(array) for array in arrays}
        self.memory_ranges = merged_bounds(arrays)
        """Sorted (device, start, end) of the memory that gradients may not alias."""
        self._starts = [start for _, start, _ in self.memory_ranges]
        self._ends = [end for _, _, end in self.memory_ranges]
        self.range_starts = np.array(self._starts, np.int64)
        self.range_ends = np.array(self._ends, np.int64)
        self.memory_orders = [
            _memory_order(parameter, own)
            for parameter, own in zip(self.parameters, memory, strict=True)
        ]
        self.paged = [
            k
            for k, parameter in enumerate(self.parameters)
            if not parameter.residence.settled and has_pages(parameter.saved_arrays.values())
        ]
        self._updates: dict[tuple[Rule, Formats, bytes], launch.Update] = {}

    def update_of(self, rule: Rule, formats: Formats, indices: HostArray) -> launch.Update:
        """The update of several parameters in one launch, compiled when it is first needed.

        Parameters
        ----------
        rule : Rule
        formats : Formats
        indices : ndarray of int64, shape (n,)
            Contiguous parameters of these formats.
        """
        key = rule, formats, indices.tobytes()
        if key not in self._updates:
            if len(self._updates) >= MAX_UPDATES:
                del self._updates[next(iter(self._updates))]
            operands = [self.parameters[k].operand for k in indices.tolist()]
            self._updates[key] = launch.bind_multi_tensor(rule, self.backend, formats, operands)
        return self._updates[key]

    def lie_apart(self, *arrays: HostArray) -> bool:
        """True if contiguous NumPy arrays lie beside the memory of parameters and states.

        False if one does not, or has gaps: `may_alias` looks closer.
        """
        for array in arrays:
            start = address(array)
            before = bisect.bisect_left(self._starts, start + array.nbytes)
            apart = before == 0 or self._ends[before - 1] <= start
            if not (apart and array.flags.forc):
                return False
        return True

    def may_alias(self, array: Array) -> bool:
        """True if an array may share memory with a parameter or state of this device."""
        base = owner(array)
        separate = base is not None and base not in self._owners and None not in self._owners
        return not separate and overlaps_any(array, self.memory_ranges)


def _memory_order(parameter: Parameter, arrays: Sequence[Array]) -> str:
    """The order ("C" or "F") in which all arrays of a parameter are contiguous, or ""."""
    if not parameter.array.size:
        return ""
    for order in "C" if parameter.needs_c_order else "CF":
        if all(contiguous(array, order) for array in arrays):
            return order
    return ""


def by_device(parameters: Sequence[Parameter]) -> list[DeviceParameters]:
    """Split parameters by device, GPUs first; without parameters, an empty part of the CPU.

    After all checks only a launch can fail, for example when CuPy compiles one for strided
    arrays: by then nothing on the CPU has been written.
    """
    if not parameters:
        return [DeviceParameters("cpu", np.zeros(0, np.int64), ())]
    members: dict[tuple[bool, int], list[int]] = {}
    for k, parameter in enumerate(parameters):
        on_cpu = parameter.backend == "cpu"
        members.setdefault((on_cpu, 0 if on_cpu else parameter.array.device.id), []).append(k)
    return [
        DeviceParameters("cpu" if on_cpu else "cuda", np.array(indices), parameters)
        for (on_cpu, _), indices in sorted(members.items())
    ]
