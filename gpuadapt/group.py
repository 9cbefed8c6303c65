"""A group of parameters that share hyperparameters; bias corrections are computed here."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels import averaging
from gpuadapt.kernels.averaging import AverageRule
from gpuadapt.kernels.language.caching import cached_with_rule
from gpuadapt.kernels.language.recomputed import recomputes_parameter
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.kernels.language.scaling import scaled
from gpuadapt.kernels.options import compose

from . import hyperparameters
from .arrays import describe
from .errors import HyperparameterError, ParameterError
from .launch import in_default_modes
from .oracle import evaluate
from .parameter import Parameter
from .schedule_values import Schedules


class Resolved(NamedTuple):
    """The checked settings of a group, with the options of a step, at one step."""

    rule: Rule
    """The group's rule with all options composed around it."""
    values: dict[str, float]
    """The rule's hyperparameters, by name; without those that a step adds."""
    max_row_norm: float
    """Largest Euclidean norm of a row's gradient."""
    by_rows: bool
    """True if dense gradients are launched by rows too."""
    skips_rows: dict[str, bool]
    """By backend: True if rows that are out of range are left out, False if they raise."""
    schedules: tuple[str, ...]
    """Names of the values that are schedules."""
    version: int
    """Another number for other settings."""


class Group:
    """The settings of a group, and their values at a step.

    Parameters
    ----------
    rule : Rule
    settings : dict
        The dictionary that `Optimizer.param_groups` shows. The user may change it between steps,
        so every step checks it.
    initial : mapping of str to float, optional
        Initial values of the states.
    schedules : Schedules, optional
        The values of schedules, shared by all groups of an optimizer.
    """

    def __init__(
        self,
        rule: Rule,
        settings: dict[str, Any],
        initial: Mapping[str, Any] | None = None,
        schedules: Schedules | None = None,
    ) -> None:
        self.base = rule
        self.settings = settings
        self.initial = initial or {}
        self.schedules = schedules or Schedules()
        self.names: tuple[str, ...] = ()
        """Names of the parameters."""
        settings |= _python_scalars(settings)
        hyperparameters.check_fixed(settings, rule.states)
        self.fixed = {name: settings[name] for name in hyperparameters.FIXED}
        """Settings that cannot be changed any more, because states were made by them."""
        if rule.averaged is not None:
            self.fixed |= constants(rule.averaged[1], settings)
        self.rowwise = settings["rowwise"]
        """True if states have one number for each row where the rule allows it."""
        self.exact = settings["sparse"] == "exact"
        """True if rows without a gradient catch up with the steps."""
        self.approximate = self.exact and settings["exactness"] != "bits"
        """True if they may take skipped steps at once."""
        self.dtypes: set[np.dtype] = set()
        """The parameters' compute dtypes."""
        self.largest_value = math.inf
        """Largest finite number of the narrowest of them."""
        self._resolved: dict[frozenset[str], Resolved] = {}
        """By the options of a step, for the settings as they were last seen."""
        self._seen_names: tuple[str, ...] = ()
        self._seen_values: tuple[Any, ...] = ()
        self._version = 0

    def add(self, parameters: Sequence[Parameter]) -> None:
        """Add parameters to the group."""
        self.dtypes |= {parameter.compute_dtype for parameter in parameters}
        largest = [float(np.finfo(dtype).max) for dtype in self.dtypes]
        self.largest_value = min(largest, default=math.inf)
        self.names += tuple(parameter.name for parameter in parameters)
        self.settings["params"] = self.names

    def check(self) -> None:
        """Check all settings but schedules, which are first called by a step.

        Raises
        ------
        HyperparameterError
        """
        resolved = self.resolve(self.settings, None)
        self._see(resolved, frozenset())
        if resolved.schedules:
            self._resolved = {}

    @property
    def rule(self) -> Rule:
        """The rule with the options of the settings composed around it."""
        return self.resolve(self.settings, None).rule

    @property
    def has_new_schedule(self) -> bool:
        """True if a schedule has not been called yet."""
        settings = self.settings.values()
        return any(callable(value) and not self.schedules.knows(value) for value in settings)

    def check_names(self) -> None:
        """Raise `ParameterError` if "params" was replaced in the settings."""
        given = self.settings.get("params", self.names)
        if given is self.names:
            return
        listed = isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given)
        if not (listed and tuple(given) == self.names):
            raise ParameterError(
                f'param_groups: "params" was replaced by {describe(given)}; it names the arrays of '
                f"the group, {list(self.names)}, and cannot be changed. For more arrays there is "
                "`add`, for a table with more rows `grow`; for others make a new optimizer. Write "
                "new values into the arrays themselves"
            )

    def prepare(self, step: int, options: frozenset[str] = frozenset()) -> Resolved:
        """Check the settings, and return the group's rule and hyperparameters at a step.

        Parameters
        ----------
        step : int
            Counted from 0.
        options : frozenset of str
            Options that the step composes around the rule.

        Raises
        ------
        HyperparameterError, ParameterError
            The next call checks everything again.
        """
        settings = self.settings
        # Compared by identity: users may have put arrays there, which have no truth value.
        if tuple(settings) != self._seen_names or not all(
            map(operator.is_, settings.values(), self._seen_values)
        ):
            self._update_resolved()
        resolved = self._resolved.get(options)
        if resolved is None:
            resolved = self._resolve(step, options)
        elif resolved.schedules:
            resolved = self._at(step, resolved)
        return resolved

    def _resolve(self, step: int, options: frozenset[str]) -> Resolved:
        """Check all settings, and remember the result until they change."""
        self.check_names()
        converted = _python_scalars(self.settings)
        resolved = self.resolve(self.settings | converted, step, options)
        self.settings |= converted
        self._see(resolved, options)
        return resolved

    def _see(self, resolved: Resolved, options: frozenset[str]) -> None:
        """Remember the settings, and what they were resolved to."""
        self._seen_names, self._seen_values = tuple(self.settings), tuple(self.settings.values())
        self._resolved[options] = resolved

    def _update_resolved(self) -> None:
        """Change what is remembered to new numbers; forget it if more than numbers have changed.

        Training loops that write a rate into the settings do so in each step.
        """
        names, given = tuple(self.settings), tuple(self.settings.values())
        changed = {
            name: new
            for name, old, new in zip(names, self._seen_values, given, strict=False)
            if old is not new
        }
        # Any other setting, and decay from or to 0, may make another rule.
        numbers = set(self.base.hyperparameters) - self.fixed.keys()
        decay = dict(zip(names, self._seen_values, strict=False)).get("weight_decay")
        if decay and changed.get("weight_decay"):
            numbers.add("weight_decay")
        if (
            names != self._seen_names
            or not changed.keys() <= numbers
            or any(type(value) not in (float, int) for value in changed.values())
            or any(map(callable, self._seen_values))
        ):
            self._resolved = {}
            return
        values = {name: hyperparameters.number(name, value) for name, value in changed.items()}
        self.check_values(values)
        updated = {}
        for options, resolved in self._resolved.items():
            together = resolved.values | {k: v for k, v in values.items() if k in resolved.values}
            self._check_eps(self.settings, together)
            self._version += 1
            updated[options] = resolved._replace(values=together, version=self._version)
        self._resolved, self._seen_values = updated, given

    def _at(self, step: int, resolved: Resolved) -> Resolved:
        """The settings with the values of schedules at a step."""
        settings, limit = self.settings, resolved.max_row_norm
        names = [name for name in resolved.schedules if name in resolved.values]
        values = resolved.values | self._evaluate(names, settings, step)
        if "eps" in names or "eps_root" in names:
            self._check_eps(settings, values)
        if "max_row_norm" in resolved.schedules:
            limit = self._row_norm_limit(settings, step)
        return resolved._replace(values=values, max_row_norm=limit)

    def resolve(
        self, settings: Mapping[str, Any], step: int | None, options: frozenset[str] = frozenset()
    ) -> Resolved:
        """Check settings; the group stays as it is.

        Parameters
        ----------
        settings : mapping
        step : int or None
            None leaves out schedules, and the values have no items for them.
        options : frozenset of str
            Options that the step composes around the rule.

        Raises
        ------
        HyperparameterError
        """
        always = ("params", *hyperparameters.SETTINGS, *self.fixed)
        hyperparameters.check_present(settings, always)
        hyperparameters.check_choice(settings, "check", (None, *hyperparameters.CHECKS))
        hyperparameters.check_fixed(settings, self.base.states)
        for name, value in self.fixed.items():
            if settings[name] != value:
                raise HyperparameterError(
                    f"{name}: got {settings[name]!r}, but the states are made for {value!r}"
                )
        chosen = hyperparameters.options(settings)
        _check_decay(self.base, chosen)
        rule = compose(self.base, chosen | options)
        rule = rule.rowwise if self.rowwise else rule
        needed = (*always, *self.base.hyperparameters, *_own_hyperparameters(rule))
        hyperparameters.check_present(settings, needed)
        # An option that was switched off may have left its hyperparameters.
        hyperparameters.check_known(settings, (*needed, *self._seen_names))
        names = _own_hyperparameters(rule)
        values = self._evaluate(names, settings, step)
        self._check_eps(settings, values)
        limit = self._row_norm_limit(settings, step)
        schedules = tuple(n for n in (*names, "max_row_norm") if callable(settings[n]))
        by_rows = self.rowwise or "max_row_norm" in schedules or limit < math.inf
        skips = skips_out_of_range(settings["check"])
        self._version += 1
        return Resolved(rule, values, limit, by_rows, skips, schedules, self._version)

    @in_default_modes
    def rate(self, updates: int, step: int) -> tuple[Rule, tuple[float, ...]]:
        """The rule of effective rates, and its coefficients after an update (from 1) and step.

        Raises
        ------
        RuleError
            If the rule has no rate.
        """
        self.check_names()
        self.resolve(self.settings, step)
        rule = self.base.rate
        values = self._evaluate(_own_hyperparameters(rule), self.settings, step)
        return rule, coefficients(rule, values, max(updates, 1), self.largest_value)

    def check_values(self, values: Mapping[str, float]) -> None:
        """Raise `HyperparameterError` for a value that overflows or vanishes in a compute dtype."""
        for name, value in values.items():
            for dtype in self.dtypes:
                hyperparameters.check_fits(name, value, dtype)

    def _evaluate(
        self, names: Sequence[str], settings: Mapping[str, Any], step: int | None
    ) -> dict[str, float]:
        """The checked hyperparameters of these names at a step."""
        values = {}
        for name in names:
            given = settings[name]
            if step is None and callable(given):
                continue
            values[name] = hyperparameters.at_step(name, given, step or 0, self.schedules)
        try:
            self.check_values(values)
        except HyperparameterError:
            for name in values:
                if callable(settings[name]):  # call it again, whichever it was
                    self.schedules.forget(settings[name], step or 0)
            raise
        return values

    def _row_norm_limit(self, settings: Mapping[str, Any], step: int | None) -> float:
        """``max_row_norm`` at a step."""
        given = settings["max_row_norm"]
        if step is None and callable(given):
            return math.inf
        return hyperparameters.at_step("max_row_norm", given, step or 0, self.schedules)

    def _check_eps(self, settings: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """Raise `HyperparameterError` if eps = 0 leads to 0/0 where all gradients have been 0.

        Schedules that have not been called count as 0.5.
        """
        if values.get("eps") != 0:
            return
        rule = self.base.without_average
        known = {name: values.get(name, 0.5) for name in rule.hyperparameters}
        if not _is_finite_at_zero(rule, known, self._exact_initial(settings)):
            raise HyperparameterError(
                "eps: got 0, expected a number > 0: an element whose gradients have all been 0 "
                f"would be 0/0, NaN, with the rule {rule.name!r} and these settings. Give a "
                'small eps, such as 1e-30; of Adagrad eps_mode="none" or initial_accumulator > 0'
            )

    def _exact_initial(self, settings: Mapping[str, Any]) -> dict[str, float]:
        """Initial values of states that are stored without rounding."""
        if settings["state_dtype"] not in (None, "float32", "float64"):
            return {}
        smallest = max((float(np.finfo(dtype).tiny) for dtype in self.dtypes), default=0.0)
        return {
            state: value
            for state, value in self.initial.items()
            if isinstance(value, float) and abs(value) >= smallest
        }


def skips_out_of_range(check: str | None) -> dict[str, bool]:
    """By backend: True if rows that are out of range are left out, False if they raise."""
    return {"cpu": check == "skip", "cuda": check != "raise"}


def _check_decay(rule: Rule, options: frozenset[str]) -> None:
    """Raise `HyperparameterError` for a decay of a parameter that the rule makes anew."""
    lost = options & {"decoupled", "absolute", "after"}
    rule = rule.without_average
    if lost and _made_anew(rule):
        raise HyperparameterError(
            f"decay: got {min(lost)!r}, but {rule.name!r} makes the parameter anew of its states "
            "in every step, and forgets what else was done to it: decay='l2' adds to the gradient, "
            "or leave weight_decay at 0"
        )


def constants(average: AverageRule, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of an average that stay what they are during training.

    Raises
    ------
    HyperparameterError
        One is a schedule, or missing.
    """
    names = [averaging.hyperparameter(name) for name in sorted(average.constant)]
    hyperparameters.check_present(settings, names)
    for name in names:
        if callable(settings[name]):
            raise HyperparameterError(
                f"{name}: got a schedule, expected a number: the average's weights are computed "
                "from it"
            )
    return {name: settings[name] for name in names}


@cached_with_rule
def _made_anew(rule: Rule) -> bool:
    return recomputes_parameter(rule.program)


def _python_scalars(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are NumPy scalars or arrays of one element, as Python numbers."""
    converted = {}
    for name, value in settings.items():
        if type(value) not in (int, float, str, bool, tuple) and value is not None:
            scalar = hyperparameters.plain(name, value)
            if scalar is not value:
                converted[name] = scalar
    return converted


def _is_finite_at_zero(
    rule: Rule, values: Mapping[str, float], initial: Mapping[str, float]
) -> bool:
    """True if an element stays finite whose gradients have all been 0.

    Its states are 0, or their initial values if zero gradients leave these unchanged.
    """
    zeros = [0.0] * len(rule.states)
    start = [initial.get(state, 0.0) for state in rule.states]
    return _is_finite(rule, values, zeros) or _is_finite(rule, values, start, unchanged=True)


def _is_finite(
    rule: Rule, values: Mapping[str, float], states: Sequence[float], unchanged: bool = False
) -> bool:
    """True if a zero gradient gives finite numbers, at the first and at a late update.

    With ``unchanged`` only if it also leaves the states as they are.
    """
    arrays = [np.array([number]) for number in (1.0, 0.0, *states)]
    for updates in (1, 10**6):
        try:
            numbers = rule.evaluate(*(values[name] for name in rule.hyperparameters), updates)
            with np.errstate(all="ignore"):
                results = [float(np.ravel(x)[0]) for x in evaluate(rule, arrays, numbers)]
        except (ArithmeticError, TypeError, ValueError):
            return False
        if not all(map(math.isfinite, results)) or (unchanged and results[1:] != [*states]):
            return False
    return True


def _own_hyperparameters(rule: Rule) -> list[str]:
    """The hyperparameters of a rule that come from settings, not from a step."""
    return [name for name in rule.hyperparameters if name not in hyperparameters.STEP_VALUES]


def coefficients(
    rule: Rule, values: Mapping[str, float], updates: int, largest: float
) -> tuple[float, ...]:
    """Compute a rule's coefficients, bias corrections among them, in float64.

    Parameters
    ----------
    rule : Rule
    values : mapping of str to float
        The hyperparameters.
    updates : int
        Number of the update, from 1.
    largest : float
        Largest finite number of the compute dtype.

    Raises
    ------
    HyperparameterError
        If a coefficient is not finite or above ``largest``. Scale and clip factors may be above
        it: they are checked against the gradients' dtypes.
    """
    arguments = [values[name] for name in rule.hyperparameters]
    try:
        result = tuple(map(float, rule.evaluate(*arguments, updates)))
        # The sum is quick, and enough for nearly all coefficients.
        if sum(map(abs, result)) <= largest:
            return result
        unscaled = [x for k, x in enumerate(result) if k not in scaled(rule)]
        if all(abs(x) <= largest for x in unscaled) and all(map(math.isfinite, result)):
            return result
        reason = f"a coefficient is not finite, or too large: {result}"
    except ZeroDivisionError as error:
        reason = f"{error}{_zero_divisor(rule, arguments, updates)}"
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = str(error)
    named = dict(zip((*rule.hyperparameters, "t"), (*arguments, updates), strict=True))
    raise HyperparameterError(f"{rule.name}: {reason}, with {named}")


def _zero_divisor(rule: Rule, arguments: Sequence[float], updates: int) -> str:
    """Name the hyperparameter whose zero a formula divides by, if there is one alone."""
    for k, (name, value) in enumerate(zip(rule.hyperparameters, arguments, strict=True)):
        if value == 0:
            try:
                rule.evaluate(*arguments[:k], 1.0, *arguments[k + 1 :], updates)
            except ArithmeticError:
                continue
            return f" (the formula divides by {name}: it has to be above 0, in a warm-up too)"
    return ""
