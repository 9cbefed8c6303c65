"""Run steps: match gradients with a plan, compute scalars, measure, launch, count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import DeviceArray, HostArray
from gpuadapt.kernels.commit import Call, commit, within
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.overflow import decide
from gpuadapt.kernels.numerics.scalar_layout import RANDOM_PERIOD

from . import launch
from .arrays import bits_of, contiguous, plain
from .capture import (
    UNLIKE,
    GraphCapture,
    StepSignature,
    check_signature,
    memory_of,
    signature_of,
)
from .device_parameters import DeviceParameters, by_device
from .errors import CaptureError, RowIndexError, StateError
from .gradients import OWN_TYPES, adapted, check_single, classified
from .group import Group, Resolved, coefficients
from .hyperparameters import check_fits, whole
from .launch import in_default_modes
from .loss_scale import LossScale
from .measure import Launch, measure
from .parameter import Parameter
from .plan import DevicePlan, SingleUpdate, StepPlan, make_plan, with_inactive_steps
from .rowgrad import RowGrad, prepared
from .step_options import DEFAULT_OPTIONS, StepOptions, StepResult
from .streams import StreamOrder
from .sums import added

SYNC_PERIOD = 64
"""Number of steps after which the host asks the GPU how many it has skipped."""

MAX_REPLAYS = 512
"""Number of replays whose scalars can be computed ahead; a GPU has memory for more."""

MAX_STEPS = 2**63 - 1
"""Number of steps that can be counted."""

TOO_MANY = "step: 2^63 - 1 steps are as many as can be counted; load a state with fewer"

MAX_PLANS = 4
"""Number of plans that are kept, for training that takes several kinds of steps in turns."""

UNMEASURED = StepResult(None, 1.0, False)

Singles = list[tuple[int, SingleUpdate, Any]]
"""(index, update, gradient) of parameters that have a launch of their own."""

Matched = tuple[HostArray, Singles]
"""The gradients of one device: addresses, 0 for none, and the others."""


class Steps:
    """The steps of an optimizer.

    A GPU may skip a step, or replay one, without the host's knowledge. The number of steps is
    then the GPU's, and the host's number is an upper bound until `sync_counts`.
    """

    def __init__(self, parameters: Sequence[Parameter], groups: Sequence[Group]) -> None:
        self._parameters, self._groups = parameters, groups
        self.on_gpu = any(parameter.backend == "cuda" for parameter in parameters)
        """True if some parameters are on a GPU: their steps are those of `take_on_gpu`."""
        self._own_types = OWN_TYPES.union(parameter.array_type for parameter in parameters)
        """Types of gradients that need not be adapted."""
        self._adapts = False
        """True if the last step had others: the next one adapts them at once."""
        self._count = 0
        """Number of steps, including those that the GPU may have skipped."""
        self._synced_count = 0
        """Number of steps when the parameters' `update_count` was last set."""
        self._unconfirmed = 0
        """Number of the last steps that the GPU may have skipped."""
        self._plans: tuple[StepPlan, ...] = ()
        """The plan of the last step, then earlier ones."""
        self._options = DEFAULT_OPTIONS
        """Options of the last step."""
        self._result: DeviceParameters | StepResult | None = None
        """The result of the last step, or the device that has it."""
        self._devices: list[DeviceParameters] = []
        self._loaded_key: Any = None
        """Versions and options behind the scalars of unconfirmed steps on the GPU."""
        self._capturable = False
        self._previous: StepSignature | None = None
        """The signature of the last step, if steps may be captured."""
        self._capture: GraphCapture | None = None
        self._kept: dict[int, Any] = {}
        """The memory of all captured steps: somebody may still have a graph of one."""
        self.streams = _order_of(parameters)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own: plans and GPU counts are not for them.
        state = self.renewed(self._parameters, self._groups).__dict__ | {"_kept": {}}
        del state["streams"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, streams=_order_of(state["_parameters"]))

    def renewed(self, parameters: Sequence[Parameter], groups: Sequence[Group]) -> Steps:
        """New steps that continue the count with other parameters and groups; waits for a GPU."""
        new = Steps(parameters, groups)
        new._count = new._synced_count = self.sync_counts()
        new._result = self.last
        new._kept = self._kept
        return new

    @property
    def plans(self) -> tuple[StepPlan, ...]:
        """The plan of the last step, then earlier ones."""
        return self._plans

    @property
    def count(self) -> int:
        """Number of steps taken; waits for the GPU if only that knows."""
        if not self._unconfirmed:
            return self._count
        (device,) = self._devices
        taken = device.scalars.steps()
        if self._capture is None:
            self._count = taken
        # Otherwise prepared replays may still be to come.
        self._unconfirmed = self._count - taken
        return taken

    @property
    def known_count(self) -> tuple[int, int]:
        """Number of steps, and of the last ones that a GPU may have skipped; waits for nothing."""
        return self._count, self._unconfirmed

    def last_coefficients(self) -> dict[str, tuple[Rule, list[float]]]:
        """By parameter, its rule in the last step and the coefficients; waits for a GPU."""
        found = {}
        for part in self._plans[0].devices if self._plans else ():
            with part.device.device:
                scalars = _last_scalars(part).tolist()
            for parameter, offset in zip(
                part.device.parameters, part.layout.offsets.tolist(), strict=True
            ):
                rule, _ = self._plans[0].groups[parameter.group]
                found[parameter.name] = rule, scalars[offset : offset + len(rule.coefficients)]
        return found

    @property
    def last(self) -> StepResult | None:
        """The result of the last step; waits for the GPU."""
        if isinstance(self._result, DeviceParameters):
            norm, factor, skipped = self._result.scalars.result()
            return StepResult(norm if self._options.needs_norm else None, factor, skipped)
        return self._result

    def sync_counts(self) -> int:
        """Set the parameters' `update_count`; returns the number of steps, waits for a GPU."""
        count = self.count
        if count > self._synced_count and self._plans:
            plan = self._plans[0]
            inactive = plan.inactive_steps.tolist()
            for k in np.flatnonzero(plan.active).tolist():
                self._parameters[k].update_count = count - inactive[k]
        self._synced_count = count
        return count

    def restart_calls(self, count: int, updates: Sequence[int]) -> list[Call]:
        """The calls that let it continue from a number of steps, and of updates per parameter."""
        after: dict[str, Any] = {
            "_count": count, "_synced_count": count, "_unconfirmed": 0, "_result": None,
            "_plans": (), "_loaded_key": None,
        }  # fmt: skip
        plan = self._plans[0] if self._plans and self._capture is not None else None
        if plan is not None:
            inactive = count - np.array(updates, np.int64)
            plan = with_inactive_steps(plan, self._groups, inactive)
        if plan is not None:
            after["_plans"] = (plan,)
        else:
            after |= {"_capture": None, "_previous": None}
        calls: list[Call] = [(vars(self).update, after)]
        calls += [group.schedules.restart_call() for group in self._groups]
        return [*calls, (self._restart_scalars, self._devices)]

    def devices(self) -> list[DeviceParameters]:
        """The parameters by device, split when first needed."""
        if not self._devices:
            devices = by_device(self._parameters)
            self._restart_scalars(devices)
            self._devices = devices
        return self._devices

    @property
    def capturable(self) -> bool:
        """True if steps may be captured."""
        return self._capturable

    @capturable.setter
    def capturable(self, value: bool) -> None:
        if value and [device.backend for device in self.devices()] != ["cuda"]:
            raise CaptureError("capturable: the parameters are not all on one CUDA device")
        if self._capture is not None:
            self.streams.wait()
            self._capture = None  # so that replays that were prepared are not waited for
            self.sync_counts()
            self._loaded_key = None
            self._restart_scalars(self._devices)  # what has been prepared is not for other steps
        self._capturable, self._previous, self._capture = bool(value), None, None

    @in_default_modes
    def take(self, grads: list[Any], options: StepOptions) -> None:
        """Take a step of parameters that are all on the CPU.

        Parameters
        ----------
        grads : list of array, RowGrad, list of these, or None
            One for each parameter.
        options : StepOptions
        """
        if self._count >= MAX_STEPS:
            raise StateError(TOO_MANY)
        if self._adapts:
            grads = self._adapted(grads)
        if isinstance(options.scale, LossScale):
            options.scale.check_user(self, False)
        extra = options.values(False) if options.rule_options else {}
        settings = [group.prepare(self._count, options.rule_options) for group in self._groups]
        plans = self._plans
        gradients = match(plans[0], grads, settings) if plans else None
        if gradients is None:
            plans, gradients, _alive = self._planned(grads, settings)
        (part,), (own,) = plans[0].devices, gradients
        if extra:
            check_scaling(plans[0], extra)
        launches = launches_of(part, own, settings)
        numbers: Any = part.numbers
        numbers[:] = scalars_of(part, self._groups, settings, self._count, extra)
        skipped: bool | None = False
        result: Any = UNMEASURED
        if options.needs_norm:
            skipped, device, _none = self._decide(plans[0], [launches], options, None)
            result = StepResult(*device.scalars.result())
        calls: list[Call] = []
        if not skipped:
            for update, gradient, offset in launches:
                calls += update.calls(gradient, offset, numbers)
            calls.append((setattr, self, "_count", self._count + 1))
        if plans is not self._plans:
            calls.append((setattr, self, "_plans", plans))
        if options is not self._options or result is not self._result:
            calls += [(setattr, self, "_options", options), (setattr, self, "_result", result)]
        if isinstance(options.scale, LossScale):
            calls.append(options.scale.use_call(self, bool(skipped)))
        # Nothing above has written to an array.
        commit(calls)

    @in_default_modes
    def take_on_gpu(self, grads: list[Any], options: StepOptions) -> None:
        """Take a step of parameters of which some are on a GPU; as `take`."""
        if self._adapts:
            grads = self._adapted(grads)
        if self._count >= MAX_STEPS:
            raise StateError(TOO_MANY)
        capturing = self.streams.follow()
        if capturing and not self._capturable:
            raise CaptureError("set `capturable`, and take a step, before one is captured")
        if self._unconfirmed:
            if not capturing and self._needs_count():
                self.sync_counts()
            self._call_new_schedules(options)
        # Several devices take the value of a scale from the host.
        scale_on_gpu = not isinstance(options.scale, float) and len(self.devices()) == 1
        if isinstance(options.scale, LossScale):
            options.scale.check_user(self, scale_on_gpu)
        count, plans = self._count, self._plans
        settings = [group.prepare(count, options.rule_options) for group in self._groups]
        gradients = match(plans[0], grads, settings) if plans else None
        if gradients is None and capturing:
            raise CaptureError(UNLIKE)
        if gradients is None:
            plans, gradients, _alive = self._planned(grads, settings)
            if self._count != count:  # the GPU had skipped steps
                count, settings = self._count, self._settings(self._count, options)
        plan, extra, signature, stream = plans[0], {}, None, None
        if options.rule_options:
            extra = options.values(scale_on_gpu)
            check_scaling(plan, extra)
        if self._capturable:
            stream = self.streams.current(plan.devices[0].device.number)
            signature = signature_of(plan, gradients[0], grads, settings, options, stream.ptr)
            check_signature(signature, self._capture, self._previous, capturing)
        scale = options.scale_on(self._parameters[0].array.device) if scale_on_gpu else None
        launches: list[list[Launch]] = []
        scalars: list[list[list[float]]] = []
        for part, own in zip(plan.devices, gradients, strict=True):
            with nullcontext() if part.by_value else part.device.device:
                launches.append(launches_of(part, own, settings))
            if not capturing:
                scalars.append([scalars_of(part, self._groups, settings, count, extra)])
        key = [now.version for now in settings], options.key
        if scalars and self._unconfirmed and key != self._loaded_key:
            count -= self._unconfirmed
            scalars = self._scalars(plan, range(count, self._count + 1), options, extra)
        skipped, result, calls = self._prepared(plan, launches, count, scalars, options, scale)
        after: dict[str, Any] = {
            "_plans": plans, "_options": options, "_result": result, "_previous": signature,
        }  # fmt: skip
        if capturing and signature is not None:
            after["_capture"] = GraphCapture(signature, grads, scale, stream)
            after["_kept"] = self._kept | memory_of(plan)
        else:
            after["_loaded_key"] = key
            after["_count"] = self._count + (not skipped)
            after["_unconfirmed"] = self._unconfirmed + (skipped is None)
        calls.append((vars(self).update, after))
        if isinstance(options.scale, LossScale):
            calls.append(options.scale.use_call(self, bool(skipped) if scale is None else None))
        # Nothing above has written to an array.
        commit(calls)

    def _call_new_schedules(self, options: StepOptions) -> None:
        """Call schedules that have not been called yet for the unconfirmed steps, in order."""
        if self._has_new_schedule():
            for step in range(self._count - self._unconfirmed, self._count):
                self._settings(step, options)

    def _settings(self, step: int, options: StepOptions) -> list[Resolved]:
        """The settings of all groups at a step."""
        return [group.prepare(step, options.rule_options) for group in self._groups]

    def _scalars(
        self, plan: StepPlan, steps: range, options: StepOptions, extra: dict[str, float]
    ) -> list[list[list[float]]]:
        """The scalars of several steps, for each device."""
        of_steps = [self._settings(step, options) for step in steps]
        return [
            [
                scalars_of(part, self._groups, settings, step, extra)
                for step, settings in zip(steps, of_steps, strict=True)
            ]
            for part in plan.devices
        ]

    def _prepared(
        self,
        plan: StepPlan,
        launches: Sequence[Sequence[Launch]],
        first: int,
        scalars: Sequence[Sequence[Sequence[float]]],
        options: StepOptions,
        scale: DeviceArray | None,
    ) -> tuple[bool | None, DeviceParameters | StepResult, list[Call]]:
        """Upload the scalars of a step, and measure its gradients if need be.

        Parameters
        ----------
        plan, launches, options, scale
            As of `_decide`.
        first : int
        scalars : sequence of sequence of sequence of float
            For each device those of steps ``first``, ``first + 1``, ...; empty while a step is
            captured, whose replays have theirs uploaded.

        Returns
        -------
        skipped : bool or None
            As of `_decide`.
        DeviceParameters or StepResult
            The step's result, or the device that has it.
        list of Call
            The calls that update.
        """
        skipped: bool | None = False
        result: Any = plan.devices[0].device if self._capturable else UNMEASURED
        calls: list[Call] = []
        on_host = self._unconfirmed == 0 and not (self._capturable or options.needs_norm)
        if scalars:
            self._loaded_key = None  # until all are uploaded
        try:
            for k, part in enumerate(plan.devices):
                indices, own = part.layout.scale_indices, part.device.scalars
                if part.numbers is not None:
                    part.numbers[:], own.numbers = scalars[k][0], part.numbers
                elif on_host and scale is None and part.by_value:
                    own.give(first, scalars[k][0])
                else:
                    given = scale, indices, options.micro_batches, options.needs_norm
                    with part.device.device:
                        if scalars:
                            own.load(first, scalars[k])
                        calls += within(own.select_step(*given), *part.device.contexts)
            if options.needs_norm:
                skipped, result, judged = self._decide(plan, launches, options, scale)
                calls += judged
            for part, updates in zip(plan.devices, [] if skipped else launches, strict=False):
                with part.device.device:
                    made = launch.update_calls(updates, part.device.scalars)
                    if not part.buckets:  # the last of which counts the step
                        made += part.device.scalars.end_step()
                calls += within(made, *part.device.contexts)
        except BaseException:
            if not self._unconfirmed:
                self._restart_scalars(self._devices)
            raise
        return skipped, result, calls

    def _adapted(self, grads: list[Any]) -> list[Any]:
        """Gradients without other libraries' arrays."""
        self._adapts = not self._own_types.issuperset(map(type, grads))
        return adapted(self._parameters, grads) if self._adapts else grads

    def _planned(
        self, grads: list[Any], settings: Sequence[Resolved]
    ) -> tuple[tuple[StepPlan, ...], list[Matched], list[Any]]:
        """All plans, the first of which is that of the gradients; the gradients, and their arrays.

        Some of the arrays are new, such as sums: their addresses are valid while the list exists.

        Raises
        ------
        GradientError, ParameterError
        """
        if not self._own_types.issuperset(map(type, grads)):
            grads = self._adapted(grads)
        grads = [
            added(parameter, grad) if isinstance(grad, (list, tuple)) else grad
            for parameter, grad in zip(self._parameters, grads, strict=True)
        ]
        devices, earlier = self.devices(), self._plans
        for known in earlier:
            gradients = match(known, grads, settings)
            plan = self._entered(known) if gradients is not None else None
            if gradients is not None and plan is not None:
                return (plan, *(one for one in earlier if one is not known)), gradients, grads
        by_rows = [now.by_rows for now in settings]
        kinds = [
            classified(device, [grads[k] for k in device.indices.tolist()], by_rows)
            for device in devices
        ]
        active = np.zeros(len(grads), bool)
        for device, own in zip(devices, kinds, strict=True):
            active[device.indices] = own.active
        if (
            earlier
            and np.array_equal(active, earlier[0].active)
            and not self._needs_history(grads, settings)
        ):
            inactive = earlier[0].inactive_steps
        else:
            self.sync_counts()
            inactive = self._inactive_steps()
        plan = make_plan(devices, kinds, self._groups, settings, active, inactive)
        gradients = match(plan, grads, settings)
        assert gradients is not None, "a plan follows the gradients that it is made for"
        return (plan, *earlier[: MAX_PLANS - 1]), gradients, grads

    def _entered(self, plan: StepPlan) -> StepPlan | None:
        """An earlier plan for the present counts of updates; None if it does not fit them."""
        current = self._plans[0]
        if plan.inactive_steps is current.inactive_steps:
            return plan
        inactive = current.inactive_steps
        if not np.array_equal(plan.active, current.active):
            self.sync_counts()
            inactive = self._inactive_steps()
        return with_inactive_steps(plan, self._groups, inactive)

    def _inactive_steps(self) -> HostArray:
        """int64, shape (parameters,): steps without a gradient, after `sync_counts`."""
        updates = [parameter.update_count for parameter in self._parameters]
        return self._count - np.array(updates, np.int64)

    def _needs_history(self, grads: Sequence[Any], settings: Sequence[Resolved]) -> bool:
        """True if a table's history has to be started, or started anew for another rule."""
        return any(
            parameter.exact
            and grad is not None
            and parameter.needs_history(settings[parameter.group].rule)
            for parameter, grad in zip(self._parameters, grads, strict=True)
        )

    def _needs_count(self) -> bool:
        """True if the host needs the number of the next step."""
        # The step's scalars do not include the largest norm of a row.
        scheduled = any(callable(group.settings.get("max_row_norm")) for group in self._groups)
        return scheduled or self._unconfirmed > SYNC_PERIOD or self._has_new_schedule()

    def _has_new_schedule(self) -> bool:
        """True if a schedule has not been called yet."""
        return any(group.has_new_schedule for group in self._groups)

    @in_default_modes
    def prepare_replay(self, count: int) -> None:
        """Upload the scalars of the next ``count`` replays of the captured step."""
        if self._capture is None:
            raise CaptureError("prepare_replay: no step has been captured")
        if self.streams.follow():
            raise CaptureError("prepare_replay: call it when the capture has ended")
        if (number := whole(count)) is None or not 1 <= number <= MAX_REPLAYS:
            raise CaptureError(f"prepare_replay: got {count!r}, expected 1 to {MAX_REPLAYS}")
        count = number
        if self._unconfirmed + count > MAX_REPLAYS:
            taken = self.count
            if self._unconfirmed + count > MAX_REPLAYS:
                # So many cannot be under way: they were skipped.
                self._count, self._unconfirmed = taken, 0
                self._restart_scalars(self._devices)
        if self._unconfirmed and self._has_new_schedule():
            self.sync_counts()
        options, plan, first = self._options, self._plans[0], self._count
        self._call_new_schedules(options)
        settings = self._settings(first, options)
        if [rule for rule, _ in plan.groups] != [now.rule for now in settings]:
            raise CaptureError("prepare_replay: the captured step had other options")
        key = [now.version for now in settings], options.key
        if key != self._loaded_key:
            first -= self._unconfirmed
        on_gpu = not isinstance(options.scale, float)
        extra = options.values(on_gpu) if options.rule_options else {}
        (scalars,) = self._scalars(plan, range(first, self._count + count), options, extra)
        (device,) = self._devices
        self._loaded_key = None  # until all are uploaded
        with self.streams.on(self._capture.stream):
            device.scalars.load(first, scalars)
        self._loaded_key, self._result = key, device
        self._count += count
        self._unconfirmed += count

    def _restart_scalars(self, devices: Sequence[DeviceParameters]) -> None:
        """Let the scalars of devices continue from the current number of steps."""
        for device in devices:
            with device.device:
                device.scalars.restart(self._count)

    def _decide(
        self,
        plan: StepPlan,
        launches: Sequence[Sequence[Launch]],
        options: StepOptions,
        scale: DeviceArray | None,
    ) -> tuple[bool | None, DeviceParameters, list[Call]]:
        """Measure and clip the gradients, and decide whether to skip the step.

        Returns
        -------
        bool or None
            True to skip the step; None if only the GPU knows.
        DeviceParameters
            The device that has the step's result.
        list of Call
            They come before those of updates.
        """
        measured = []
        for part, launched in zip(plan.devices, launches, strict=True):
            with part.device.device:
                measured.append(measure(launched, part.device.scalars, _numbers(part)))
        limits, skip = (options.norm_limit, options.value_limit), options.skip_nonfinite
        verdict = None
        if len(plan.devices) > 1:
            on_host = [
                own._replace(numbers=part.device.scalars.to_host(own.numbers))
                for part, own in zip(plan.devices, measured, strict=True)
            ]
            verdict = decide(on_host, *limits)
        loss_scale = None
        if isinstance(options.scale, LossScale) and scale is not None:
            loss_scale = options.scale.on_gpu(scale.device), *options.scale.rates
        skips: list[bool | None] = []
        calls: list[Call] = []
        for part, own in zip(plan.devices, measured, strict=True):
            with part.device.device:
                clip, scalars = part.layout.clip_indices, part.device.scalars
                if part.numbers is not None:
                    scalars.numbers = part.numbers
                given = own, verdict, *limits, skip, clip, loss_scale
                skipped, judged = scalars.finish_norm(*given)
                skips.append(skipped)
                calls += within(judged, *part.device.contexts)
        skipped = skips[0] if verdict is None else not verdict.finite
        return skipped if skip else False, plan.devices[0].device, calls


