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
from .arrays import numbered
from .device_parameters import DeviceParameters
from .gradients import Classified, DenseGradient, RowGradient, StridedGradient
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
    offsets: HostArray
    """int64: the offset of each parameter's block; 0 for parameters without a gradient."""
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
    """The check of the gradients that buckets take (`launch.address_finder`)."""
    unaddressed: tuple[tuple[int, SingleUpdate | None], ...]
    """Parameters that no bucket has: their indices, and their launch if they have a gradient."""
    without_history: tuple[Parameter, ...]
    """Exact tables that a bucket has, which it may while none of their rows can have skipped a
    step."""
    buckets: tuple[Bucket, ...]
    layout: CoefficientLayout
    numbers: HostArray | None
    """float64, shape (layout.width,): the step's scalars on the CPU; None on a GPU."""
    by_value: bool
    """Launches can take the step's scalars as arguments."""


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
    gradients: Sequence[Classified],
    groups: Sequence[Group],
    settings: Sequence[Resolved],
    active: HostArray,
    inactive_steps: HostArray,
) -> StepPlan:
    """Plan steps with gradients like these: compile their kernels, and write nothing.

    Parameters
    ----------
    devices : sequence of DeviceParameters
    gradients : sequence of Classified
        For each device.
    groups : sequence of Group
    settings : sequence of Resolved
        Of the groups, at this step.
    active : ndarray of bool, shape (parameters,)
        True for those with a gradient.
    inactive_steps : ndarray of int64, shape (parameters,)

    Raises
    ------
    GradientError, ParameterError
        A table cannot be updated by rows.
    """
    rules = [now.rule for now in settings]
    parts = []
    dtypes: set[tuple[np.dtype, bool]] = set()
    for device, own in zip(devices, gradients, strict=True):
        with device.device:
            parts.append(_device_plan(device, own, groups, rules, inactive_steps[device.indices]))
        dtypes |= _scaled_dtypes(own)
    keys = tuple((now.rule, now.by_rows) for now in settings)
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
        indices = part.device.indices
        active, own = plan.active[indices], inactive_steps[indices]
        layout = _coefficient_layout(part.device, active, groups, rules, own)
        other_history = any(
            single is not None and single.history is not single.parameter.history
            for _, single in part.unaddressed
        )
        same = layout[2:] == part.layout[2:]
        if other_history or not (same and np.array_equal(layout.offsets, part.layout.offsets)):
            return None
        parts.append(part._replace(layout=layout))
    return plan._replace(devices=tuple(parts), inactive_steps=inactive_steps)


def _device_plan(
    device: DeviceParameters,
    gradients: Classified,
    groups: Sequence[Group],
    rules: Sequence[Rule],
    inactive_steps: HostArray,
) -> DevicePlan:
    """The part of a plan for one device."""
    kinds = [kind for _, kind in gradients.kinds]
    dense = [kind if isinstance(kind, DenseGradient) else None for kind in kinds]
    expected = tuple(map(dense.__getitem__, gradients.numbers.tolist()))
    others = [k for k, one in enumerate(expected) if one is None]
    updates: dict[int, Any] = {}
    for k in others:
        kind, parameter = kinds[gradients.numbers[k]], device.parameters[k]
        if isinstance(kind, RowGradient):
            updates[k] = parameter.row_update(rules[parameter.group], kind.dtype_name)
        elif isinstance(kind, StridedGradient):
            updates[k] = parameter.strided_update(rules[parameter.group], kind.dtype_name)
    layout = _coefficient_layout(device, gradients.active, groups, rules, inactive_steps)
    singles = {}
    for k, update in updates.items():
        one: Any = kinds[gradients.numbers[k]]
        singles[k] = SingleUpdate(
            device.parameters[k], update, isinstance(one, RowGradient), one.kind, one.dtype,
            one.order if isinstance(one, StridedGradient) else "", int(layout.offsets[k]),
            device.parameters[k].history,
        )  # fmt: skip
    unaddressed = tuple((k, singles.get(k)) for k in others)
    in_bucket = np.array(
        [one.exact and isinstance(kind, DenseGradient) for (one, _), kind in gradients.kinds], bool
    )
    tables = np.flatnonzero(in_bucket[gradients.numbers]).tolist()
    without_history = tuple(device.parameters[k] for k in tables)
    numbers = np.zeros(layout.width) if device.backend == "cpu" else None
    buckets = _buckets(device, gradients, rules, layout.offsets)
    by_value = numbers is None and not singles and launch.takes_by_value(layout.width)
    return DevicePlan(
        device, expected, gradients.finder, unaddressed, without_history, buckets, layout, numbers,
        by_value,
    )  # fmt: skip


