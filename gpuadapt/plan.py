"""The plan of a step: what steps with the same rules and kinds of gradients have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.catchup.plan import CatchUpPlan, catch_up_plan, history_layout
from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.scalar_layout import FIRST, SCALE

from . import launch
from .device_parameters import DeviceParameters
from .gradients import DenseGradient, RowGradient, StepGradient, StridedGradient, address_finder
from .group import Group, Resolved
from .parameter import Parameter


class Bucket(NamedTuple):
    """Parameters that one multi-tensor launch updates."""

    update: launch.Update
    indices: HostArray | None
    """int64, shape (n,): the parameters among the device's; None for all of them."""
    offsets: HostArray
    """int64, shape (n,): the offset of each parameter's coefficients in the step's scalars."""


class SingleUpdate(NamedTuple):
    """A parameter whose gradient has a launch of its own: rows, or strided elements."""

    parameter: Parameter
    update: Any
    """An `Update`, or a `RowUpdate` if the launch is by rows."""
    by_rows: bool
    kind: type[Any]
    """The type of the gradient: `RowGrad` or an array type."""
    dtype: np.dtype
    """The dtype of the gradient's values."""
    order: str
    """The order of a contiguous gradient, which a bucket would take; "" if there is none."""
    offset: int
    """The offset of the parameter's coefficients in the step's scalars."""
    history: Any
    """The `StepHistory` of the update; None if rows do not catch up."""


class CoefficientBlock(NamedTuple):
    """Coefficients that parameters of one group with equally many updates share."""

    group: int
    inactive_steps: int
    """Number of steps in which these parameters had no gradient."""
    history: CatchUpPlan | None
    """How exact rows of these parameters skip steps, if the history needs more scalars."""


class CoefficientLayout(NamedTuple):
    """The indices of coefficients in the scalars of a step."""

    blocks: tuple[CoefficientBlock, ...]
    offsets: tuple[int, ...]
    """The offset of each parameter's block; 0 for parameters without a gradient."""
    width: int
    """Number of scalars."""
    scale_indices: tuple[int, ...]
    """The scalars that are the gradients' scale."""
    clip_indices: tuple[int, ...]
    """The scalars that are the clip factor."""


class DevicePlan(NamedTuple):
    """The part of a plan for the parameters of one device."""

    device: DeviceParameters
    expected: tuple[DenseGradient | None, ...]
    """For each parameter the gradient that a bucket takes; None if there is none."""
    finder: Any
    """The check of NumPy gradients (`launch.address_finder`); None on a GPU."""
    unaddressed: tuple[tuple[int, SingleUpdate | None], ...]
    """Parameters that no bucket has: their indices, and their launch if they have a gradient."""
    buckets: tuple[Bucket, ...]
    layout: CoefficientLayout
    numbers: HostArray | None
    """float64, shape (layout.width,): the step's scalars on the CPU; None on a GPU."""


class StepPlan(NamedTuple):
    """What steps have in common while rules, kinds of gradients and absent gradients stay.

    `run.match` tells if a step follows a plan.
    """

    groups: tuple[tuple[Rule, bool], ...]
    """The rule of each group, and whether its dense gradients are launched by rows."""
    devices: tuple[DevicePlan, ...]
    active: HostArray
    """bool, shape (parameters,): True for those with a gradient."""
    inactive_steps: HostArray
    """int64, shape (parameters,): number of steps in which each active one had no gradient."""
    dtypes: tuple[tuple[np.dtype, bool], ...]
    """The types in which gradients are scaled and clipped; True if only values below 1 matter."""


def make_plan(
    devices: Sequence[DeviceParameters],
    gradients: Sequence[Sequence[StepGradient]],
    groups: Sequence[Group],
    settings: Sequence[Resolved],
    inactive_steps: HostArray,
) -> StepPlan:
    """Plan steps with gradients like these: compile their kernels, and write nothing.

    Parameters
    ----------
    devices : sequence of DeviceParameters
    gradients : sequence of sequence of (DenseGradient, RowGradient, StridedGradient or None)
        For each device and parameter, from `gradients.classified`.
    groups : sequence of Group
    settings : sequence of Resolved
        Of the groups, at this step.
    inactive_steps : ndarray of int64, shape (parameters,)

    Raises
    ------
    GradientError, ParameterError
        A table cannot be updated by rows.
    """
    rules = [now.rule for now in settings]
    active = np.zeros(len(inactive_steps), bool)
    parts = []
    for device, own in zip(devices, gradients, strict=True):
        active[device.indices] = [one is not None for one in own]
        with device.device:
            parts.append(_device_plan(device, own, groups, rules, inactive_steps[device.indices]))
    keys = tuple((now.rule, now.by_rows) for now in settings)
    dtypes = {dtype for part in parts for dtype in _scaled_dtypes(part)}
    return StepPlan(keys, tuple(parts), active, inactive_steps, tuple(dtypes))


def with_inactive_steps(
    plan: StepPlan, groups: Sequence[Group], inactive_steps: HostArray
) -> StepPlan | None:
    """The plan for other numbers of steps without gradients; None if it does not fit them.

    Parameters
    ----------
    plan : StepPlan
    groups : sequence of Group
    inactive_steps : ndarray of int64, shape (parameters,)
    """
    rules = [rule for rule, _ in plan.groups]
    parts = []
    for part in plan.devices:
        indices, parameters = part.device.indices, part.device.parameters
        active = plan.active[indices].tolist()
        own = inactive_steps[indices]
        layout = _coefficient_layout(parameters, active, groups, rules, own)
        other_history = any(
            single is not None and single.history is not single.parameter.history
            for _, single in part.unaddressed
        )
        if other_history or layout[1:] != part.layout[1:]:
            return None
        parts.append(part._replace(layout=layout))
    return plan._replace(devices=tuple(parts), inactive_steps=inactive_steps)


