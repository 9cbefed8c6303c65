"""A group: parameters that share hyperparameters, and their values at a step."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.missed import Missed, columns, missed
from gpuadapt.kernels.modes import in_default_modes
from gpuadapt.kernels.options import compose
from gpuadapt.kernels.rule import Rule

from . import hyperparameters
from .effects import check_decay
from .errors import HyperparameterError
from .slot import Slot


class Group:
    """Hyperparameters as the user set them, and their values at a step.

    ``settings`` is the dictionary that `Optimizer.param_groups` shows: the user may change
    it between steps, so every step looks at it again.
    """

    def __init__(self, rule: Rule, settings: dict[str, Any]) -> None:
        self.base = rule
        self.rule = rule
        self.settings = settings
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
        self._options: frozenset[str] = frozenset()
        self.version = 0
        """Rises whenever settings or options are others."""
        self._scheduled = False
        self._values: dict[str, float] = {}

    def add(self, slot: Slot) -> None:
        """Take a parameter in."""
        self.dtypes.add(slot.dtype)
        self.largest = min(self.largest, float(np.finfo(slot.dtype).max))
        self.settings["params"] += (slot.name,)

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
            rule, values, most = self.resolve(self.settings, step, options)
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
            self.most = _most(self.settings, step)
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
        self, settings: Mapping[str, Any], step: int, options: frozenset[str] = frozenset()
    ) -> tuple[Rule, dict[str, float], float]:
        """The rule that settings ask for, options included; its values at a step; `most`."""
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
        return rule, self._evaluate(rule, settings, step), _most(settings, step)

    @in_default_modes
    def rate(self, updates: int, step: int) -> tuple[Rule, tuple[float, ...]]:
        """The rule that computes effective rates, and its coefficients."""
        self.resolve(self.settings, step)
        rule = self.base.rate
        values = self._evaluate(rule, self.settings, step)
        return rule, coefficients(rule, values, max(updates, 1), self.largest)

    def check_values(self, values: Mapping[str, float]) -> None:
        """Raise `HyperparameterError` for values of a step that do not fit the parameters."""
        for name, value in values.items():
            for dtype in self.dtypes:
                hyperparameters.check_fits(name, value, dtype)

    def _evaluate(self, rule: Rule, settings: Mapping[str, Any], step: int) -> dict[str, float]:
        values = {name: hyperparameters.at_step(name, settings[name], step) for name in _own(rule)}
        self.check_values(values)
        return values


def _own(rule: Rule) -> list[str]:
    """The hyperparameters that settings have, and not a step."""
    return [name for name in rule.hyperparameters if name not in hyperparameters.STEP_VALUES]


def _most(settings: Mapping[str, Any], step: int) -> float:
    return hyperparameters.at_step("max_row_norm", settings["max_row_norm"], step)


def coefficients(
    rule: Rule, values: Mapping[str, float], updates: int, largest: float
) -> tuple[float, ...]:
    """What a kernel needs at a parameter's n-th update (from 1), in float64.

    Raises
    ------
    HyperparameterError
        A coefficient is not a finite number, or larger than the largest there is.
    """
    given = [values[name] for name in rule.hyperparameters]
    try:
        result = tuple(map(float, rule.evaluate(*given, updates)))
        # The sum first: it is quick, and says so of nearly all that fit.
        if sum(map(abs, result)) <= largest or all(abs(x) <= largest for x in result):
            return result
        reason = f"a coefficient is not finite, or too large: {result}"
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = str(error)
    named = dict(zip((*rule.hyperparameters, "t"), (*given, updates), strict=True))
    raise HyperparameterError(f"{rule.name}: {reason}, with {named}")
