"""The parameters of one device, and what is known of their memory."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from gpuadapt.kernels.addresses import Layouts, address
from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.language.rule import Rule

from . import launch
from .arrays import arena_memory, bounds, memory_ranges, numbered
from .pages import has_pages
from .parameter import Parameter

MAX_UPDATES = 16
"""Number of multi-tensor updates that are kept; the oldest is dropped for a new one."""


class Alike(NamedTuple):
    """Parameters of one group with one storage, and with one order of their memory."""

    parameter: Parameter
    """The first of them."""
    order: str
    """The order ("C" or "F") in which all arrays of a parameter are contiguous, or ""."""


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
    number : int
        CUDA's number of the device; -1 for the CPU.
    contexts : tuple of context managers
        Those in which the device is the current one; none on the CPU.
    scalars : StepScalars
    alike : list of Alike
    alike_numbers : ndarray of int64, shape (n,)
        The index in ``alike`` of each parameter.
    groups : ndarray of int64, shape (n,)
        The group of each parameter.
    sizes : ndarray of int64, shape (n,)
        The number of elements of each parameter.
    range_starts, range_ends : ndarray of int64, shape (m,), ascending
        First address, and address behind the last, of memory that gradients may not alias.
    paged : list of int
        Parameters whose states are large enough to choose their page size.
    """

    def __init__(
        self, backend: str, indices: HostArray, all_parameters: Sequence[Parameter]
    ) -> None:
        self.backend = backend
        self.indices = indices
        self.parameters: list[Parameter] = [all_parameters[k] for k in indices.tolist()]
        self.device = self.parameters[0].array.device if backend == "cuda" else nullcontext()
        self.number = self.parameters[0].array.device.id if backend == "cuda" else -1
        self.contexts = (self.device,) if backend == "cuda" else ()
        with self.device:
            self.scalars = launch.step_scalars(backend)
        arrays: list[Array] = []
        firsts: list[int] = []
        for parameter in self.parameters:
            firsts.append(len(arrays))
            arrays += parameter.arrays
        layouts = launch.layouts(backend, arrays)
        self.sizes = layouts.sizes[firsts]
        self.alike, self.alike_numbers = _alike(self.parameters, layouts, firsts, self.sizes)
        groups = [one.parameter.group for one in self.alike]
        self.groups = np.array(groups, np.int64)[self.alike_numbers]
        # Many small states lie side by side in one array.
        states = np.ones(len(arrays), bool)
        states[firsts] = False
        chunks = arena_memory(layouts.bases[states].tolist())
        self.range_starts, self.range_ends = memory_ranges(layouts, chunks)
        self._starts, self._ends = self.range_starts.tolist(), self.range_ends.tolist()
        self._lows, self._highs, self._firsts = layouts.lows, layouts.highs, np.array(firsts)
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
            operands = (self.parameters[k].operand for k in indices.tolist())
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
        if not array.size:
            return False
        _, low, high = bounds(array)
        before = bisect.bisect_left(self._starts, high)
        return before > 0 and self._ends[before - 1] > low

    def beside(self, array: Array) -> list[Parameter]:
        """Parameters between whose elements, or those of whose states, an array has some."""
        _, low, high = bounds(array)
        met = np.flatnonzero((self._lows < high) & (self._highs > low))
        owners = np.searchsorted(self._firsts, met, "right") - 1
        return [self.parameters[k] for k in np.unique(owners).tolist()]


def _alike(
    parameters: Sequence[Parameter], layouts: Layouts, firsts: list[int], sizes: HostArray
) -> tuple[list[Alike], HostArray]:
    """Find parameters that are alike.

    Parameters
    ----------
    parameters : sequence of Parameter
    layouts : Layouts
        Of the arrays of all parameters.
    firsts : list of int
        The index in ``layouts`` of each parameter's first array.
    sizes : ndarray of int64, shape (parameters,)

    Returns
    -------
    list of Alike, and the number of each parameter's: ndarray of int64, shape (parameters,)
    """
    if not parameters:
        return [], np.zeros(0, np.int64)
    # In which order are all arrays of a parameter contiguous?
    c, f = (np.logical_and.reduceat(layouts.orders[name], firsts) for name in "CF")
    orders = np.where(c, 1, np.where(f, 2, 0)) * (sizes > 0)
    # Each storage is of one group.
    keys = [4 * id(one.storage) + n for one, n in zip(parameters, orders.tolist(), strict=True)]
    examples, numbers = numbered(keys)
    found = []
    for k in examples:
        order = ("", "C", "F")[orders[k]]
        usable = order != "F" or not parameters[k].needs_c_order
        found.append(Alike(parameters[k], order if usable else ""))
    return found, numbers


def by_device(parameters: Sequence[Parameter]) -> list[DeviceParameters]:
    """Split parameters by device, GPUs first; without parameters, an empty part of the CPU.

    After all checks only a launch can fail, for example when CuPy compiles one for strided
    arrays: by then nothing on the CPU has been written.
    """
    if not parameters:
        return [DeviceParameters("cpu", np.zeros(0, np.int64), ())]
    numbers = np.array([-1 if p.backend == "cpu" else p.array.device.id for p in parameters])
    places = {*numbers.tolist()}
    return [
        DeviceParameters(
            "cpu" if place < 0 else "cuda", np.flatnonzero(numbers == place), parameters
        )
        for place in sorted(places, key=lambda place: (place < 0, place))
    ]
