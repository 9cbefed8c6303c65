"""`Optimizer`: a rule of your own on torch's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gpuadapt.kernels.language.rule import Rule

from ..choices import Decay, Master, Rounding, StateDtype, TorchSparse
from ..errors import HyperparameterError
from ..hyperparameters import DECAYS, check_choice, check_known, check_present, check_rule, expand
from ..launch import Threads
from ..texts import safe
from .fused import Fused
from .options import DEFAULTS, TorchParams, refuse_function
from .recipes import Recipe


class Optimizer(Fused, torch.optim.Optimizer):
    """Updates parameters of PyTorch by a rule of your own.

    Parameters
    ----------
    rule : Rule
        Made by `gpuadapt.rule`, or one of `gpuadapt.kernels.rules`.
    params : iterable of Tensor, of (str, Tensor) or of dict
        As of every optimizer of torch.
    weight_decay : float, >= 0
        Strength of the decay.
    decay : {"l2", "decoupled", "absolute", "after"}
        Where the decay is added, see `gpuadapt.Optimizer`.
    maximize : bool
        Go along the gradient, not against it.
    rounding : {"nearest", "stochastic", "kahan"}
        How parameters of bfloat16 and float16 are rounded; "kahan" keeps what rounding loses in
        the state "compensation". Their states have 16 bits too, rounded stochastically, unless the
        rounding is "nearest".
    master : {None, "float32", "split"}
        Keep a float32 copy of parameters of 16 bits in the state "master_param", or the 16 bits
        that a bfloat16 leaves out in "low_bits"; states are then float32.
    state_dtype : {None, "float32", "float64", "bfloat16", "float16", "8bit"} or dict
        Element type of the states, or of each by its name; 8 bits are the two tensors
        "<state>.codes" and "<state>.scales". None is the parameter's.
    rowwise : bool
        One number for each row of a table, where the rule allows it.
    sparse : {None, "raise", "lazy", "exact"}
        What to do with sparse gradients: refuse them, update the rows that occur, or let each row
        also catch up with the steps that it was not in, as if the gradient had been dense. None is
        what torch does: SGD, Adagrad and SparseAdam are lazy, others refuse.
    max_row_norm : float, optional
        Largest norm of a row's gradient; longer ones are scaled down.
    seed : int
        Of the random bits of stochastic rounding.
    max_norm, clip_value : float, optional
        Largest norm of all gradients together, largest magnitude of an element.
    skip_nonfinite : bool
        Leave everything as it is if a gradient is not finite.
    threads : {None, "torch", "numba"} or int
        Who runs kernels on the CPU: torch's threads by default.
    **hyperparameters
        Those that the rule reads, numbers that schedulers may change; ``betas=(b1, b2)`` are
        ``beta1`` and ``beta2``.

    Raises
    ------
    HyperparameterError, KeywordError
        A hyperparameter is missing or unknown, or a setting is out of range.

    Notes
    -----
    State: "step", and each state by its letter in the rule.

    Examples
    --------
    >>> import torch, gpuadapt as ga, gpuadapt.torch
    >>> @ga.rule
    ... def momentum(p, g, b, h):
    ...     b = h.mu * b + g
    ...     return p - h.lr * b, b
    >>> layer = torch.nn.Linear(3, 1)
    >>> optimizer = gpuadapt.torch.Optimizer(momentum, layer.parameters(), lr=0.1, mu=0.9)
    >>> layer(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state[layer.bias]["b"]
    tensor([1.])
    """

    def __init__(
        self,
        rule: Rule,
        params: TorchParams,
        *,
        weight_decay: float | Tensor = 0.0,
        decay: Decay = "l2",
        maximize: bool = False,
        rounding: Rounding = "nearest",
        master: Master | None = None,
        state_dtype: StateDtype | Mapping[str, StateDtype] | None = None,
        rowwise: bool = False,
        sparse: TorchSparse | None = None,
        max_row_norm: float | None = None,
        seed: int = 0,
        max_norm: float | None = None,
        clip_value: float | None = None,
        skip_nonfinite: bool = False,
        threads: Threads = None,
        **hyperparameters: float | Tensor | tuple[float | Tensor, float | Tensor] | None,
    ) -> None:
        if not isinstance(rule, Rule):
            raise HyperparameterError(f"rule: got {rule!r}, expected a function made by @rule")
        check_rule(rule)
        own = {
            "rounding": rounding, "master": master, "state_dtype": state_dtype,
            "rowwise": rowwise, "sparse": sparse, "max_row_norm": max_row_norm, "seed": seed,
            "max_norm": max_norm, "clip_value": clip_value, "skip_nonfinite": skip_nonfinite,
            "threads": threads,
        }  # fmt: skip
        settings = {"weight_decay": weight_decay, "decay": decay, "maximize": maximize}
        given = expand(hyperparameters)
        check_known(given, (*rule.hyperparameters, *settings, *DEFAULTS))
        check_present(given, rule.hyperparameters)
        defaults = settings | given
        for name, value in defaults.items():
            refuse_function(name, value)
        check_choice(defaults, "decay", DECAYS)
        check_choice(defaults, "maximize", (False, True))
        self._recipe = Recipe(lambda _: rule, {})
        torch.optim.Optimizer.__init__(self, cast(ParamsT, params), defaults)
        self._add_options(own)

    @safe
    def __repr__(self) -> str:
        # Torch names the class alone, which is the same for every rule.
        rule = f"(\nRule {self._recipe.rule({}).name}"
        return torch.optim.Optimizer.__repr__(self).replace("(", rule, 1)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_rule": self._recipe.rule({})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rule = state.pop("_rule", None)
        if rule is not None:
            self._recipe = Recipe(lambda _: rule, {})
        super().__setstate__(state)
