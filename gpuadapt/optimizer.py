"""`Optimizer`: parameters, state and `step`; the same for every rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from gpuadapt.kernels.rule import Rule

from .arrays import check_disjoint, check_parameter, describe, meets, merged, owner
from .errors import ParameterError, RuleError
from .group import Group, Slot, coefficients, prepare_rows
from .hyperparameters import SETTINGS, Hyperparameter, check_fits, check_initial, check_rule, expand
from .rowgrad import RowGrad
from .state import check, restore, snapshot
from .structure import are_groups, check_apart, match


class Optimizer:
    """Updates arrays in place with a rule, one fused kernel for each array.

    Parameters
    ----------
    rule : Rule
        A rule of `gpuadapt.rules`, or your own (see `gpuadapt.rule`).
    params : array, list of arrays, dict of name to array, or list of groups
        NumPy or CuPy arrays of float32 or float64, of any shape and strides; they are
        updated where they are, on the backend and device where they live. A group is a
        dict with "params" (any of the former) and hyperparameters of its own. Parameters
        without a name are called "0", "1", ... in order.
    weight_decay : float or schedule, >= 0
        Weight decay; 0 for none.
    decay : {"l2", "decoupled", "absolute", "after"}
        "l2" adds ``weight_decay p`` to the gradient. The others subtract from the parameter:
        "decoupled" ``lr weight_decay p`` before the update (Loshchilov & Hutter 2019),
        "absolute" ``weight_decay p`` before it, "after" ``lr weight_decay p`` of the new
        parameter after it. To exclude parameters, put them in a group with weight_decay 0.
    maximize : bool
        Ascend instead of descend.
    rowwise : bool
        Keep one second moment for each row (an index of the first dimension) instead of one
        for each element: the mean of the squares over the row takes the place of the square.
        For rules that square nothing but the gradient (see docs/combinations.md). Cannot be
        changed later.
    max_row_norm : float or schedule, > 0
        Each row of a gradient, its duplicates merged, is scaled down to this Euclidean norm
        if it has a larger one, before weight decay. Norms are float64 numbers: a row whose
        norm overflows becomes zero.
    check : {"raise", "skip"} or None
        What to do about rows of a `RowGrad` that are not in the table: raise `RowIndexError`,
        or leave them out and count them. None is "raise" on the CPU and "skip" on a GPU,
        where "raise" waits for the GPU in every step.
    initial : mapping of str to float, optional
        What every element of a state is before the first step, by the rule's letter; 0 for
        those left out. Numbers, and the same in every group.
    **hyperparameters : float or schedule
        Those of the rule. A schedule is a function of the step, counted from 0, that
        returns the value for that step; ``betas=(b1, b2)`` is short for ``beta1=b1,
        beta2=b2``.

    Attributes
    ----------
    param_groups : tuple of dict
        Hyperparameters by name, and "params", the names of the group's parameters. May be
        changed between steps.
    step_count : int
        Steps taken.

    Raises
    ------
    ParameterError, HyperparameterError, BackendError, RuleError
        With the parameter's or hyperparameter's name, what was given, what was expected.

    Notes
    -----
    Coefficients that depend on the step are computed in float64 on the host. Bias
    correction counts the updates of each parameter: one that had no gradient in a step
    is, bits and count, as if that step had not been.
    """

    def __init__(
        self,
        rule: Rule,
        params: Any,
        *,
        weight_decay: Hyperparameter = 0.0,
        decay: str = "l2",
        maximize: bool = False,
        rowwise: bool = False,
        max_row_norm: Hyperparameter = math.inf,
        check: str | None = None,
        initial: Mapping[str, float] | None = None,
        **hyperparameters: Any,
    ) -> None:
        if not isinstance(rule, Rule):
            raise RuleError(f"rule: got {rule!r}, expected a function decorated with @rule")
        common: dict[str, Any] = {
            "weight_decay": weight_decay,
            "decay": decay,
            "maximize": maximize,
        }
        common |= {"rowwise": rowwise, "max_row_norm": max_row_norm, "check": check}
        common |= expand(hyperparameters)
        check_rule(rule)
        self.rule = rule
        self._initial = check_initial(rule, initial or {})
        self.step_count = 0
        self._groups: list[Group] = []
        self._slots: dict[str, Slot] = {}
        self._template = self._build(params, common)
        if not self._slots:
            raise ParameterError(f"params: got {describe(params)} without any array")
        check_disjoint((slot.name, slot.backend, slot.array) for slot in self._slots.values())
        for group in self._groups:
            group.prepare(0)

    def _build(self, params: Any, common: dict[str, Any]) -> Any:
        """Make groups and slots; returns the structure of ``params`` with slots for arrays."""
        if are_groups(params):
            template = []
            for given in params:
                settings = common | expand(given)
                template.append(self._build_group(settings.pop("params"), settings))
            return template
        return self._build_group(params, common)

    def _build_group(self, params: Any, settings: dict[str, Any]) -> Any:
        group = Group(self.rule, {"params": (), **settings})
        self._groups.append(group)
        if isinstance(params, Mapping):
            return {name: self._add(group, name, array) for name, array in params.items()}
        if isinstance(params, (list, tuple)):
            return [self._add(group, str(len(self._slots)), array) for array in params]
        return self._add(group, str(len(self._slots)), params)

    def _add(self, group: Group, name: Any, array: Any) -> Slot:
        if not isinstance(name, str):
            raise ParameterError(f"parameter {name!r}: names are strings")
        if name in self._slots:
            raise ParameterError(f"parameter {name!r}: two parameters have this name")
        backend = check_parameter(name, array)
        for state, value in self._initial.items():
            check_fits(f"initial {state}", value, array.dtype)
        number = len(self._groups) - 1
        slot = Slot(name, array, backend, number, self.rule, group.rowwise, self._initial)
        self._slots[name] = slot
        group.add(slot)
        return slot

    @cached_property
    def _memory(self) -> tuple[set[int | None], list[tuple[int, int, int]]]:
        """Where gradients may not be: by owner, and by address for those without one."""
        slots = self._slots.values()
        arrays = [array for slot in slots for array in (slot.array, *slot.states.values())]
        return {owner(array) for array in arrays}, merged(arrays)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_memory"}

    def step(self, grads: Any) -> None:
        """Update every parameter that has a gradient, in place.

        Everything is checked before anything is written: a step that raises has changed
        nothing.

        Parameters
        ----------
        grads
            The structure of ``params`` with a gradient for each array: of its shape and
            element type, on its device, with any strides; or None where there is no
            gradient; or a `RowGrad`, where only some rows have one. A dict of name to
            gradient always works. With groups: a list, with the structure of each group's
            params. A gradient shares no memory with a parameter or a state.

        Raises
        ------
        GradientError, HyperparameterError
        RowIndexError
            Names the first row that is not in its table, and its position.
        """
        pairs: list[tuple[Slot, Any]] = []
        if isinstance(grads, Mapping) and not isinstance(self._template, dict):
            match(self._slots, grads, pairs)
        else:
            match(self._template, grads, pairs)
        owners, places = self._memory
        for slot, grad in pairs:
            for array in (grad.rows, grad.values) if isinstance(grad, RowGrad) else (grad,):
                held = owner(array)
                elsewhere = held is not None and held not in owners and None not in owners
                if not elsewhere and meets(array, places):
                    check_apart(slot.name, array, self._slots.values())
        values = [group.prepare(self.step_count) for group in self._groups]
        computed: dict[tuple[int, int], tuple[float, ...]] = {}
        work: list[tuple[Slot, Any, Any, tuple[float, ...]]] = []
        for slot, grad in pairs:
            group = self._groups[slot.group]
            key = (slot.group, slot.updates)
            if key not in computed:
                computed[key] = coefficients(
                    group.rule, values[slot.group], slot.updates + 1, group.largest
                )
            if group.by_rows or isinstance(grad, RowGrad):
                work.append((slot, *prepare_rows(slot, group, grad), computed[key]))
            else:
                work.append((slot, slot.bound(group.rule), grad, computed[key]))
        # Nothing above has written to an array. Below only a launch can fail, by CuPy's
        # compilation or a lack of memory: CUDA goes first, before the CPU's arrays are touched.
        work.sort(key=lambda item: item[0].backend == "cpu")
        for slot, update, grad, numbers in work:
            update(grad, numbers)
            slot.updates += 1
        self.step_count += 1

    @property
    def skipped_rows(self) -> int:
        """Rows of gradients that were not in their tables and were left out (``check="skip"``).

        Counts every occurrence since the optimizer was made. Waits for the GPU.
        """
        return sum(slot.skipped for slot in self._slots.values())

    @property
    def param_groups(self) -> tuple[dict[str, Any], ...]:
        return tuple(group.settings for group in self._groups)

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """The state arrays themselves, by parameter and by the rule's letters; read-only maps."""
        return MappingProxyType(
            {name: MappingProxyType(slot.states) for name, slot in self._slots.items()}
        )

    def effective_lr(self, name: str) -> Any:
        """The learning rate of each element, from the state after the last step.

        It is what multiplies the gradient (for Adam the corrected mean of gradients):
        lr / (sqrt(.) + eps), with eps where the rule has it; for Adadelta
        lr RMS(u) / RMS(g).

        Parameters
        ----------
        name : str
            The parameter's name.

        Returns
        -------
        array
            New, of the parameter's shape, element type and device.

        Raises
        ------
        ParameterError
            No parameter has that name.
        RuleError
            The rule (your own) has no variable named ``rate``.
        """
        if name not in self._slots:
            raise ParameterError(f"no parameter {name!r}; there are {', '.join(self._slots)}")
        slot = self._slots[name]
        group = self._groups[slot.group]
        return slot.rate(*group.rate(slot.updates, max(self.step_count - 1, 0)))

    def state_dict(self) -> dict[str, Any]:
        """A snapshot from which training resumes exactly, bit for bit.

        Returns
        -------
        dict
            "version", "rule", "step_count", "param_groups" (schedules are left out: they
            are code) and "state": for each parameter its "updates" and copies of its
            state arrays, where they live.
        """
        return snapshot(self.rule, self.step_count, self._groups, self._slots)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot of `state_dict`, made on either backend.

        Everything is checked before anything is changed.

        Raises
        ------
        StateError
            Of another rule, other parameters, other shapes or element types.
        HyperparameterError
            With settings that this optimizer cannot have, such as another ``rowwise``.
        """
        check(state, self.rule, self._groups, self._slots)
        restore(state, self._groups, self._slots)
        self.step_count = state["step_count"]

    def __repr__(self) -> str:
        def shown(value: Any) -> str:
            return getattr(value, "__name__", "<schedule>") if callable(value) else repr(value)

        settings = self._groups[0].settings
        usual = SETTINGS | {"params": settings["params"]}
        text = ", ".join(
            f"{key}={shown(value)}"
            for key, value in settings.items()
            if key not in usual or value != usual[key]
        )
        arrays = [slot.array for slot in self._slots.values()]
        backends = sorted({slot.backend for slot in self._slots.values()})
        return (
            f"{type(self).__name__}({self.rule.name}: {text}; {len(self._groups)} group"
            f"{'s' * (len(self._groups) > 1)}, {len(arrays)} parameter"
            f"{'s' * (len(arrays) > 1)}, {sum(a.size for a in arrays):,} elements on "
            f"{' and '.join(backends)}; step {self.step_count})"
        )
