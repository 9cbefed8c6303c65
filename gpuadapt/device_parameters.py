"""The parameters of one device: their gradients are checked here, and their kernels launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.overflow import CHECKS, Measured
from gpuadapt.kernels.numerics.scalar_layout import FIRST, SCALE

from . import launch
from .arrays import (
    address,
    bits_of,
    contiguous,
    dtype_name,
    merged_bounds,
    numpy_dtype,
    on_device,
    overlaps_any,
    owner,
    plain,
)
from .errors import CaptureError
from .gradients import check_apart, check_gradient
from .group import Group, coefficients
from .hyperparameters import check_fits
from .pages import has_pages
from .parameter import Parameter, prepare_rows
from .rowgrad import RowGrad
from .step_plan import (
    Bucket,
    CoefficientBlock,
    CoefficientLayout,
    Launch,
    StepGradients,
    StepPlan,
)
from .sums import added


class DeviceParameters:
    """The parameters of one device, and the plan of their steps.

    Parameters
    ----------
    backend : {"cpu", "cuda"}
    indices : ndarray of int64, shape (n,)
        The device's parameters among ``all_parameters``.
    all_parameters : sequence of Parameter
        The parameters of all devices.
    """

    def __init__(
        self, backend: str, indices: HostArray, all_parameters: Sequence[Parameter]
    ) -> None:
        self.backend = backend
        self.indices = indices
        self.parameters: list[Parameter] = [all_parameters[k] for k in indices.tolist()]
        self._all_parameters = all_parameters
        self.device = on_device(self.parameters[0].array if self.parameters else None)
        with self.device:
            self.scalars = launch.step_scalars(backend)
        arrays = [array for parameter in self.parameters for array in parameter.arrays]
        self._owners = {owner(array) for array in arrays}
        self._memory_ranges = merged_bounds(arrays)
        """Sorted (device, start, end) of the memory that gradients may not alias."""
        self._memory_orders = [_memory_order(parameter) for parameter in self.parameters]
        """For each parameter "C", "F", or "" if its arrays are not contiguous in one order."""
        pages = [has_pages(parameter.saved_arrays.values()) for parameter in self.parameters]
        self._paged = [k for k, has in enumerate(pages) if has]
        """Parameters whose states are large enough to choose their page size."""
        self._exact = [k for k, parameter in enumerate(self.parameters) if parameter.exact]
        """Tables whose rows catch up with skipped steps."""
        names = tuple(parameter.dtype_name for parameter in self.parameters)
        layout = CoefficientLayout((), (), FIRST, (), ())
        self.plan = StepPlan(layout, [], names, self._headers(names), [])
        self._bucket_updates: dict[tuple[Rule, Formats, bytes], launch.Update] = {}

    def _headers(self, dtype_names: Sequence[str]) -> Any:
        """The check of NumPy gradients of these dtypes; None on a GPU."""
        if self.backend != "cpu":
            return None
        expected = [
            (np.broadcast_to(np.zeros((), numpy_dtype(name, "cpu")), parameter.shape), order)
            if order
            else None
            for parameter, order, name in zip(
                self.parameters, self._memory_orders, dtype_names, strict=True
            )
        ]
        updated = [parameter.user_array for parameter in self.parameters]
        ranges = [(start, end) for _, start, end in self._memory_ranges]
        return launch.array_headers(updated, expected, ranges)

    def check_gradients(self, grads: list[Any], groups: Sequence[Group]) -> StepGradients:
        """Check the gradients of a step, and find out how each is launched.

        Parameters
        ----------
        grads : list of array, RowGrad, list of these, or None
            One for each parameter of the device.
        groups : sequence of Group

        Raises
        ------
        GradientError
            If a gradient does not fit its parameter, or aliases memory of a parameter or state.
        ParameterError
            If a parameter has been made read-only.
        """
        if self.plan.headers is not None:
            addresses, missing = self.plan.headers.addresses(grads)
        else:
            addresses, missing = np.zeros(len(grads), np.int64), len(grads)
        others: dict[int, Array | RowGrad] = {}
        dtype_names = list(self.plan.dtype_names) if missing else []
        sums: dict[int, Array | RowGrad] = {}
        for k in np.flatnonzero(addresses == 0).tolist() if missing else ():
            parameter, grad = self.parameters[k], grads[k]
            if isinstance(grad, (list, tuple)):
                grad = sums[k] = added(parameter, grad)
            if grad is None:
                continue
            check_gradient(parameter, grad)
            parameter.check_writable()
            dense = not isinstance(grad, (RowGrad, np.generic))
            grad = grad if isinstance(grad, RowGrad) else plain(grad)
            for array in grad.arrays if isinstance(grad, RowGrad) else (grad,):
                self._check_alias(parameter.name, array)
            if dense and self._memory_orders[k] and contiguous(grad, self._memory_orders[k]):
                dtype_names[k] = dtype_name(grad) or ""
                addresses[k] = address(grad)
                missing -= 1
            else:
                others[k] = grad
        if sums:
            grads = [sums.get(k, grad) for k, grad in enumerate(grads)]
        for number, group in enumerate(groups):
            if group.updates_rows:
                for k in np.flatnonzero(addresses).tolist():
                    if self.parameters[k].group == number:
                        addresses[k], others[k] = 0, plain(grads[k])
                        missing += 1
        for k in self._exact:
            # A table with a history takes a dense gradient as a gradient of all rows.
            if self.parameters[k].history is not None and addresses[k]:
                addresses[k], others[k] = 0, plain(grads[k])
                missing += 1
        names = tuple(dtype_names) or self.plan.dtype_names
        return StepGradients(addresses, others, missing == 0, names, sums)

    def check_values(self, values: Mapping[str, float], gradients: StepGradients) -> None:
        """Check that the gradients can be scaled and clipped by hyperparameters of the step.

        float64 gradients are scaled and clipped in float64, whatever their parameter's dtype.

        Parameters
        ----------
        values : mapping of str to float
            "grad_scale", "clip_factor" and "clip_value".
        gradients : StepGradients

        Raises
        ------
        HyperparameterError
            If a value overflows or vanishes in the type of the arithmetic.
        """
        for k, parameter in enumerate(self.parameters):
            grad = gradients.others.get(k)
            if grad is None and not gradients.addresses[k]:
                continue
            array = grad.values if isinstance(grad, RowGrad) else grad
            name_of = gradients.dtype_names[k] if grad is None else dtype_name(array)
            wide = name_of == "float64"
            dtype = np.dtype(np.float64) if wide else parameter.compute_dtype
            for name, value in values.items():
                check_fits(name, value, dtype)
                if parameter.exact and value < 1:
                    # The history has it in the parameter's compute type: it must not become 0.
                    check_fits(name, value, parameter.compute_dtype)

    def needs_history(self, gradients: StepGradients, groups: Sequence[Group]) -> bool:
        """True if a table's history has to be started, or started anew for another rule."""
        return any(
            isinstance(gradients.others.get(k), RowGrad)
            and self.parameters[k].needs_history(groups[self.parameters[k].group].rule)
            for k in self._exact
        )

    def _updates_rows(self, k: int, grad: Array | RowGrad, groups: Sequence[Group]) -> bool:
        """True if a gradient is launched by rows."""
        parameter = self.parameters[k]
        by_rows = isinstance(grad, RowGrad) or parameter.history is not None
        return by_rows or groups[parameter.group].updates_rows

    def addresses(self, grads: list[Any]) -> HostArray | None:
        """Addresses of gradients that the plan's buckets take, int64; None if one is different."""
        addresses, missing = self.plan.headers.addresses(grads)
        return None if missing else addresses

    def repeat(self, addresses: HostArray) -> None:
        """Launch the buckets of the last step with gradients at other addresses.

        ``addresses`` are int64, shape (parameters,).
        """
        plan = self.plan
        for bucket, update in zip(plan.buckets, plan.updates, strict=True):
            update(bucket.addresses(addresses), bucket.offsets, self.scalars.numbers)

    def _check_alias(self, name: str, array: Array) -> None:
        """Raise `GradientError` if a gradient aliases memory of a parameter or state."""
        base = owner(array)
        separate = base is not None and base not in self._owners and None not in self._owners
        if not separate and overlaps_any(array, self._memory_ranges):
            check_apart(name, array, self._all_parameters)

    def make_plan(
        self,
        groups: Sequence[Group],
        active: HostArray,
        inactive_steps: HostArray,
        dtype_names: tuple[str, ...],
    ) -> StepPlan:
        """Plan the steps of parameters that have gradients, by the groups' rules.

        Parameters
        ----------
        groups : sequence of Group
        active : ndarray of bool, shape (parameters,)
            True for parameters that have a gradient.
        inactive_steps : ndarray of int64, shape (parameters,)
            Number of steps in which each had none.
        dtype_names : tuple of str
            The dtype of each gradient.
        """
        rules = tuple(group.rule for group in groups)
        layout = _coefficient_layout(self.parameters, groups, active, inactive_steps)
        members: dict[tuple[Rule, Formats], list[int]] = {}
        for k, parameter in enumerate(self.parameters):
            if self._memory_orders[k]:
                key = rules[parameter.group], parameter.formats_for(dtype_names[k])
                members.setdefault(key, []).append(k)
        offsets, count = np.array(layout.offsets, np.int64), len(self.parameters)
        buckets = [
            Bucket(*key, np.array(indices), len(indices) == count, offsets[indices])
            for key, indices in members.items()
        ]
        same = dtype_names == self.plan.dtype_names
        headers = self.plan.headers if same else self._headers(dtype_names)
        return StepPlan(layout, buckets, dtype_names, headers, [])

    def check_capturable(self, gradients: StepGradients, groups: Sequence[Group]) -> list[Any]:
        """Check that a step can be captured in a CUDA graph.

        Returns
        -------
        list
            Index, addresses, shapes and strides of the gradients with a launch of their own.

        Raises
        ------
        CaptureError
            If the step waits for the GPU, or needs new memory.
        """
        for k in gradients.sums:
            raise CaptureError(
                f"gradient of {self.parameters[k].name!r}: several are added up in new memory, "
                "which cannot be captured: add them up in an array of yours"
            )
        signature: list[Any] = []
        for k, grad in gradients.others.items():
            group = groups[self.parameters[k].group]
            if self._updates_rows(k, grad, groups):
                if not group.skips_out_of_range(self.backend):
                    raise CaptureError('check="raise" waits for the GPU: it cannot be captured')
                launch.check_sort()
                values = grad.values if isinstance(grad, RowGrad) else grad
                if not values.flags.c_contiguous:
                    raise CaptureError("rows of gradients with gaps are copied: write them without")
                if isinstance(grad, RowGrad) and not grad.captured:
                    raise CaptureError(
                        "row numbers with gaps, or of other types than int32 and int64, are copied"
                    )
            arrays = grad.arrays if isinstance(grad, RowGrad) else (grad,)
            signature.append((k, [(a.data.ptr, a.shape, a.strides) for a in arrays]))
        return signature

    def make_launches(self, gradients: StepGradients, groups: Sequence[Group]) -> list[Launch]:
        """Compile the kernels of a step and check its row indices; write nothing.

        Raises
        ------
        RowIndexError
        """
        launches = []
        with self.device:
            plan = self.plan
            if gradients.all_addressed and not plan.updates:
                plan.updates[:] = [self._bucket_update(bucket) for bucket in plan.buckets]
            for k, grad in gradients.others.items():
                parameter, offset = self.parameters[k], plan.layout.offsets[k]
                group = groups[parameter.group]
                if self._updates_rows(k, grad, groups):
                    skip = group.skips_out_of_range(self.backend)
                    rows = prepare_rows(parameter, group.rule, grad, skip, group.max_row_norm)
                    launches.append(Launch(*rows, offset))
                elif (bits := bits_of(grad)).size:
                    update = parameter.strided_update(group.rule, dtype_name(grad) or "")
                    launches.append(Launch(update, bits, offset))
            # Last, since their kernels can count the step, which one for any strides cannot.
            for bucket in plan.buckets:
                addresses = bucket.addresses(gradients.addresses)
                if gradients.all_addressed or addresses.any():
                    launches.append(Launch(self._bucket_update(bucket), addresses, bucket.offsets))
            self._paged = [k for k in self._paged if self._touch(k, gradients)]
        return launches

    def _touch(self, k: int, gradients: StepGradients) -> bool:
        """Announce what a step writes of a parameter; True if later steps have to as well."""
        grad = gradients.others.get(k)
        if grad is None and not gradients.addresses[k]:
            return True
        return self.parameters[k].touch(grad)

    def _bucket_update(self, bucket: Bucket) -> launch.Update:
        """The update of a bucket, compiled when it is first needed."""
        key = bucket.rule, bucket.formats, bucket.indices.tobytes()
        if key not in self._bucket_updates:
            operands = [self.parameters[k].operand for k in bucket.indices]
            self._bucket_updates[key] = launch.bind_multi_tensor(
                bucket.rule, self.backend, bucket.formats, operands
            )
        return self._bucket_updates[key]

    def scalars_of_step(
        self, step: int, groups: Sequence[Group], values: Sequence[Mapping[str, float]]
    ) -> list[float]:
        """Compute the scalars of a step, bias corrections among them.

        Parameters
        ----------
        step : int
            Counted from 0.
        groups : sequence of Group
        values : sequence of mapping of str to float
            The hyperparameters of each group at the step.

        Returns
        -------
        list of float, length plan.layout.width
            See `kernels.numerics.scalar_layout`.

        Raises
        ------
        HyperparameterError
        """
        scalars = [0.0, values[0].get("grad_scale", 1.0)]
        for number, inactive_steps, _ in self.plan.layout.blocks:
            group = groups[number]
            updates = step + 1 - inactive_steps
            scalars += coefficients(group.rule, values[number], updates, group.largest_value)
            scalars.append(float(updates))
            if group.approximate:
                scalars += group.history_scalars(values[number], updates)
        return scalars

    def measure(self, launches: Sequence[Launch]) -> Measured:
        """Compute partial sums of squares and largest magnitudes of the unscaled gradients."""
        # The sums have the same total in any order.
        launches = sorted(launches, key=lambda one: one.update.overflow_check)
        counts = [one.update.partials(one.gradient) for one in launches]
        total, start = sum(counts), 0
        ends = [0] * CHECKS
        with self.device:
            partial = self.scalars.partial_sums(2 * total)
            for one, count in zip(launches, counts, strict=True):
                stop = start + count
                sums, peaks = partial[start:stop], partial[total + start : total + stop]
                one.update.squares(one.gradient, self.scalars.numbers, sums, peaks)
                ends[one.update.overflow_check :] = [stop] * (CHECKS - one.update.overflow_check)
                start = stop
        return Measured(partial, tuple(ends))

    def update(self, launches: Sequence[Launch]) -> None:
        """Launch; from here on arrays are written."""
        with self.device:
            for k, one in enumerate(launches, 1):
                last = k == len(launches)
                numbers = self.scalars.last_numbers() if last else self.scalars.numbers
                one.update(one.gradient, one.offset, numbers)
            self.scalars.end_step()


