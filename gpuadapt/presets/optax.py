"""optax's optimizers; a schedule may be given as learning_rate.

If a name ends in w, weight decay is times lr and before the update. Adam and its relatives have
eps outside the root of the second moment, and eps_root inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

from gpuadapt.kernels import pieces, rules
from gpuadapt.kernels.language.rule import Rule

from .. import optimizers as ga
from ..common_options import (
    AdadeltaGroup,
    AdagradGroup,
    AdamGroup,
    BetasGroup,
    CommonOptions,
    DecayedOptions,
    L2Options,
    RMSpropGroup,
    SGDGroup,
    UndecayedOptions,
)
from ..containers import ParamsOrGroups
from ..errors import HyperparameterError
from ..hyperparameters import Betas, Hyperparameter
from ..optimizer import Optimizer
from ..optimizers.variants import is_zero
from .translation import decoupled, looking_ahead, preset

__all__ = [
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "amsgrad",
    "lion",
    "nadam",
    "nadamw",
    "radam",
    "rmsprop",
    "sgd",
]

__dir__ = partial(sorted, __all__)


@preset
def sgd(
    params: ParamsOrGroups[SGDGroup],
    learning_rate: Hyperparameter,
    momentum: Hyperparameter | None = None,
    nesterov: bool = False,
    **options: Unpack[CommonOptions],
) -> ga.SGD:
    """`optax.sgd`: lr outside the buffer."""
    momentum = 0.0 if momentum is None else momentum
    nesterov = looking_ahead(nesterov, momentum, params)
    return ga.SGD(params, learning_rate, momentum=momentum, nesterov=nesterov, **options)


@preset
def adagrad(
    params: ParamsOrGroups[AdagradGroup],
    learning_rate: Hyperparameter,
    initial_accumulator_value: float = 0.1,
    eps: Hyperparameter = 1e-7,
    **options: Unpack[CommonOptions],
) -> ga.Adagrad:
    """`optax.adagrad`: eps inside the root; the accumulator starts at 0.1."""
    return ga.Adagrad(
        params, learning_rate, eps=eps, initial_accumulator=initial_accumulator_value, **options
    )


@preset
def rmsprop(
    params: ParamsOrGroups[RMSpropGroup],
    learning_rate: Hyperparameter,
    decay: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Hyperparameter | None = None,
    **options: Unpack[L2Options],
) -> ga.RMSprop:
    """`optax.rmsprop`, without its corrections: lr inside the buffer."""
    return ga.RMSprop(
        params,
        learning_rate,
        rho=decay,
        eps=eps,
        eps_mode="inside" if eps_in_sqrt else "outside",
        momentum=0.0 if momentum is None else momentum,
        momentum_form="velocity",
        centered=centered,
        initial_square=initial_scale,
        **options,
    )


@preset
def adadelta(
    params: ParamsOrGroups[AdadeltaGroup],
    learning_rate: Hyperparameter | None = None,
    rho: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 0.0,
    **options: Unpack[DecayedOptions],
) -> ga.Adadelta:
    """`optax.adadelta`: weight decay goes into the gradient.

    Raises
    ------
    HyperparameterError
        learning_rate is None: optax then steps uphill.
    """
    if learning_rate is None:
        raise HyperparameterError("learning_rate: None steps uphill in optax; pass 1.0")
    return ga.Adadelta(
        params, learning_rate, rho=rho, eps=eps, weight_decay=weight_decay, **options
    )


@preset
def adam(
    params: ParamsOrGroups[Mapping[str, object]],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    *,
    nesterov: bool = False,
    **options: Unpack[CommonOptions],
) -> Optimizer:
    """`optax.adam`."""
    if nesterov:
        return nadam(params, learning_rate, b1, b2, eps, eps_root, **options)
    return _adam(rules.adam, params, learning_rate, (b1, b2), eps, eps_root, **options)


@preset
def adamw(
    params: ParamsOrGroups[Mapping[str, object]],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    *,
    weight_decay: Hyperparameter = 1e-4,
    nesterov: bool = False,
    **options: Unpack[UndecayedOptions],
) -> Optimizer:
    """`optax.adamw`."""
    return adam(
        params,
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        nesterov=nesterov,
        **decoupled(weight_decay),
        **options,
    )


@preset
def amsgrad(
    params: ParamsOrGroups[Mapping[str, object]],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    **options: Unpack[CommonOptions],
) -> Optimizer:
    """`optax.amsgrad`: the maximum of the corrected moment."""
    betas = (b1, b2)
    return _adam(rules.amsgrad_corrected, params, learning_rate, betas, eps, eps_root, **options)


@preset
def adamax(
    params: ParamsOrGroups[AdamGroup],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    **options: Unpack[CommonOptions],
) -> ga.Adamax:
    """`optax.adamax`: eps in the maximum."""
    return ga.Adamax(params, learning_rate, betas=(b1, b2), eps=eps, eps_mode="max", **options)


@preset
def adamaxw(
    params: ParamsOrGroups[AdamGroup],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 1e-4,
    **options: Unpack[UndecayedOptions],
) -> ga.Adamax:
    """`optax.adamaxw`."""
    return adamax(params, learning_rate, b1, b2, eps, **decoupled(weight_decay), **options)


@preset
def nadam(
    params: ParamsOrGroups[Mapping[str, object]],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    **options: Unpack[CommonOptions],
) -> Optimizer:
    """`optax.nadam`: no schedule of momentum."""
    betas = (b1, b2)
    schedule = {"momentum_decay": math.inf}
    return _adam(rules.nadam, params, learning_rate, betas, eps, eps_root, **schedule, **options)


@preset
def nadamw(
    params: ParamsOrGroups[Mapping[str, object]],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    *,
    weight_decay: Hyperparameter = 1e-4,
    **options: Unpack[UndecayedOptions],
) -> Optimizer:
    """`optax.nadamw`."""
    return nadam(params, learning_rate, b1, b2, eps, eps_root, **decoupled(weight_decay), **options)


@preset
def radam(
    params: ParamsOrGroups[Mapping[str, object]],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    threshold: Hyperparameter = 5.0,
    **options: Unpack[CommonOptions],
) -> Optimizer:
    """`optax.radam`: tests rho_t >= threshold."""
    return _adam(
        rules.radam,
        params,
        learning_rate,
        (b1, b2),
        eps,
        eps_root,
        threshold=threshold,
        threshold_inclusive=True,
        **options,
    )


@preset
def lion(
    params: ParamsOrGroups[BetasGroup],
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.99,
    *,
    weight_decay: Hyperparameter = 1e-3,
    **options: Unpack[UndecayedOptions],
) -> ga.Lion:
    """`optax.lion`."""
    return ga.Lion(params, learning_rate, betas=(b1, b2), **decoupled(weight_decay), **options)


def _adam(
    rule: Rule,
    params: ParamsOrGroups[Mapping[str, object]],
    learning_rate: Hyperparameter,
    betas: Betas,
    eps: Hyperparameter,
    eps_root: Hyperparameter,
    **options: Any,
) -> Optimizer:
    if not is_zero("eps_root", eps_root, params):
        rule = rule.variant(root=pieces.both)
        options["eps_root"] = eps_root
    return Optimizer(rule, params, lr=learning_rate, betas=betas, eps=eps, **options)
