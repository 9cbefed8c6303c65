"""A group: parameters that share hyperparameters, and their values at a step."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.catchup.plan import Missed, columns, missed
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.language.scaling import scaled
from gpuadapt.kernels.numerics.modes import in_default_modes
from gpuadapt.kernels.options import compose

from . import hyperparameters
from .arrays import describe
from .effects import check_decay
from .errors import HyperparameterError, ParameterError
from .oracle import evaluate
from .parameter import Parameter
from .schedules import Schedules


class Group:
    """Hyperparameters as the user set them, and their values at a step.

    ``settings`` is the dictionary that `Optimizer.param_groups` shows: the user may change
    it between steps, so every step looks at it again.
    """

    def __init__(
        self,
        rule: Rule,
        settings: dict[str, Any],
        initial: Mapping[str, Any] | None = None,
        schedules: Schedules | None = None,
    ) -> None:
        self.base = rule
        self.rule = rule
        self.settings = settings
        self.initial = initial or {}
        """What states begin with."""
        self.schedules = schedules or Schedules()
        """What schedules have said, to all groups of an optimizer."""
        self.names: tuple[str, ...] = ()
        """Of the parameters."""
        settings |= _plain(settings)
        hyperparameters.check_fixed(settings, rule.states)
        self._fixed = {name: settings[name] for name in hyperparameters.FIXED}
        self.rowwise = settings["rowwise"]
        """Whether states have one number for each row where the rule allows it."""
        self.most = math.inf
        """The largest norm of a row's gradient at the step."""
        self.by_rows = self.rowwise
        """Whether dense gradients too are updates of rows."""
        self.exact = settings["sparse"] == "exact"
        """Whether rows without a gradient take the steps that they miss."""
        self._follows = self.exact and settings["exactness"] != "bits"
        self.dtypes: set[np.dtype] = set()
        self.largest = math.inf
        """The largest number of any of its element types."""
        self._names: tuple[str, ...] = ()
        self._seen: tuple[Any, ...] = ()
        self._options: frozenset[str] | None = None
        self.version = 0
        """Rises whenever settings or options are others."""
        self._scheduled = False
        self._values: dict[str, float] = {}

    def add(self, parameter: Parameter) -> None:
        """Take a parameter in."""
        self.dtypes.add(parameter.compute_dtype)
        self.largest = min(self.largest, float(np.finfo(parameter.compute_dtype).max))
        self.names += (parameter.name,)
        self.settings["params"] = self.names

    def check(self) -> None:
        """Check all settings but schedules, which nobody asks before the first step.

        Raises
        ------
        HyperparameterError
        """
        self.rule, _, _ = self.resolve(self.settings, None)
        self._names = tuple(self.settings)

    @property
    def asks_anew(self) -> bool:
        """Whether a schedule has not been asked yet."""
        given = self.settings.values()
        return any(callable(value) and not self.schedules.knows(value) for value in given)

    def check_names(self) -> None:
        """Raise `ParameterError` if "params" in the settings is not what it was."""
        given = self.settings.get("params", self.names)
        listed = isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given)
        if given is not self.names and not (listed and tuple(given) == self.names):
            raise ParameterError(
                f'param_groups: "params" was replaced by {describe(given)}; it names the arrays of '
                f"the group, {list(self.names)}, and cannot be changed. For more arrays there is "
                "`add`, for a table with more rows `grow`; for others make a new optimizer. Write "
                "new values into the arrays themselves"
            )

    def prepare(self, step: int, options: frozenset[str] = frozenset()) -> dict[str, float]:
        """Values of the rule's hyperparameters at a step (from 0), all of them checked.

        ``options`` are those of the step; `rule` then has them, and the group's.

        Raises
        ------
        HyperparameterError
            Before anything of the group is changed.
        """
        names, given = tuple(self.settings), tuple(self.settings.values())
        # The same objects, not equal ones: an array that was put there cannot be compared.
        if (
            names != self._names
            or options != self._options
            or not all(map(operator.is_, given, self._seen))
        ):
            self.check_names()
            taken = _plain(self.settings)
            rule, values, most = self.resolve(self.settings | taken, step, options)
            if taken:
                self.settings |= taken
                given = tuple(self.settings.values())
            scheduled = (*_own(rule), "max_row_norm")
            self._scheduled = any(callable(self.settings[name]) for name in scheduled)
            self.rule, self._values, self.most = rule, values, most
            self.by_rows = (
                self.rowwise or callable(self.settings["max_row_norm"]) or most < math.inf
            )
            self.version += 1
            self._names, self._seen, self._options = names, given, options
        elif self._scheduled:
            values = self._evaluate(self.rule, self.settings, step)
            if callable(self.settings.get("eps")) or callable(self.settings.get("eps_root")):
                self._check_eps(self.settings, values)
            self.most = self._most(self.settings, step)
            return values
        return self._values

    @property
    def followed(self) -> Missed | None:
        """How missed steps are followed, if they are neither left out nor replayed."""
        return missed(self.rule) if self._follows else None

    def remembered(self, values: Mapping[str, float], updates: int) -> list[float]:
        """What is remembered of a parameter's n-th update, besides the rule's coefficients."""
        followed = self.followed
        if followed is None:
            return []
        numbers: list[float] = []
        for rule in followed.rules:
            numbers += coefficients(rule, values, updates, self.largest)
        return numbers + followed.measured(values, updates)

    @property
    def remembers(self) -> int:
        """How many numbers `remembered` returns."""
        where = columns(self.rule, self.followed)
        return where.width - where.rule

    def skips(self, backend: str) -> bool:
        """Whether rows that are out of range are left out."""
        return (self.settings["check"] or ("raise" if backend == "cpu" else "skip")) == "skip"

    def resolve(
        self, settings: Mapping[str, Any], step: int | None, options: frozenset[str] = frozenset()
    ) -> tuple[Rule, dict[str, float], float]:
        """The rule that settings ask for, options included; its values at a step; `most`.

        Without a step those that are no schedules are checked, and the values are theirs.
        """
        always = ("params", *hyperparameters.SETTINGS)
        hyperparameters.check_present(settings, always)
        hyperparameters.check_choice(settings, "check", (None, *hyperparameters.CHECKS))
        hyperparameters.check_fixed(settings, self.base.states)
        for name, value in self._fixed.items():
            if settings[name] != value:
                raise HyperparameterError(
                    f"{name}: got {settings[name]!r}, but the states are made for {value!r}"
                )
        chosen = hyperparameters.options(settings)
        check_decay(self.base, chosen)
        rule = compose(self.base, chosen | options)
        rule = rule.rowwise if self.rowwise else rule
        needed = (*always, *self.base.hyperparameters, *_own(rule))
        hyperparameters.check_present(settings, needed)
        # Names of before may be those of an option that has been switched off.
        hyperparameters.check_known(settings, (*needed, *self._names))
        values = self._evaluate(rule, settings, step)
        self._check_eps(settings, values)
        return rule, values, self._most(settings, step)

    @in_default_modes
    def rate(self, updates: int, step: int) -> tuple[Rule, tuple[float, ...]]:
        """The rule that computes effective rates, and its coefficients."""
        self.check_names()
        self.resolve(self.settings, step)
        rule = self.base.rate
        values = self._evaluate(rule, self.settings, step)
        return rule, coefficients(rule, values, max(updates, 1), self.largest)

    def check_values(self, values: Mapping[str, float]) -> None:
        """Raise `HyperparameterError` for values of a step that do not fit the parameters."""
        for name, value in values.items():
            for dtype in self.dtypes:
                hyperparameters.check_fits(name, value, dtype)

    def _evaluate(
        self, rule: Rule, settings: Mapping[str, Any], step: int | None
    ) -> dict[str, float]:
        values = {}
        for name in _own(rule):
            given = settings[name]
            if step is None and callable(given):
                continue
            values[name] = hyperparameters.at_step(name, given, step or 0, self.schedules)
        try:
            self.check_values(values)
        except HyperparameterError:
            for name in values:
                if callable(settings[name]):  # whichever it was, it is asked again
                    self.schedules.forget(settings[name], step or 0)
            raise
        return values

    def _most(self, settings: Mapping[str, Any], step: int | None) -> float:
        given = settings["max_row_norm"]
        if step is None and callable(given):
            return math.inf
        return hyperparameters.at_step("max_row_norm", given, step or 0, self.schedules)

    def _check_eps(self, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """Raise `HyperparameterError` where eps = 0 makes 0/0 of an element without gradients.

        Of a schedule whose value is not known yet, any number will do.
        """
        if values.get("eps") != 0:
            return
        given = {name: values.get(name, 0.5) for name in self.base.hyperparameters}
        if not _defined(self.base, given, self._kept_start(settings)):
            raise HyperparameterError(
                "eps: got 0, expected a number > 0: an element whose gradients have all been 0 "
                f"would be 0/0, NaN, with the rule {self.base.name!r} and these settings. Give a "
                'small eps, such as 1e-30; of Adagrad eps_mode="none" or initial_accumulator > 0'
            )

    def _kept_start(self, settings: Mapping[str, Any]) -> dict[str, float]:
        """Numbers that states begin with, as far as they are kept as they are."""
        if settings["state_dtype"] not in (None, "float32", "float64"):
            return {}
        least = max((float(np.finfo(dtype).tiny) for dtype in self.dtypes), default=0.0)
        return {
            state: start
            for state, start in self.initial.items()
            if isinstance(start, float) and abs(start) >= least
        }


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that are numbers of NumPy's, or arrays of one, as Python's."""
    found = {}
    for name, value in settings.items():
        if type(value) not in (int, float, str, bool, tuple) and value is not None:
            taken = hyperparameters.plain(name, value)
            if taken is not value:
                found[name] = taken
    return found


def _defined(rule: Rule, values: Mapping[str, float], start: Mapping[str, float]) -> bool:
    """Whether a rule gives numbers for an element whose gradients have all been zero.

    With states of zero; or with those it starts from, if zero gradients leave them as they are.
    """
    zeros = [0.0] * len(rule.states)
    own = [start.get(state, 0.0) for state in rule.states]
    return any(_stays(rule, values, states, states is own) for states in (zeros, own))


def _stays(
    rule: Rule, values: Mapping[str, float], states: Sequence[float], unchanged: bool
) -> bool:
    """Whether a zero gradient gives numbers, at the first and at a late update."""
    given = [np.array([number]) for number in (1.0, 0.0, *states)]
    for updates in (1, 10**6):
        try:
            numbers = rule.evaluate(*(values[name] for name in rule.hyperparameters), updates)
            with np.errstate(all="ignore"):
                found = [float(np.ravel(x)[0]) for x in evaluate(rule, given, numbers)]
        except (ArithmeticError, TypeError, ValueError):
            return False
        if not all(map(math.isfinite, found)) or (unchanged and found[1:] != [*states]):
            return False
    return True


def _own(rule: Rule) -> list[str]:
    """The hyperparameters that settings have, and not a step."""
    return [name for name in rule.hyperparameters if name not in hyperparameters.STEP_VALUES]


def coefficients(
    rule: Rule, values: Mapping[str, float], updates: int, largest: float
) -> tuple[float, ...]:
    """What a kernel needs at a parameter's n-th update (from 1), in float64.

    Raises
    ------
    HyperparameterError
        A coefficient is not a finite number, or larger than the largest there is. Those that scale
        and clip gradients may be larger: the gradients' types have been asked about them.
    """
    given = [values[name] for name in rule.hyperparameters]
    try:
        result = tuple(map(float, rule.evaluate(*given, updates)))
        # The sum first: it is quick, and says so of nearly all that fit.
        if sum(map(abs, result)) <= largest:
            return result
        others = [x for k, x in enumerate(result) if k not in scaled(rule)]
        if all(abs(x) <= largest for x in others) and all(map(math.isfinite, result)):
            return result
        reason = f"a coefficient is not finite, or too large: {result}"
    except ZeroDivisionError as error:
        reason = f"{error}{_divisor(rule, given, updates)}"
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = str(error)
    named = dict(zip((*rule.hyperparameters, "t"), (*given, updates), strict=True))
    raise HyperparameterError(f"{rule.name}: {reason}, with {named}")


def _divisor(rule: Rule, given: Sequence[float], updates: int) -> str:
    """Which hyperparameter's zero the formula divides by, if it is one alone."""
    for k, (name, value) in enumerate(zip(rule.hyperparameters, given, strict=True)):
        if value == 0:
            try:
                rule.evaluate(*given[:k], 1.0, *given[k + 1 :], updates)
            except ArithmeticError:
                continue
            return f" (the formula divides by {name}: it has to be above 0, in a warm-up too)"
    return ""