def _coefficient_layout(
    parameters: Sequence[Parameter],
    groups: Sequence[Group],
    active: HostArray,
    inactive_steps: HostArray,
) -> CoefficientLayout:
    """Lay out the coefficients of parameters that have gradients."""
    block_offsets: dict[tuple[int, int], int] = {}
    width = FIRST
    offsets, scale_indices, clip_indices = [0] * len(parameters), [SCALE], []
    for k in np.flatnonzero(active).tolist():
        key = parameters[k].group, int(inactive_steps[k])
        if key not in block_offsets:
            block_offsets[key] = width
            group = groups[key[0]]
            names = [*group.rule.coefficients, "t"]
            scale_indices += [width + n for n, name in enumerate(names) if name == "h_grad_scale"]
            clip_indices += [width + n for n, name in enumerate(names) if name == "h_clip_factor"]
            width += len(names) + group.history_width
        offsets[k] = block_offsets[key]
    blocks = tuple(CoefficientBlock(*key, offset) for key, offset in block_offsets.items())
    indices = tuple(scale_indices), tuple(clip_indices)
    return CoefficientLayout(blocks, tuple(offsets), width, *indices)


def _memory_order(parameter: Parameter) -> str:
    """The order ("C" or "F") in which all arrays of a parameter are contiguous, or ""."""
    orders = "C" if parameter.needs_c_order else "CF"
    contiguous_in = [
        order for order in orders if all(contiguous(array, order) for array in parameter.arrays)
    ]
    return contiguous_in[0] if contiguous_in and parameter.array.size else ""


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
