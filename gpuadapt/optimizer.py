"""`Optimizer`: parameters, state and `step`; the same for every rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuadapt.kernels.rule import Rule

from . import hyperparameters
from .arrays import (
    backend_of,
    check_disjoint,
    check_parameter,
    copy_into,
    describe,
)
from .errors import GradientError, ParameterError, StateError
from .group import Group, Slot

STATE_VERSION = 1


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
    decay : {"l2", "decoupled"}
        "l2" adds ``weight_decay p`` to the gradient; "decoupled" subtracts
        ``lr weight_decay p`` from the parameter before the update (Loshchilov & Hutter 2019).
    maximize : bool
        Ascend instead of descend.
    **hyperparameters : float or schedule
        Those of the rule. A schedule is a function of the step, counted from 0, that
        returns the value for that step; ``betas=(b1, b2)`` is short for ``beta1=b1,
        beta2=b2``.

    Attributes
    ----------
    param_groups : list of dict
        Hyperparameters by name, and "params", the names of the group's parameters. May be
        changed between steps.
    step_count : int
        Steps taken.

    Raises
    ------
    ParameterError, HyperparameterError, BackendError
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
        weight_decay: hyperparameters.Hyperparameter = 0.0,
        decay: str = "l2",
        maximize: bool = False,
        **hyperparameters_: Any,
    ) -> None:
        if not isinstance(rule, Rule):
            raise TypeError(f"rule: got {rule!r}, expected a function decorated with @rule")
        common = {"weight_decay": weight_decay, "decay": decay, "maximize": maximize}
        common |= hyperparameters.expand(hyperparameters_)
        hyperparameters.check_names(
            common, (*hyperparameters.SETTINGS, *rule.hyperparameters), required=False
        )
        self.rule = rule
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
        if _are_groups(params):
            template = []
            for given in params:
                settings = common | hyperparameters.expand(given)
                template.append(self._build_group(settings.pop("params"), settings))
            return template
        return self._build_group(params, common)

    def _build_group(self, params: Any, settings: dict[str, Any]) -> Any:
        group = Group(self.rule, {"params": [], **settings})
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
        slot = self._slots[name] = Slot(name, array, backend, group)
        group.slots.append(slot)
        group.settings["params"].append(name)
        return slot

    def step(self, grads: Any) -> None:
        """Update every parameter that has a gradient, in place.

        Everything is checked before anything is written: a step that raises has changed
        nothing.

        Parameters
        ----------
        grads
            The structure of ``params`` with a gradient for each array: of its shape and
            element type, on its device, with any strides; or None where there is no
            gradient. A dict of name to gradient always works. With groups: a list, with
            the structure of each group's params. Not a part of a parameter's own memory.

        Raises
        ------
        GradientError, HyperparameterError
        """
        pairs: list[tuple[Slot, Any]] = []
        if isinstance(grads, Mapping) and not isinstance(self._template, dict):
            _match(self._slots, grads, pairs)
        else:
            _match(self._template, grads, pairs)
        values = {group: group.prepare(self.step_count) for group in self._groups}
        work = []
        group, updates, coefficients = None, 0, ()
        for slot, grad in pairs:
            if slot.updates != updates or slot.group is not group:
                group, updates = slot.group, slot.updates
                coefficients = group.coefficients(group.rule, values[group], updates + 1)
            update = slot.update
            if update is None:
                update = slot.update = slot.bind(group.rule, slot.array)
            work.append((slot, update, grad, coefficients))
        for slot, update, grad, coefficients in work:
            update(grad, coefficients)
            slot.updates += 1
        self.step_count += 1

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group.settings for group in self._groups]

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """The state arrays themselves, by parameter and by the rule's letters."""
        return {name: dict(slot.states) for name, slot in self._slots.items()}

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
        return slot.group.rate(slot, max(self.step_count - 1, 0))

    def state_dict(self) -> dict[str, Any]:
        """A snapshot from which training resumes exactly, bit for bit.

        Returns
        -------
        dict
            "version", "rule", "step_count", "param_groups" (schedules are left out: they
            are code) and "state": for each parameter its "updates" and copies of its
            state arrays, where they live.
        """
        return {
            "version": STATE_VERSION,
            "rule": self.rule.name,
            "step_count": self.step_count,
            "param_groups": [
                {key: list(value) if key == "params" else value
                 for key, value in group.settings.items() if not callable(value)}
                for group in self._groups
            ],
            "state": {
                name: {"updates": slot.updates}
                | {state: array.copy() for state, array in slot.states.items()}
                for name, slot in self._slots.items()
            },
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot of `state_dict`, made on either backend.

        Everything is checked before anything is changed.

        Raises
        ------
        StateError
            Of another rule, other parameters, other shapes or element types.
        """
        groups, arrays = self._check_state(state)
        for group, settings in zip(self._groups, groups, strict=True):
            group.settings.update(settings)
        for slot, updates, saved in arrays:
            slot.updates = updates
            for letter, array in slot.states.items():
                copy_into(array, saved[letter])
        self.step_count = state["step_count"]

    def _check_state(
        self, state: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], list[tuple[Slot, int, Mapping[str, Any]]]]:
        """The parts of a snapshot, if all of them fit."""
        try:
            version, rule, groups = state["version"], state["rule"], state["param_groups"]
            entries, count = state["state"], state["step_count"]
            updates = {name: entry["updates"] for name, entry in entries.items()}
        except (KeyError, TypeError) as error:
            raise StateError(f"not a state_dict() of an optimizer: {error!r}") from None
        if version != STATE_VERSION or rule != self.rule.name:
            raise StateError(
                f"got version {version} of rule {rule!r}, "
                f"expected version {STATE_VERSION} of {self.rule.name!r}"
            )
        if not all(isinstance(n, int) and n >= 0 for n in (count, *updates.values())):
            raise StateError("step_count and updates are whole numbers from 0")
        names = [list(group.get("params", ())) for group in groups]
        expected = [group.settings["params"] for group in self._groups]
        if names != expected or set(entries) != set(self._slots):
            raise StateError(f"got parameters {names}, expected {expected}")
        arrays = []
        for slot in self._slots.values():
            saved = entries[slot.name]
            for letter, array in slot.states.items():
                given = saved.get(letter)
                if backend_of(given) is None or (given.shape, given.dtype) != (
                    array.shape,
                    array.dtype,
                ):
                    raise StateError(
                        f"parameter {slot.name!r}, state {letter!r}: got {describe(given)}, "
                        f"expected {array.dtype} of shape {array.shape}"
                    )
            arrays.append((slot, updates[slot.name], saved))
        for group, settings in zip(self._groups, groups, strict=True):
            hyperparameters.check_names(settings, tuple(group.settings), required=False)
            Group(self.rule, group.settings | settings).prepare(count)
        return groups, arrays

    def __repr__(self) -> str:
        def shown(value: Any) -> str:
            return getattr(value, "__name__", "<schedule>") if callable(value) else repr(value)

        settings = self._groups[0].settings
        text = ", ".join(f"{key}={shown(settings[key])}" for key in settings if key != "params")
        arrays = [slot.array for slot in self._slots.values()]
        backends = sorted({slot.backend for slot in self._slots.values()})
        return (
            f"{type(self).__name__}({self.rule.name}: {text}; {len(self._groups)} group"
            f"{'s' * (len(self._groups) > 1)}, {len(arrays)} parameter"
            f"{'s' * (len(arrays) > 1)}, {sum(a.size for a in arrays):,} elements on "
            f"{' and '.join(backends)}; step {self.step_count})"
        )


def _are_groups(params: Any) -> bool:
    return (
        isinstance(params, (list, tuple))
        and len(params) > 0
        and all(isinstance(given, Mapping) and "params" in given for given in params)
    )


def _match(template: Any, grads: Any, pairs: list[tuple[Slot, Any]]) -> None:
    """Append (slot, gradient) for every gradient that is not None, all of them checked."""
    if isinstance(template, Slot):
        if grads is not None:
            _check_gradient(template, grads)
            pairs.append((template, grads))
    elif isinstance(template, dict):
        if not isinstance(grads, Mapping):
            raise GradientError(f"gradients: got {describe(grads)}, expected a dict by name")
        if grads.keys() != template.keys():
            problems = [f"unknown {name!r}" for name in grads if name not in template]
            problems += [f"missing {name!r}" for name in template if name not in grads]
            raise GradientError(
                f"gradients: {', '.join(problems)} (None stands for no gradient)"
            )
        for name, slot in template.items():
            _match(slot, grads[name], pairs)
    else:
        if not isinstance(grads, (list, tuple)) or len(grads) != len(template):
            got = len(grads) if isinstance(grads, (list, tuple)) else describe(grads)
            raise GradientError(
                f"gradients: got {got}, expected a list of {len(template)} "
                "(None stands for no gradient)"
            )
        for part, grad in zip(template, grads, strict=True):
            _match(part, grad, pairs)


def _check_gradient(slot: Slot, grad: Any) -> None:
    array = slot.array
    if (
        isinstance(grad, slot.kind)
        and grad.dtype == slot.dtype
        and grad.shape == slot.shape
        and (slot.backend == "cpu" or grad.device == array.device)
    ):
        return
    raise GradientError(
        f"gradient of {slot.name!r}: got {describe(grad)}, expected {describe(array)}"
    )
