"""Taking steps: what is counted, measured and launched, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.numerics.modes import in_default_modes
from gpuadapt.kernels.numerics.overflow import judged

from . import launch
from .arrays import to_host
from .capture import check_alike
from .device_parameters import DeviceParameters, places
from .errors import CaptureError
from .group import Group
from .hyperparameters import STEP_VALUES, whole
from .loss_scale import LossScale
from .parameter import Parameter
from .step_options import DEFAULT_OPTIONS, StepOptions, StepResult
from .step_plan import Launch, StepGradients

UNSURE = 64
"""Steps after which the GPU is asked how many of them it has skipped."""

MOST_REPLAYS = 512
"""Steps whose numbers are computed ahead; a GPU has room for more."""

UNMEASURED = StepResult(None, 1.0, False)


class Steps:
    """The steps of an optimizer's parameters and groups.

    A GPU may skip a step, or replay one, without the host's knowledge. So the number of steps
    is the GPU's where it has one; the host's may be too large until it asks.
    """

    def __init__(self, parameters: Sequence[Parameter], groups: Sequence[Group]) -> None:
        self._parameters, self._groups = parameters, groups
        self._on_gpu = any(parameter.backend == "cuda" for parameter in parameters)
        self._count = self._settled = 0
        """Steps so far, and up to when the parameters' updates have been counted."""
        self._unsure = 0
        """How many of the last steps the GPU may not have taken."""
        self._active = np.zeros(len(parameters), bool)
        """Which parameters have had gradients since."""
        self._missed = np.zeros(len(parameters), np.int64)
        """In how many of the steps so far each of these had none."""
        self._complete = False
        """Whether all of them have, and tables work on them."""
        self._rules: list[Rule] = []
        """Those that the places are arranged for; none if they have to be arranged anew."""
        self._repeated: list[int] | None = None
        """The groups' versions, if a step like the last one needs no more than a launch."""
        self._request = DEFAULT_OPTIONS
        self._report: DeviceParameters | StepResult | None = None
        self._places: list[tuple[DeviceParameters, np.ndarray]] = []
        self._loaded: Any = None
        """What the numbers of steps that the GPU may not have taken were computed from."""
        self._capturable = False
        self._before: Any = None
        """What the last step was like, and on which stream, if steps are to be captured."""
        self._captured: Any = None
        """What was captured: with it, the arrays that a replay uses."""

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own: tables and GPU counts are not for them.
        return self.renewed(self._parameters, self._groups).__dict__

    def renewed(self, parameters: Sequence[Parameter], groups: Sequence[Group]) -> Steps:
        """Steps of other parameters and groups that go on from here; waits for a GPU."""
        fresh = Steps(parameters, groups)
        fresh._count = fresh._settled = self.settle()
        fresh._report = self.last
        return fresh

    @property
    def count(self) -> int:
        """Steps taken; waits for the GPU if only that knows."""
        if not self._unsure:
            return self._count
        ((place, _),) = self._places
        taken = place.control.steps()
        if self._captured is None:
            self._count = taken
        # Otherwise replays that have been prepared may still be to come.
        self._unsure = self._count - taken
        return taken

    def used(self, name: str) -> tuple[Rule, list[float]]:
        """The rule of a parameter in the last step, and its coefficients; waits for a GPU."""
        for place, members in self._places:
            for k, n in enumerate(members.tolist()):
                if self._parameters[n].name == name:
                    rule, first = self._rules[self._parameters[n].group], place.layout.firsts[k]
                    with place.device:
                        numbers = to_host(place.control.numbers)
                    return rule, numbers[first : first + len(rule.coefficients)].tolist()
        raise KeyError(name)

    @property
    def last(self) -> StepResult | None:
        """What became of the last step; waits for the GPU."""
        if isinstance(self._report, DeviceParameters):
            norm, factor, skipped = self._report.control.report()
            return StepResult(norm if self._request.needs_norm else None, factor, skipped)
        return self._report

    def settle(self) -> int:
        """Count the parameters' updates; the steps so far."""
        count = self.count
        for k in np.flatnonzero(self._active).tolist() if count > self._settled else ():
            self._parameters[k].update_count = count - int(self._missed[k])
        self._settled = count
        return count

    def restart(self, count: int) -> None:
        """Go on from so many steps, and from the updates that the parameters say."""
        self._count = self._settled = count
        self._unsure, self._report, self._repeated = 0, None, None
        for group in self._groups:
            group.schedules.restart()
        self._restart_controls()
        if self._rules:
            before = [place.layout for place, _ in self._places]
            rules = [group.rule for group in self._groups]
            elements = [place.arrangement.elements for place, _ in self._places]
            self._lay_out(rules, self._active, elements)
            if before != [place.layout for place, _ in self._places]:
                self._captured = self._before = None

    def _place_all(self) -> None:
        if not self._places:
            made = places(self._parameters)
            self._restart_controls(made)
            self._places = made

    @property
    def capturable(self) -> bool:
        """Whether steps may be captured."""
        return self._capturable

    @capturable.setter
    def capturable(self, value: bool) -> None:
        self._place_all()
        if value and [place.backend for place, _ in self._places] != ["cuda"]:
            raise CaptureError("capturable: the parameters are not all on one CUDA device")
        self._capturable, self._before, self._captured = bool(value), None, None

    @in_default_modes
    def take(self, given: list[Any], request: StepOptions) -> None:
        """Take a step with a gradient (or None) for each parameter."""
        if request is DEFAULT_OPTIONS and self._repeated and self._take_again(given):
            return
        self._repeated = None  # until this step has been taken
        capturing = self._on_gpu and launch.capturing()
        if capturing and not self._capturable:
            raise CaptureError("set `capturable`, and take a step, before one is captured")
        self._place_all()
        if self._unsure and not capturing and self._has_to_know():
            self.settle()
        first, alone = self._places[0][0], len(self._places) == 1
        on_gpu = alone and self._on_gpu and not isinstance(request.scale, float)
        if isinstance(request.scale, LossScale):
            request.scale.check_user(self, on_gpu)
        values = self._values(self._count, request, on_gpu)
        gathered = [
            place.gather(given if alone else [given[k] for k in members], self._groups)
            for place, members in self._places
        ]
        if request.rule_options:
            # Every group has what the step asks for among its values.
            asked = {name: values[0][name] for name in STEP_VALUES}
            for (place, _), found in zip(self._places, gathered, strict=True):
                place.check_values(asked, found)
        like = self._like(gathered[0], request, capturing) if self._capturable else None
        scale = request.scale_on(first.parameters[0].array.device) if on_gpu else None
        before = self._count
        if any(place.starts(found, self._groups) for (place, _), found in
               zip(self._places, gathered, strict=True)):  # fmt: skip
            self.settle()
        self._arrange(gathered)
        if self._count != before:  # the GPU has been asked
            values = self._values(self._count, request, on_gpu)
        work = [
            place.works(found, self._groups)
            for (place, _), found in zip(self._places, gathered, strict=True)
        ]
        if not capturing:
            self._load(1, on_gpu, values, request)
        # Nothing above has written to an array. Below only a launch can fail.
        try:
            skipped, report = self._judge(work, request, scale)
            if not skipped:
                for (place, _), launches in zip(self._places, work, strict=True):
                    place.update(launches)
        except BaseException:
            if not self._unsure:
                self._restart_controls()
            raise
        self._request, self._report, self._before = request, report, like
        if capturing:
            self._captured = like, given, scale
        else:
            self._count += not skipped
            self._unsure += skipped is None
            again = self._complete and not self._on_gpu and not request.rule_options
            self._repeated = [group.version for group in self._groups] if again else None
        if isinstance(request.scale, LossScale):
            request.scale.used(self, bool(skipped) if scale is None else None)

    def _has_to_know(self) -> bool:
        """Whether the host needs the number of the next step."""
        # How long rows may be is not among a step's numbers.
        scheduled = any(callable(group.settings.get("max_row_norm")) for group in self._groups)
        return scheduled or self._unsure > UNSURE or self._asks_anew()

    def _like(self, found: StepGradients, request: StepOptions, capturing: bool) -> Any:
        """What a step is like, if it may be captured or is like the one that was."""
        captured = self._captured[0][0] if self._captured is not None else None
        place, _ = self._places[0]
        return check_alike(place, found, self._groups, request, captured, self._before, capturing)

    def _take_again(self, given: list[Any]) -> bool:
        """Take a step on the CPU that is like the one before; False if it is not.

        It is what is left of `take` where nothing is to be arranged, checked or decided: half of
        the time that a step of a small array needs.
        """
        place, _ = self._places[0]
        addresses = place.addresses(given)
        if addresses is None:
            return False
        values = [group.prepare(self._count) for group in self._groups]
        if [group.version for group in self._groups] != self._repeated:
            return False
        place.control.load(self._count, [place.row(self._count, self._groups, values)])
        place.repeat(addresses)
        self._count += 1
        self._report = UNMEASURED
        return True

    @in_default_modes
    def prepare_replay(self, count: int) -> None:
        """Compute the numbers of steps to come, of a captured step that will be replayed."""
        if self._captured is None:
            raise CaptureError("prepare_replay: no step has been captured")
        if (number := whole(count)) is None or not 1 <= number <= MOST_REPLAYS:
            raise CaptureError(f"prepare_replay: got {count!r}, expected 1 to {MOST_REPLAYS}")
        count = number
        if self._unsure + count > MOST_REPLAYS:
            taken = self.count
            if self._unsure + count > MOST_REPLAYS:
                # So many are not under way: they were skipped.
                self._count, self._unsure = taken, 0
                self._restart_controls()
        scaled = self._captured[2] is not None
        if self._unsure and self._asks_anew():
            self.settle()  # it is asked in order, from the first step that the GPU has not taken
        values = self._values(self._count, self._request, scaled)
        if self._rules != [group.rule for group in self._groups]:
            raise CaptureError("prepare_replay: the captured step had other options")
        self._load(count, scaled, values, self._request)
        self._report = self._places[0][0]
        self._count += count
        self._unsure += count

    def _values(self, step: int, request: StepOptions, on_gpu: bool) -> list[dict[str, float]]:
        """What the rules of the groups read at a step, all of it checked."""
        if self._unsure and self._asks_anew():
            for before in range(step - self._unsure, step):
                for group in self._groups:
                    group.prepare(before, request.rule_options)
        values = [group.prepare(step, request.rule_options) for group in self._groups]
        if request.rule_options:
            asked = request.values(on_gpu)
            values = [of | asked for of in values]
        return values

    def _asks_anew(self) -> bool:
        """Whether a schedule of a group has not been asked yet."""
        return any(group.asks_anew for group in self._groups)

    def _load(
        self, count: int, on_gpu: bool, values: list[dict[str, float]], request: StepOptions
    ) -> None:
        """Give the places the numbers of so many steps from now on.

        And those of steps that the GPU may not have taken, if settings are others since.
        """
        first, every, settings = self._count, [values], None
        if self._on_gpu:
            settings = [group.version for group in self._groups], request.key
            if settings != self._loaded:
                first = self._count - self._unsure
        if first < self._count or count > 1:
            steps = range(first, self._count + count)
            every = [self._values(step, request, on_gpu) for step in steps]
        for place, _ in self._places:
            rows = [place.row(step, self._groups, of) for step, of in enumerate(every, first)]
            with place.device:
                place.control.load(first, rows)
        self._loaded = settings

    def _restart_controls(self, made: Sequence[tuple[DeviceParameters, Any]] | None = None) -> None:
        """Let the controls of all places, or of new ones, go on from the steps so far."""
        for place, _ in self._places if made is None else made:
            with place.device:
                place.control.restart(self._count)

    def _arrange(self, gathered: Sequence[StepGradients]) -> None:
        """Rebuild the plans if the rules or the parameters that have gradients changed."""
        rules = [group.rule for group in self._groups]
        complete = all(found.complete for found in gathered)
        elements = [found.elements for found in gathered]
        same = rules == self._rules and elements == [
            place.arrangement.elements for place, _ in self._places
        ]
        if complete and self._complete and same:
            return
        active = np.zeros(len(self._parameters), bool)
        for (_, members), found in zip(self._places, gathered, strict=True):
            active[members] = found.addresses != 0
            active[members[list(found.others)]] = True
        if not (same and np.array_equal(active, self._active)):
            self.settle()
            self._lay_out(rules, active, elements)
        self._complete = complete

    def _lay_out(
        self, rules: list[Rule], active: np.ndarray, elements: Sequence[tuple[str, ...]]
    ) -> None:
        """Arrange all places for rules, active parameters and element types of gradients."""
        missed = np.array(
            [self._count - parameter.update_count for parameter in self._parameters], np.int64
        )
        arranged = [
            place.arranged(self._groups, active[members], missed[members], of)
            for (place, members), of in zip(self._places, elements, strict=True)
        ]
        # Until all of it is in place, a step that is interrupted leaves it to the next one to
        # arrange everything anew.
        self._rules, self._complete = [], False
        for (place, _), new in zip(self._places, arranged, strict=True):
            place.arrangement = new
        self._active, self._missed, self._rules = active, missed, rules

    def _judge(
        self, work: Sequence[Sequence[Launch]], request: StepOptions, scale: Any
    ) -> tuple[bool | None, DeviceParameters | StepResult]:
        """Make the numbers final.

        Returns
        -------
        bool or None
            Whether to skip the step; None if only the GPU knows.
        DeviceParameters or StepResult
            Who knows what became of it, or that.
        """
        for place, _ in self._places:
            with place.device:
                place.control.begin(scale, place.layout.scales, request.micro_batches)
        if not request.needs_norm:
            return False, self._places[0][0] if self._capturable else UNMEASURED
        measured = [
            place.measure(launches) for (place, _), launches in zip(self._places, work, strict=True)
        ]
        wanted, skip = (request.norm_limit, request.value_limit), request.skip_nonfinite
        known = None
        if len(self._places) > 1:
            found = [
                of._replace(numbers=place.control.fetch(of.numbers))
                for (place, _), of in zip(self._places, measured, strict=True)
            ]
            known = judged(found, *wanted)
        adapted = None
        if isinstance(request.scale, LossScale) and scale is not None:
            adapted = request.scale.on_gpu(scale.device), *request.scale.rates
        verdicts = []
        for (place, _), of in zip(self._places, measured, strict=True):
            with place.device:
                factors = place.layout.factors
                verdicts.append(place.control.judge(of, known, *wanted, skip, factors, adapted))
        skipped = verdicts[0] if known is None else not known.finite
        return skipped if skip else False, self._places[0][0]