def _order_of(parameters: Sequence[Parameter]) -> StreamOrder:
    """The streams on which parameters have been made."""
    return StreamOrder(one.array.device for one in parameters if one.backend == "cuda")


def match(plan: StepPlan, grads: list[Any], settings: Sequence[Resolved]) -> list[Matched] | None:
    """Check gradients that follow a plan; None if the plan is not for them.

    Parameters
    ----------
    plan : StepPlan
    grads : list of array, RowGrad or None
        One for each parameter; anything else does not follow a plan.
    settings : sequence of Resolved
        Of the groups, at this step.

    Returns
    -------
    list of (addresses, singles), one for each device

    Raises
    ------
    GradientError, ParameterError
        A gradient of the planned type has another shape, or shares memory with a parameter.
    """
    for (rule, by_rows), now in zip(plan.groups, settings, strict=True):
        if now.rule is not rule or now.by_rows != by_rows:
            return None
    matched: list[Matched] = []
    for part in plan.devices:
        device, own = part.device, grads
        if len(plan.devices) > 1:
            own = [grads[k] for k in device.indices.tolist()]
        addresses = np.empty(len(own), np.int64)
        if part.finder.find(id(own), addresses) != len(part.unaddressed):
            return None
        for table in part.without_history:
            if table.history is not None:
                return None
        singles: Singles = []
        for k, single in part.unaddressed:
            grad: Any = own[k]
            if single is None:
                if grad is not None:
                    return None
                continue
            if (
                type(grad) is not single.kind
                or grad.dtype != single.dtype
                or single.parameter.history is not single.history
                or (single.order and contiguous(grad, single.order))
            ):
                return None
            check_single(device, single.parameter, grad)
            singles.append((k, single, grad))
        matched.append((addresses, singles))
    return matched