def _device_plan(
    device: DeviceParameters,
    gradients: Sequence[StepGradient],
    groups: Sequence[Group],
    rules: Sequence[Rule],
    inactive_steps: HostArray,
) -> DevicePlan:
    """The part of a plan for one device."""
    parameters = device.parameters
    updates: dict[int, Any] = {}
    for k, one in enumerate(gradients):
        if one is not None and not isinstance(one, DenseGradient):
            rule, name = rules[parameters[k].group], one.dtype_name
            by_rows = isinstance(one, RowGradient)
            updates[k] = (
                parameters[k].row_update(rule, name)
                if by_rows
                else parameters[k].strided_update(rule, name)
            )
    active = [one is not None for one in gradients]
    layout = _coefficient_layout(parameters, active, groups, rules, inactive_steps)
    singles = {
        k: SingleUpdate(
            parameters[k], update, isinstance(one, RowGradient), one.kind, one.dtype,
            one.order if isinstance(one, StridedGradient) else "", layout.offsets[k],
            parameters[k].history,
        )
        for k, update in updates.items()
        if (one := gradients[k]) is not None and not isinstance(one, DenseGradient)
    }  # fmt: skip
    expected = tuple(one if isinstance(one, DenseGradient) else None for one in gradients)
    unaddressed = tuple((k, singles.get(k)) for k, one in enumerate(expected) if one is None)
    finder = address_finder(device, expected)
    numbers = np.zeros(layout.width) if device.backend == "cpu" else None
    buckets = _buckets(device, expected, rules, np.array(layout.offsets, np.int64))
    return DevicePlan(device, expected, finder, unaddressed, buckets, layout, numbers)


def _buckets(
    device: DeviceParameters,
    expected: Sequence[DenseGradient | None],
    rules: Sequence[Rule],
    offsets: HostArray,
) -> tuple[Bucket, ...]:
    """The multi-tensor launches of a device."""
    members: dict[tuple[Rule, Formats], list[int]] = {}
    known: dict[tuple[int, str, int], list[int]] = {}
    used = set()
    for k, (parameter, one) in enumerate(zip(device.parameters, expected, strict=True)):
        if not device.memory_orders[k]:
            continue
        # A parameter without a gradient stays in its bucket: others may lack theirs at times.
        name = parameter.dtype_name if one is None else one.dtype_name
        key = id(parameter.formats), name, parameter.group
        if key not in known:  # formats take long to compare
            formats = parameter.formats_for(name)
            known[key] = members.setdefault((rules[parameter.group], formats), [])
        known[key].append(k)
        if one is not None:
            used.add(id(known[key]))
    buckets = []
    for (rule, formats), own in members.items():
        if id(own) in used:
            indices = np.array(own, np.int64)
            update = device.update_of(rule, formats, indices)
            whole = len(own) == len(expected)
            buckets.append(Bucket(update, None if whole else indices, offsets[indices]))
    return tuple(buckets)


def _coefficient_layout(
    parameters: Sequence[Parameter],
    active: Sequence[bool],
    groups: Sequence[Group],
    rules: Sequence[Rule],
    inactive_steps: HostArray,
) -> CoefficientLayout:
    """Lay out the coefficients of parameters that have gradients."""
    members: dict[tuple[int, int], list[int]] = {}
    for k, (parameter, steps) in enumerate(zip(parameters, inactive_steps.tolist(), strict=True)):
        if active[k]:
            members.setdefault((parameter.group, steps), []).append(k)
    width, offsets = FIRST, [0] * len(parameters)
    blocks, scale_indices, clip_indices = [], [SCALE], []
    for (number, steps), own in members.items():
        rule, history = rules[number], None
        if groups[number].approximate and any(parameters[k].history is not None for k in own):
            history = catch_up_plan(rule)
        names = [*rule.coefficients, "t"]
        scale_indices += [width + n for n, name in enumerate(names) if name == "h_grad_scale"]
        clip_indices += [width + n for n, name in enumerate(names) if name == "h_clip_factor"]
        blocks.append(CoefficientBlock(number, steps, history))
        for k in own:
            offsets[k] = width
        width += len(names)
        if history is not None:
            layout = history_layout(rule, history)
            width += layout.width - layout.displacement
    indices = tuple(scale_indices), tuple(clip_indices)
    return CoefficientLayout(tuple(blocks), tuple(offsets), width, *indices)


def _scaled_dtypes(part: DevicePlan) -> list[tuple[np.dtype, bool]]:
    """The types in which the gradients of a device are scaled and clipped.

    float64 gradients are in float64, whatever their parameter's dtype. The history of exact rows
    has values below 1 in the parameter's compute type, in which they must not become 0.
    """
    singles = {k: one.dtype for k, one in part.unaddressed if one is not None}
    dtypes: list[tuple[np.dtype, bool]] = []
    for k, (parameter, one) in enumerate(zip(part.device.parameters, part.expected, strict=True)):
        dtype = singles.get(k) if one is None else one.dtype
        if dtype is not None:
            wide = dtype == np.float64
            dtypes.append((np.dtype(np.float64) if wide else parameter.compute_dtype, False))
            if parameter.exact:
                dtypes.append((parameter.compute_dtype, True))
    return dtypes
