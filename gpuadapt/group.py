"""A group: parameters that share hyperparameters, and what a step needs to update them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuadapt.kernels.options import compose
from gpuadapt.kernels.rule import Rule

from . import hyperparameters
from .arrays import zeros_like
from .errors import HyperparameterError
from .launch import Update, bind


class Slot:
    """One parameter: its array, its states and the kernel bound to both."""

    def __init__(self, name: str, array: Any, backend: str, group: Group) -> None:
        self.name = name
        self.array = array
        self.backend = backend
        self.group = group
        self.kind = np.ndarray if backend == "cpu" else type(array)
        self.dtype = array.dtype
        self.shape = array.shape
        self.states = {state: zeros_like(array, backend) for state in group.base.states}
        self.updates = 0
        self.update: Update | None = None
        """None until the first step: nothing is compiled before it is needed."""

    def bind(self, rule: Rule, array: Any) -> Update:
        return bind(rule, self.backend, array, tuple(self.states.values()))


class Group:
    """Hyperparameters as the user set them, and their values at a step.

    ``settings`` is the dictionary that `Optimizer.param_groups` shows: the user may change
    it between steps, so every step looks at it again.
    """

    def __init__(self, rule: Rule, settings: dict[str, Any]) -> None:
        self.base = rule
        self.rule = rule
        self.settings = settings
        self.slots: list[Slot] = []
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
        given = tuple(self.settings.values())
        if given == self._seen:
            return self._evaluate(self.rule, step) if self._scheduled else self._values
        known = ("params", *hyperparameters.SETTINGS, *self.base.hyperparameters)
        hyperparameters.check_names(self.settings, known, required=True)
        rule = compose(self.base, hyperparameters.options(self.settings))
        values = self._evaluate(rule, step)
        if rule is not self.rule:
            self.rule = rule
            for slot in self.slots:
                slot.update = None
        self._scheduled = any(callable(self.settings[name]) for name in rule.hyperparameters)
        self._values = values
        self._seen = given
        return values

    def coefficients(
        self, rule: Rule, values: tuple[float, ...], updates: int
    ) -> tuple[float, ...]:
        """What the kernel needs at a parameter's n-th update (from 1), in float64."""
        try:
            return rule.evaluate(*values, updates)
        except (ArithmeticError, ValueError) as error:
            given = dict(zip(rule.hyperparameters, values, strict=True))
            raise HyperparameterError(f"{rule.name}: {error}, with {given}") from error

    def rate(self, slot: Slot, step: int) -> Any:
        """The effective rate of a parameter's elements, from its states as they are."""
        rule = self.base.rate
        values = self._evaluate(rule, step)
        result = zeros_like(slot.array, slot.backend)
        slot.bind(rule, result)(result, self.coefficients(rule, values, max(slot.updates, 1)))
        return result

    def _evaluate(self, rule: Rule, step: int) -> tuple[float, ...]:
        values = tuple(
            hyperparameters.at_step(name, self.settings[name], step)
            for name in rule.hyperparameters
        )
        for name, value in zip(rule.hyperparameters, values, strict=True):
            for dtype in {slot.dtype for slot in self.slots}:
                if abs(value) > float(np.finfo(dtype).max) or (
                    name == "eps" and dtype.type(value) == 0
                ):
                    raise HyperparameterError(f"{name}: {value!r} does not fit in {dtype}")
        return values