def check_scaling(plan: StepPlan, values: Mapping[str, float]) -> None:
    """Check that the gradients can be scaled and clipped by the values of a step.

    Parameters
    ----------
    plan : StepPlan
    values : mapping of str to float
        "grad_scale", "clip_factor" and "clip_value".

    Raises
    ------
    HyperparameterError
        If a value overflows or vanishes in the type of the arithmetic.
    """
    for name, value in values.items():
        for dtype, only_below_1 in plan.dtypes:
            if value < 1 or not only_below_1:
                check_fits(name, value, dtype)


def launches_of(part: DevicePlan, gradients: Matched, settings: Sequence[Resolved]) -> list[Launch]:
    """The launches of one device; row indices are checked, and nothing is written.

    Raises
    ------
    RowIndexError
    """
    addresses, singles = gradients
    launches: list[Launch] = []
    for _, single, grad in singles:
        if single.by_rows:
            argument = sorted_rows(single, grad, settings[single.parameter.group])
        else:
            argument = bits_of(plain(grad))
            if not argument.size:
                continue
        launches.append((single.update, argument, single.offset))
    # Last, since their kernels can count the step, which one for any strides cannot.
    for update, indices, offsets in part.buckets:
        launches.append((update, addresses if indices is None else addresses[indices], offsets))
    if part.device.paged:
        touch(part.device, addresses, singles)
    return launches


