"""`Fused`: what gpuadapt's optimizers for torch have in common, beside torch's own part."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..errors import HyperparameterError, ParameterError
from ..step_options import StepResult
from ..turn import alone, in_turn
from . import stepping
from .base import Bound
from .loading import convert_states, exact_states
from .options import changed, own_settings, refuse_function
from .places import result_of
from .rates import effective_lr
from .refusal import FallbackWarning, Reason
from .settings import check_settings
from .stepping import found_inf
from .tables import Watch, catch_up, watch


class Fused(Bound):
    """The step of all classes; torch's class, which follows it among the bases, has the rest."""

    def __init__(self, params: ParamsT, lr: Any, *given: Any, **named: Any) -> None:
        refuse_function("lr", lr)
        super().__init__(params, lr, *given, **named)

    def _add_options(self, given: Mapping[str, Any]) -> None:
        """Put gpuadapt's keywords into the defaults and the groups, which torch has made."""
        own = changed(given, self.defaults)
        self.defaults.update(own)
        for group in self.param_groups:
            for name, value in own.items():
                group.setdefault(name, value)
        check_settings(self._recipe, self.param_groups)
        if own:
            convert_states(self)  # which torch's Adagrad has made already
        self._complete = True

    @property
    def last(self) -> StepResult | None:
        """(grad_norm, clip_factor, skipped) of the last step; waits for a GPU.

        None before the first step.
        """
        return result_of(self._last)

    @property
    def fallback(self) -> str | None:
        """Why the last step was torch's own; None if it was gpuadapt's."""
        return self._fallback

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with the gradients that the parameters have.

        Parameters
        ----------
        closure : function, optional
            Computes the loss and the gradients again; its result is returned.

        Raises
        ------
        ParameterError, GradientError, HyperparameterError, StateError, RowIndexError
            Parameters and states have not changed then.
        """
        return _uncompiled(_step)(self, closure)

    def catch_up(self, table: Tensor, rows: Tensor | None = None) -> None:
        """Let rows of a table with ``sparse="exact"`` catch up with the last step.

        Rows that a step had no gradient for catch up when a step has one for them. Whoever reads
        them otherwise, such as a forward pass, calls this before; `watch` makes lookups do so.

        Parameters
        ----------
        table : Tensor
            A parameter of this optimizer.
        rows : Tensor of integers, optional
            Any shape; by default all rows.

        Raises
        ------
        ParameterError
            The optimizer does not have this parameter.
        RowIndexError
            A row is out of range.
        """
        _uncompiled(catch_up)(self, table, rows)

    def watch(self, module: torch.nn.Module) -> Watch:
        """Let lookups in a module read rows of exact tables that are up to date.

        Each Embedding and EmbeddingBag of the module whose weight has ``sparse="exact"`` calls
        `catch_up` before its forward pass, and before its ``state_dict`` is taken or loaded.

        Parameters
        ----------
        module : Module

        Returns
        -------
        Watch
            Its ``remove()`` ends this.

        Raises
        ------
        ParameterError
            The module has no such lookup.
        """
        return watch(self, module, self.catch_up)

    def effective_lr(self, parameter: Tensor) -> Tensor:
        """Return the learning rate of each element, from the states after the last step.

        The factor of the gradient (for Adam, of the corrected mean of gradients), such as
        lr / (sqrt(v) + eps).

        Parameters
        ----------
        parameter : Tensor
            One of this optimizer.

        Returns
        -------
        Tensor
            New, of the parameter's shape; float64 for float64, otherwise float32.

        Raises
        ------
        ParameterError
            The optimizer does not have this parameter.
        RuleError
            The rule (your own) has no variable named ``rate``.
        """
        self.flush()
        return effective_lr(self, parameter)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if self._complete:
            try:
                check_settings(self._recipe, self.param_groups)
            except BaseException:
                self.param_groups.pop()
                raise

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        self.flush()
        return super().state_dict()

    @alone
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.flush()
        self._binding = None
        with exact_states(self):
            super().load_state_dict(dict(state_dict))

    @in_turn
    def __getstate__(self) -> dict[str, Any]:
        # What is copied together with the optimizer, but before it, is as it was before this.
        found = [one for table in self._tables() for one in table.caught_up()]
        return super().__getstate__() | {"_caught_up": found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._binding = None
        caught_up = state.pop("_caught_up", ())  # torch calls this without it, too
        super().__setstate__(state)
        with torch.no_grad():
            for parameter, rows, values in caught_up:
                parameter[rows] = values
        self._complete = True


def _step(optimizer: Fused, closure: Callable[[], Any] | None) -> Any:
    """The body of `Fused.step`."""
    loss = None
    if closure is not None:
        with torch.enable_grad():
            loss = closure()
    if found_inf(optimizer):
        return loss
    reason = stepping.step(optimizer)
    if reason is not None:
        _torch_step(optimizer, reason)
    optimizer._fallback = None if reason is None else reason.text
    return loss


_wrapped: dict[Any, Any] = {}


def _uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as `torch.compile` leaves it alone; made late, since it imports a compiler."""
    made: Callable[..., Any] | None = _wrapped.get(function)
    if made is None:
        made = _wrapped[function] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return made


def _torch_step(optimizer: Fused, reason: Reason) -> None:
    """Take torch's own step, without its hooks, which the caller's step has called.

    Raises
    ------
    HyperparameterError
        The groups have settings that torch's step would ignore.
    """
    own = {name for group in optimizer.param_groups for name in own_settings(group)}
    exact = any(group.get("sparse") == "exact" for group in optimizer.param_groups)
    own -= {"threads"} if exact else {"threads", "sparse"}
    if optimizer._torch_class is None:
        raise ParameterError(
            "this step cannot be taken by kernels, and torch has no step of this rule: "
            f"{reason.text}"
        )
    if own:
        raise HyperparameterError(
            f"{', '.join(sorted(own))}: this step would have to be torch's own, which ignores them "
            f"({reason.text}); leave them out, or change what causes it"
        )
    optimizer._binding = None
    if reason.text != optimizer._fallback and not reason.refused:
        text = f"torch's own step is taken: {reason.text}"
        warnings.warn(text, FallbackWarning, stacklevel=6)
    with torch.set_grad_enabled(bool(optimizer.defaults.get("differentiable"))):
        inspect.unwrap(optimizer._torch_class.step)(optimizer)
