"""A group: parameters that share hyperparameters; a slot: one parameter and its states."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.options import compose
from gpuadapt.kernels.rule import Rule

from . import hyperparameters
from .arrays import Memory, copied, namespace, on_device, plain, row_zeros, zeros_like
from .errors import HyperparameterError, RowIndexError
from .launch import RowUpdate, Update, bind, bind_rows, update_once
from .rowgrad import RowGrad


class Slot:
    """One parameter: its array, its states and the updates bound to both."""

    def __init__(
        self,
        name: str,
        array: Any,
        backend: str,
        group: int,
        rule: Rule,
        rowwise: bool,
        initial: Mapping[str, float],
        memory: Memory,
    ) -> None:
        self.name = name
        # Of NumPy's a view, so that nobody else can change its shape.
        self.array = plain(array).view() if backend == "cpu" else array
        self.backend = backend
        self.group = group
        """Its number, not the group itself: a cycle would keep the arrays alive."""
        self.kind = type(self.array)
        self.dtype = self.array.dtype
        self.shape = self.array.shape
        by_row = rule.rowwise.row_states if rowwise else ()
        self.states = {
            state: row_zeros(self.array, backend)
            if state in by_row
            else zeros_like(self.array, backend, memory)
            for state in rule.states
        }
        for state, value in initial.items():
            if value != 0:  # zeros are memory that nobody has touched yet
                with on_device(self.array):
                    self.states[state].fill(value)
        self.updates = 0
        """How many there were, up to where `Steps` has last settled."""
        # None until they are needed: nothing is compiled before.
        self._dense: tuple[Rule, Update] | None = None
        self._rows: tuple[Rule, RowUpdate] | None = None
        self._skipped = 0
        self._numbers: Any = None

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The parameter and the states."""
        return (self.array, *self.states.values())

    def bound(self, rule: Rule) -> Update:
        """The update by a rule of this slot's arrays, from a gradient of any strides."""
        if self._dense is None or self._dense[0] is not rule:
            self._dense = rule, bind(rule, self.backend, *self.arrays)
        return self._dense[1]

    def bound_rows(self, rule: Rule) -> RowUpdate:
        """As `bound`, of rows."""
        if self._rows is None or self._rows[0] is not rule:
            update = bind_rows(rule, self.backend, *self.arrays)
            self._skipped = self.skipped
            self._rows = rule, update
        return self._rows[1]

    @property
    def skipped(self) -> int:
        """Gradient rows that were out of range and left out."""
        return self._skipped + (self._rows[1].skipped if self._rows else 0)

    def rows_of(self, grad: Any) -> RowGrad:
        """A gradient as rows; a dense one has every row once."""
        if isinstance(grad, RowGrad):
            return grad
        grad = grad.reshape(self.shape or (1,))
        if self._numbers is None:
            with on_device(self.array):
                self._numbers = namespace(self.backend).arange(len(grad))
        return RowGrad(self._numbers, grad)

    def rate(self, rule: Rule, coefficients: tuple[float, ...]) -> Any:
        """A new array with the effective rates, by the rule that computes them."""
        result = zeros_like(self.array, self.backend)
        states = [
            state if state.shape == self.shape else self._spread(state)
            for state in self.states.values()
        ]
        update_once(rule, self.backend, result, result, states, coefficients)
        return result

    def _spread(self, state: Any) -> Any:
        """A state that has one number for each row, as one that has them all."""
        wide = state.reshape(self.shape[:1] + (1,) * (len(self.shape) - 1))
        return copied(namespace(self.backend).broadcast_to(wide, self.shape))

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own: the bound kernels are not for them.
        return self.__dict__ | {
            "_dense": None,
            "_rows": None,
            "_numbers": None,
            "_skipped": self.skipped,
        }


class Group:
    """Hyperparameters as the user set them, and their values at a step.

    ``settings`` is the dictionary that `Optimizer.param_groups` shows: the user may change
    it between steps, so every step looks at it again.
    """

    def __init__(self, rule: Rule, settings: dict[str, Any]) -> None:
        self.base = rule
        self.rule = rule
        self.settings = settings
        hyperparameters.check_choice(settings, "rowwise", (False, True))
        self.rowwise = settings["rowwise"]
        """Whether states have one number for each row where the rule allows it."""
        self.most = math.inf
        """The largest norm of a row's gradient at the step."""
        self.by_rows = self.rowwise
        """Whether dense gradients too are updates of rows."""
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
        if settings["rowwise"] is not self.rowwise:
            raise HyperparameterError(
                f"rowwise: got {settings['rowwise']!r}, but the states are made for {self.rowwise}"
            )
        rule = compose(self.base, hyperparameters.options(settings) | options)
        rule = rule.rowwise if self.rowwise else rule
        needed = (*always, *self.base.hyperparameters, *_own(rule))
        hyperparameters.check_present(settings, needed)
        # Names of before may be those of an option that has been switched off.
        hyperparameters.check_known(settings, (*needed, *self._names))
        return rule, self._evaluate(rule, settings, step), _most(settings, step)

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


def prepare_rows(slot: Slot, group: Group, grad: Any) -> tuple[RowUpdate, Any]:
    """The update of a parameter by rows, and what it is to be called with.

    Raises
    ------
    RowIndexError
        Rows are out of range, and the group does not skip them.
    """
    update, rows = slot.bound_rows(group.rule), slot.rows_of(grad)
    try:
        plan = update.prepare(
            rows.rows,
            rows.values,
            rows.duplicates,
            rows.count,
            group.skips(slot.backend),
            group.most,
        )
    except RowIndexError as error:
        raise RowIndexError(f"gradient of {slot.name!r}: {error}") from None
    return update, plan