def sorted_rows(single: SingleUpdate, grad: Any, now: Resolved) -> Any:
    """Check and sort a gradient's row indices; the argument of its update.

    Raises
    ------
    RowIndexError
    """
    parameter = single.parameter
    rows = grad if single.kind is RowGrad else parameter.as_rows(plain(grad))
    skip = now.skips_rows[parameter.backend]
    try:
        return prepared(single.update, rows, skip, now.max_row_norm)
    except RowIndexError as error:
        raise RowIndexError(f"gradient of {parameter.name!r}: {error}") from None


def touch(device: DeviceParameters, addresses: HostArray, singles: Singles) -> None:
    """Announce what a step writes of parameters with large states."""
    single = {k: grad for k, _, grad in singles}
    device.paged = [
        k
        for k in device.paged
        if not (addresses[k] or k in single) or device.parameters[k].touch(single.get(k))
    ]


def scalars_of(
    part: DevicePlan,
    groups: Sequence[Group],
    settings: Sequence[Resolved],
    step: int,
    extra: dict[str, float],
) -> list[float]:
    """Compute the scalars of a step, bias corrections among them.

    Parameters
    ----------
    part : DevicePlan
    groups : sequence of Group
    settings : sequence of Resolved
        Of the groups, at the step.
    step : int
        Counted from 0.
    extra : dict of str to float
        The hyperparameters that the step adds to those of groups.

    Returns
    -------
    list of float, length part.layout.width
        See `kernels.numerics.scalar_layout`.

    Raises
    ------
    HyperparameterError
    """
    scalars = [0.0, extra.get("grad_scale", 1.0)]
    for number, inactive_steps, history in part.layout.blocks:
        now, largest = settings[number], groups[number].largest_value
        values = now.values | extra if extra else now.values
        updates = step + 1 - inactive_steps
        scalars += coefficients(now.rule, values, updates, largest)
        scalars.append(float(updates % RANDOM_PERIOD))
        if history is not None:
            if history.displacement is not None:
                scalars += coefficients(history.displacement, values, updates, largest)
            scalars += history.history_scalars(values, updates)
    return scalars


def _last_scalars(part: DevicePlan) -> HostArray:
    """The scalars of the last step; waits for a GPU."""
    return part.device.scalars.last_scalars() if part.numbers is None else part.numbers


def _numbers(part: DevicePlan) -> Any:
    """What updates and measurements take as the scalars of the step."""
    return part.device.scalars.numbers if part.numbers is None else part.numbers
