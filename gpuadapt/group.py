"""A group: parameters that share hyperparameters; a slot: one parameter and its states."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.options import compose
from gpuadapt.kernels.rule import Rule

from . import hyperparameters
from .arrays import plain, zeros_like
from .errors import HyperparameterError
from .launch import Update, bind


class Slot:
    """One parameter: its array, its states and the kernel bound to both."""

    def __init__(self, name: str, array: Any, backend: str, group: int, rule: Rule) -> None:
        self.name = name
        self.array = plain(array)
        self.backend = backend
        self.group = group
        """Its number, not the group itself: a cycle would keep the arrays alive."""
        self.kind = type(self.array)
        self.dtype = self.array.dtype
        self.shape = self.array.shape
        self.states = {state: zeros_like(self.array, backend) for state in rule.states}
        self.updates = 0
        self.rule: Rule | None = None
        self.update: Update | None = None
        """None until the first step: nothing is compiled before it is needed."""

    def bound(self, rule: Rule) -> Update:
        """The update by a rule of this slot's states; compiled when it changes."""
        if self.update is None or self.rule is not rule:
            self.update = bind(rule, self.backend, self.array, tuple(self.states.values()))
            self.rule = rule
        return self.update

    def rate(self, rule: Rule, coefficients: tuple[float, ...]) -> Any:
        """A new array with the effective rates, by the rule that computes them."""
        result = zeros_like(self.array, self.backend)
        bind(rule, self.backend, result, tuple(self.states.values()))(result, coefficients)
        return result

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own: the bound kernel is not for them.
        return self.__dict__ | {"rule": None, "update": None}


class Group:
    """Hyperparameters as the user set them, and their values at a step.

    ``settings`` is the dictionary that `Optimizer.param_groups` shows: the user may change
    it between steps, so every step looks at it again.
    """

    def __init__(self, rule: Rule, settings: dict[str, Any]) -> None:
        self.base = rule
        self.rule = rule
        self.settings = settings
        self.dtypes: set[np.dtype] = set()
        self._names: tuple[str, ...] = ()
        self._seen: tuple[Any, ...] = ()
        self._scheduled = False
        self._values: tuple[float, ...] = ()

    def prepare(self, step: int) -> tuple[float, ...]:
        """Values of the rule's hyperparameters at a step (from 0), all of them checked.

        Raises
        ------
        HyperparameterError
            Before anything of the group is changed.
        """
        names, given = tuple(self.settings), tuple(self.settings.values())
        # The same objects, not equal ones: an array that was put there cannot be compared.
        if names != self._names or not all(map(operator.is_, given, self._seen)):
            rule, values = self.resolve(self.settings, step)
            self._scheduled = any(callable(self.settings[name]) for name in rule.hyperparameters)
            self.rule, self._values = rule, values
            self._names, self._seen = names, given
        elif self._scheduled:
            return self._evaluate(self.rule, self.settings, step)
        return self._values

    def resolve(self, settings: Mapping[str, Any], step: int) -> tuple[Rule, tuple[float, ...]]:
        """The rule that settings ask for, options included, and its values at a step."""
        always = ("params", *hyperparameters.SETTINGS)
        hyperparameters.check_present(settings, always)
        rule = compose(self.base, hyperparameters.options(settings))
        needed = (*always, *self.base.hyperparameters, *rule.hyperparameters)
        hyperparameters.check_present(settings, needed)
        # Names of before may be those of an option that has been switched off.
        hyperparameters.check_known(settings, (*needed, *self._names))
        return rule, self._evaluate(rule, settings, step)

    def rate(self, updates: int, step: int) -> tuple[Rule, tuple[float, ...]]:
        """The rule that computes effective rates, and its coefficients."""
        self.resolve(self.settings, step)
        rule = self.base.rate
        values = self._evaluate(rule, self.settings, step)
        return rule, coefficients(rule, values, max(updates, 1))

    def _evaluate(self, rule: Rule, settings: Mapping[str, Any], step: int) -> tuple[float, ...]:
        values = tuple(
            hyperparameters.at_step(name, settings[name], step) for name in rule.hyperparameters
        )
        for name, value in zip(rule.hyperparameters, values, strict=True):
            for dtype in self.dtypes:
                if abs(value) > float(np.finfo(dtype).max) or (
                    name == "eps" and dtype.type(value) == 0
                ):
                    raise HyperparameterError(f"{name}: {value!r} does not fit in {dtype}")
        return values


def coefficients(rule: Rule, values: Iterable[float], updates: int) -> tuple[float, ...]:
    """What a kernel needs at a parameter's n-th update (from 1), in float64.

    Raises
    ------
    HyperparameterError
        A coefficient is not a finite number.
    """
    try:
        result = tuple(map(float, rule.evaluate(*values, updates)))
        if math.isfinite(sum(result)):
            return result
        reason = f"a coefficient is not finite: {result}"
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = str(error)
    given = dict(zip((*rule.hyperparameters, "t"), (*values, updates), strict=True))
    raise HyperparameterError(f"{rule.name}: {reason}, with {given}")
