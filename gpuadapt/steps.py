"""The order of a step: check gradients, compute scalars, decide whether to skip, launch, count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import DeviceArray, HostArray
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.overflow import decide

from . import launch
from .capture import GraphCapture, StepSignature, check_signature, signature_of
from .device_parameters import DeviceParameters, by_device
from .errors import CaptureError
from .group import Group
from .hyperparameters import STEP_VALUES, whole
from .launch import in_default_modes
from .loss_scale import LossScale
from .parameter import Parameter
from .step_options import DEFAULT_OPTIONS, StepOptions, StepResult
from .step_plan import Launch, StepGradients

SYNC_PERIOD = 64
"""Number of steps after which the host asks the GPU how many it has skipped."""

MAX_REPLAYS = 512
"""Number of replays whose scalars can be computed ahead; a GPU has memory for more."""

UNMEASURED = StepResult(None, 1.0, False)


class Steps:
    """The steps of an optimizer.

    A GPU may skip a step, or replay one, without the host's knowledge. The number of steps is
    then the GPU's, and the host's number is an upper bound until `sync_counts`.
    """

    def __init__(self, parameters: Sequence[Parameter], groups: Sequence[Group]) -> None:
        self._parameters, self._groups = parameters, groups
        self._on_gpu = any(parameter.backend == "cuda" for parameter in parameters)
        self._count = 0
        """Number of steps, including those that the GPU may have skipped."""
        self._synced_count = 0
        """Number of steps when the parameters' `update_count` was last set."""
        self._unconfirmed = 0
        """Number of the last steps that the GPU may have skipped."""
        self._active = np.zeros(len(parameters), bool)
        """bool, shape (parameters,): True for those with a gradient since `_synced_count`."""
        self._inactive_steps = np.zeros(len(parameters), np.int64)
        """int64, shape (parameters,): number of steps in which each had no gradient."""
        self._all_addressed = False
        """True if multi-tensor launches took all gradients of the last step."""
        self._planned_rules: list[Rule] = []
        """The rule of each group in the devices' plans; empty if they must be made anew."""
        self._repeatable_versions: list[int] | None = None
        """Versions of the groups for which `_repeat` may follow the last step, or None."""
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

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own: plans and GPU counts are not for them.
        return self.renewed(self._parameters, self._groups).__dict__

    def renewed(self, parameters: Sequence[Parameter], groups: Sequence[Group]) -> Steps:
        """New steps that continue the count with other parameters and groups; waits for a GPU."""
        new = Steps(parameters, groups)
        new._count = new._synced_count = self.sync_counts()
        new._result = self.last
        return new

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

    def last_coefficients(self, name: str) -> tuple[Rule, list[float]]:
        """The rule of a parameter in the last step, and its coefficients; waits for a GPU."""
        for device in self._devices:
            for parameter, offset in zip(
                device.parameters, device.plan.layout.offsets, strict=True
            ):
                if parameter.name == name:
                    rule = self._planned_rules[parameter.group]
                    with device.device:
                        scalars = device.scalars.last_scalars()
                    return rule, scalars[offset : offset + len(rule.coefficients)].tolist()
        raise KeyError(name)

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
        for k in np.flatnonzero(self._active).tolist() if count > self._synced_count else ():
            self._parameters[k].update_count = count - int(self._inactive_steps[k])
        self._synced_count = count
        return count

    def restart(self, count: int) -> None:
        """Continue from a number of steps, and from the parameters' `update_count`."""
        self._count = self._synced_count = count
        self._unconfirmed, self._result, self._repeatable_versions = 0, None, None
        for group in self._groups:
            group.schedules.restart()
        self._restart_scalars(self._devices)
        if self._planned_rules:
            layouts = [device.plan.layout for device in self._devices]
            dtype_names = [device.plan.dtype_names for device in self._devices]
            self._make_plans([group.rule for group in self._groups], self._active, dtype_names)
            if layouts != [device.plan.layout for device in self._devices]:
                self._capture = self._previous = None

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
        self._capturable, self._previous, self._capture = bool(value), None, None

    @in_default_modes
    def take(self, grads: list[Any], options: StepOptions) -> None:
        """Take a step.

        Parameters
        ----------
        grads : list of array, RowGrad, list of these, or None
            One for each parameter.
        options : StepOptions
        """
        if options is DEFAULT_OPTIONS and self._repeatable_versions and self._repeat(grads):
            return
        self._repeatable_versions = None  # until this step has been taken
        capturing = self._on_gpu and launch.capturing()
        if capturing and not self._capturable:
            raise CaptureError("set `capturable`, and take a step, before one is captured")
        devices = self.devices()
        if self._unconfirmed and not capturing and self._needs_count():
            self.sync_counts()
        scale_on_gpu = len(devices) == 1 and self._on_gpu and not isinstance(options.scale, float)
        if isinstance(options.scale, LossScale):
            options.scale.check_user(self, scale_on_gpu)
        values = self._values(self._count, options, scale_on_gpu)
        gradients = self._check_gradients(grads, options, values)
        signature = None
        if self._capturable:
            signature = signature_of(devices[0], gradients[0], self._groups, options)
            check_signature(signature, self._capture, self._previous, capturing)
        scale = options.scale_on(devices[0].parameters[0].array.device) if scale_on_gpu else None
        count = self._count
        if any(
            device.needs_history(own, self._groups)
            for device, own in zip(devices, gradients, strict=True)
        ):
            self.sync_counts()
        self._update_plans(gradients)
        if self._count != count:  # the GPU had skipped steps
            values = self._values(self._count, options, scale_on_gpu)
        launches = [
            device.make_launches(own, self._groups)
            for device, own in zip(devices, gradients, strict=True)
        ]
        if not capturing:
            self._load_scalars(1, scale_on_gpu, values, options)
        # Nothing above has written to an array. Below only a launch can fail.
        try:
            skipped, result = self._finish_scalars(launches, options, scale)
            if not skipped:
                for device, own in zip(devices, launches, strict=True):
                    device.update(own)
        except BaseException:
            if not self._unconfirmed:
                self._restart_scalars(devices)
            raise
        self._options, self._result, self._previous = options, result, signature
        if capturing and signature is not None:
            self._capture = GraphCapture(signature, grads, scale)
        else:
            self._count += not skipped
            self._unconfirmed += skipped is None
            repeatable = self._all_addressed and not self._on_gpu and not options.rule_options
            versions = [group.version for group in self._groups]
            self._repeatable_versions = versions if repeatable else None
        if isinstance(options.scale, LossScale):
            options.scale.used(self, bool(skipped) if scale is None else None)

    def _check_gradients(
        self, grads: list[Any], options: StepOptions, values: Sequence[dict[str, float]]
    ) -> list[StepGradients]:
        """Check the gradients of all devices."""
        alone = len(self._devices) == 1
        gradients = [
            device.check_gradients(
                grads if alone else [grads[k] for k in device.indices], self._groups
            )
            for device in self._devices
        ]
        if options.rule_options:
            # All groups have the same values of the step.
            step_values = {name: values[0][name] for name in STEP_VALUES}
            for device, own in zip(self._devices, gradients, strict=True):
                device.check_values(step_values, own)
        return gradients

    def _needs_count(self) -> bool:
        """True if the host needs the number of the next step."""
        # The step's scalars do not include the largest norm of a row.
        scheduled = any(callable(group.settings.get("max_row_norm")) for group in self._groups)
        return scheduled or self._unconfirmed > SYNC_PERIOD or self._has_new_schedule()

    def _repeat(self, grads: list[Any]) -> bool:
        """Take a step on the CPU that equals the last one; False, without effect, if it does not.

        A step of a small array takes half the time that `take` needs.
        """
        device = self._devices[0]
        addresses = device.addresses(grads)
        if addresses is None:
            return False
        values = [group.prepare(self._count) for group in self._groups]
        if [group.version for group in self._groups] != self._repeatable_versions:
            return False
        scalars = device.scalars_of_step(self._count, self._groups, values)
        device.scalars.load(self._count, [scalars])
        device.repeat(addresses)
        self._count += 1
        self._result = UNMEASURED
        return True

    @in_default_modes
    def prepare_replay(self, count: int) -> None:
        """Upload the scalars of the next ``count`` replays of the captured step."""
        if self._capture is None:
            raise CaptureError("prepare_replay: no step has been captured")
        if (number := whole(count)) is None or not 1 <= number <= MAX_REPLAYS:
            raise CaptureError(f"prepare_replay: got {count!r}, expected 1 to {MAX_REPLAYS}")
        count = number
        if self._unconfirmed + count > MAX_REPLAYS:
            taken = self.count
            if self._unconfirmed + count > MAX_REPLAYS:
                # So many cannot be under way: they were skipped.
                self._count, self._unconfirmed = taken, 0
                self._restart_scalars(self._devices)
        scale_on_gpu = self._capture.scale is not None
        if self._unconfirmed and self._has_new_schedule():
            self.sync_counts()  # schedules are called in order, from the first unconfirmed step
        values = self._values(self._count, self._options, scale_on_gpu)
        if self._planned_rules != [group.rule for group in self._groups]:
            raise CaptureError("prepare_replay: the captured step had other options")
        self._load_scalars(count, scale_on_gpu, values, self._options)
        self._result = self._devices[0]
        self._count += count
        self._unconfirmed += count

    def _values(
        self, step: int, options: StepOptions, scale_on_gpu: bool
    ) -> list[dict[str, float]]:
        """The checked hyperparameters of each group at a step."""
        if self._unconfirmed and self._has_new_schedule():
            for unconfirmed in range(step - self._unconfirmed, step):
                for group in self._groups:
                    group.prepare(unconfirmed, options.rule_options)
        values = [group.prepare(step, options.rule_options) for group in self._groups]
        if options.rule_options:
            step_values = options.values(scale_on_gpu)
            values = [own | step_values for own in values]
        return values

    def _has_new_schedule(self) -> bool:
        """True if a schedule has not been called yet."""
        return any(group.has_new_schedule for group in self._groups)

    def _load_scalars(
        self,
        count: int,
        scale_on_gpu: bool,
        values: list[dict[str, float]],
        options: StepOptions,
    ) -> None:
        """Upload the scalars of the next ``count`` steps; ``values`` are those of the first.

        If settings changed, upload those of unconfirmed steps again.
        """
        first, values_of_steps, key = self._count, [values], None
        if self._on_gpu:
            key = [group.version for group in self._groups], options.key
            if key != self._loaded_key:
                first = self._count - self._unconfirmed
        if first < self._count or count > 1:
            steps = range(first, self._count + count)
            values_of_steps = [self._values(step, options, scale_on_gpu) for step in steps]
        for device in self._devices:
            rows = [
                device.scalars_of_step(step, self._groups, own)
                for step, own in enumerate(values_of_steps, first)
            ]
            with device.device:
                device.scalars.load(first, rows)
        self._loaded_key = key

    def _restart_scalars(self, devices: Sequence[DeviceParameters]) -> None:
        """Let the scalars of devices continue from the current number of steps."""
        for device in devices:
            with device.device:
                device.scalars.restart(self._count)

    def _update_plans(self, gradients: Sequence[StepGradients]) -> None:
        """Make the plans anew if rules, dtypes, or the parameters with gradients changed."""
        rules = [group.rule for group in self._groups]
        all_addressed = all(own.all_addressed for own in gradients)
        dtype_names = [own.dtype_names for own in gradients]
        same = rules == self._planned_rules and dtype_names == [
            device.plan.dtype_names for device in self._devices
        ]
        if all_addressed and self._all_addressed and same:
            return
        active = np.zeros(len(self._parameters), bool)
        for device, own in zip(self._devices, gradients, strict=True):
            active[device.indices] = own.addresses != 0
            active[device.indices[list(own.others)]] = True
        if not (same and np.array_equal(active, self._active)):
            self.sync_counts()
            self._make_plans(rules, active, dtype_names)
        self._all_addressed = all_addressed

    def _make_plans(
        self, rules: list[Rule], active: HostArray, dtype_names: Sequence[tuple[str, ...]]
    ) -> None:
        """Make the plans of all devices."""
        updates = [parameter.update_count for parameter in self._parameters]
        inactive_steps = self._count - np.array(updates, np.int64)
        plans = [
            device.make_plan(
                self._groups, active[device.indices], inactive_steps[device.indices], names
            )
            for device, names in zip(self._devices, dtype_names, strict=True)
        ]
        # An interrupt before the last line makes the next step plan anew.
        self._planned_rules, self._all_addressed = [], False
        for device, plan in zip(self._devices, plans, strict=True):
            device.plan = plan
        self._active, self._inactive_steps, self._planned_rules = active, inactive_steps, rules

    def _finish_scalars(
        self,
        launches: Sequence[Sequence[Launch]],
        options: StepOptions,
        scale: DeviceArray | None,
    ) -> tuple[bool | None, DeviceParameters | StepResult]:
        """Measure and clip the gradients, and decide whether to skip the step.

        Returns
        -------
        bool or None
            True to skip the step; None if only the GPU knows.
        DeviceParameters or StepResult
            The step's result, or the device that has it.
        """
        for device in self._devices:
            with device.device:
                indices = device.plan.layout.scale_indices
                select = device.scalars.select_step
                select(scale, indices, options.micro_batches, options.needs_norm)
        if not options.needs_norm:
            return False, self._devices[0] if self._capturable else UNMEASURED
        measured = [
            device.measure(own) for device, own in zip(self._devices, launches, strict=True)
        ]
        limits, skip = (options.norm_limit, options.value_limit), options.skip_nonfinite
        verdict = None
        if len(self._devices) > 1:
            on_host = [
                own._replace(numbers=device.scalars.to_host(own.numbers))
                for device, own in zip(self._devices, measured, strict=True)
            ]
            verdict = decide(on_host, *limits)
        loss_scale = None
        if isinstance(options.scale, LossScale) and scale is not None:
            loss_scale = options.scale.on_gpu(scale.device), *options.scale.rates
        skips = []
        for device, own in zip(self._devices, measured, strict=True):
            with device.device:
                clip = device.plan.layout.clip_indices
                finish = device.scalars.finish_norm
                skips.append(finish(own, verdict, *limits, skip, clip, loss_scale))
        skipped = skips[0] if verdict is None else not verdict.finite
        return skipped if skip else False, self._devices[0]