def _buckets(
    device: DeviceParameters,
    gradients: Classified,
    rules: Sequence[Rule],
    offsets: HostArray,
) -> tuple[Bucket, ...]:
    """The multi-tensor launches of a device."""
    members: dict[tuple[Rule, Formats], int] = {}
    used = set()
    of_kinds = np.full(len(gradients.kinds), -1)
    for number, ((parameter, order), kind) in enumerate(gradients.kinds):
        if order:
            # A parameter without a gradient stays in its bucket: others may lack theirs at times.
            dense = kind if isinstance(kind, DenseGradient) else None
            name = dense.dtype_name if dense else parameter.dtype_name
            key = rules[parameter.group], parameter.formats_for(name)
            of_kinds[number] = bucket = members.setdefault(key, len(members))
            if dense:
                used.add(bucket)
    of_parameters = of_kinds[gradients.numbers]
    buckets = []
    for (rule, formats), bucket in members.items():
        if bucket in used:
            indices = np.flatnonzero(of_parameters == bucket)
            update = device.update_of(rule, formats, indices)
            whole = len(indices) == len(of_parameters)
            buckets.append(Bucket(update, None if whole else indices, offsets[indices]))
    return tuple(buckets)


def _coefficient_layout(
    device: DeviceParameters,
    active: HostArray,
    groups: Sequence[Group],
    rules: Sequence[Rule],
    inactive_steps: HostArray,
) -> CoefficientLayout:
    """Lay out the coefficients of parameters that have gradients."""
    indices = np.flatnonzero(active)
    groups_of, steps_of = device.groups[indices].tolist(), inactive_steps[indices].tolist()
    keys = [steps * len(groups) + number for steps, number in zip(steps_of, groups_of, strict=True)]
    firsts, of_indices = numbered(keys)
    starts = np.zeros(len(firsts), np.int64)
    approximate = np.array([group.approximate for group in groups], bool)[device.groups[indices]]
    with_history = {
        of_indices[n]
        for n in np.flatnonzero(approximate).tolist()
        if device.parameters[indices[n]].history is not None
    }
    width, blocks, scale_indices, clip_indices = FIRST, [], [SCALE], []
    for place, k in enumerate(firsts):
        number, steps = groups_of[k], steps_of[k]
        rule = rules[number]
        history = catch_up_plan(rule) if place in with_history else None
        names = [*rule.coefficients, "t"]
        scale_indices += [width + n for n, name in enumerate(names) if name == "h_grad_scale"]
        clip_indices += [width + n for n, name in enumerate(names) if name == "h_clip_factor"]
        blocks.append(CoefficientBlock(number, steps, history))
        starts[place] = width
        width += len(names)
        if history is not None:
            layout = history_layout(rule, history)
            width += layout.width - layout.displacement
    offsets = np.zeros(len(active), np.int64)
    offsets[indices] = starts[of_indices]
    return CoefficientLayout(
        tuple(blocks), offsets, width, tuple(scale_indices), tuple(clip_indices)
    )


def _scaled_dtypes(gradients: Classified) -> set[tuple[np.dtype, bool]]:
    """The types in which the gradients of a device are scaled and clipped.

    float64 gradients are in float64, whatever their parameter's dtype. The history of exact rows
    has values below 1 in the parameter's compute type, in which they must not become 0.
    """
    dtypes: set[tuple[np.dtype, bool]] = set()
    for (parameter, _), kind in gradients.kinds:
        if kind is not None:
            wide = kind.dtype == np.float64
            dtypes.add((np.dtype(np.float64) if wide else parameter.compute_dtype, False))
            if parameter.exact:
                dtypes.add((parameter.compute_dtype, True))
    return dtypes
