"""PyTorch's optimizers (`torch.optim`)."""

from __future__ import annotations

from functools import partial
from typing import Unpack

from .. import optimizers as ga
from ..choices import Decay
from ..common_options import (
    AdadeltaGroup,
    AdagradGroup,
    AdamGroup,
    CommonOptions,
    DecayedOptions,
    NAdamGroup,
    RAdamGroup,
    RMSpropGroup,
    SGDGroup,
    UndecayedOptions,
)
from ..containers import ParamsOrGroups
from ..hyperparameters import Betas, Hyperparameter, number
from ..optimizers.variants import is_zero
from .translation import preset

DECAY: dict[bool, Decay] = {False: "l2", True: "decoupled"}


__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "SparseAdam",
]

__dir__ = partial(sorted, __all__)


@preset
def SGD(
    params: ParamsOrGroups[SGDGroup],
    lr: Hyperparameter = 1e-3,
    momentum: Hyperparameter = 0,
    dampening: Hyperparameter = 0,
    weight_decay: Hyperparameter = 0,
    nesterov: bool = False,
    **options: Unpack[DecayedOptions],
) -> ga.SGD:
    """`torch.optim.SGD`: lr outside the buffer; no dampening at the first step."""
    if is_zero("momentum", momentum, params) and not callable(dampening):
        dampening = 0 * number("dampening", dampening)  # checked; without momentum it has no effect
    return ga.SGD(
        params,
        lr,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        weight_decay=weight_decay,
        **options,
    )


@preset
def Adagrad(
    params: ParamsOrGroups[AdagradGroup],
    lr: Hyperparameter = 1e-2,
    lr_decay: Hyperparameter = 0,
    weight_decay: Hyperparameter = 0,
    initial_accumulator_value: float = 0,
    eps: Hyperparameter = 1e-10,
    **options: Unpack[DecayedOptions],
) -> ga.Adagrad:
    """`torch.optim.Adagrad`: eps outside the root."""
    return ga.Adagrad(
        params,
        lr,
        eps=eps,
        eps_mode="outside",
        lr_decay=lr_decay,
        initial_accumulator=initial_accumulator_value,
        weight_decay=weight_decay,
        **options,
    )


@preset
def RMSprop(
    params: ParamsOrGroups[RMSpropGroup],
    lr: Hyperparameter = 1e-2,
    alpha: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0,
    momentum: Hyperparameter = 0,
    centered: bool = False,
    **options: Unpack[DecayedOptions],
) -> ga.RMSprop:
    """`torch.optim.RMSprop`: eps outside the root, lr outside the buffer."""
    return ga.RMSprop(
        params,
        lr,
        rho=alpha,
        eps=eps,
        eps_mode="outside",
        momentum=momentum,
        centered=centered,
        weight_decay=weight_decay,
        **options,
    )


@preset
def Adadelta(
    params: ParamsOrGroups[AdadeltaGroup],
    lr: Hyperparameter = 1.0,
    rho: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 0,
    **options: Unpack[DecayedOptions],
) -> ga.Adadelta:
    """`torch.optim.Adadelta`."""
    return ga.Adadelta(params, lr, rho=rho, eps=eps, weight_decay=weight_decay, **options)


@preset
def Adam(
    params: ParamsOrGroups[AdamGroup],
    lr: Hyperparameter = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0,
    amsgrad: bool = False,
    *,
    decoupled_weight_decay: bool = False,
    **options: Unpack[UndecayedOptions],
) -> ga.Adam:
    """`torch.optim.Adam`: eps outside the root of the corrected moment; amsgrad of the raw one."""
    return ga.Adam(
        params,
        lr,
        betas=betas,
        eps=eps,
        amsgrad=amsgrad,
        weight_decay=weight_decay,
        decay=DECAY[bool(decoupled_weight_decay)],
        **options,
    )


@preset
def AdamW(
    params: ParamsOrGroups[AdamGroup],
    lr: Hyperparameter = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 1e-2,
    amsgrad: bool = False,
    **options: Unpack[UndecayedOptions],
) -> ga.Adam:
    """`torch.optim.AdamW`: weight decay times lr, before the update."""
    return Adam(
        params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True, **options
    )


@preset
def SparseAdam(
    params: ParamsOrGroups[AdamGroup],
    lr: Hyperparameter = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    **options: Unpack[CommonOptions],
) -> ga.Adam:
    """`torch.optim.SparseAdam`: eps is added to the root of v before its correction."""
    return ga.Adam(params, lr, betas=betas, eps=eps, eps_mode="uncorrected", **options)


@preset
def Adamax(
    params: ParamsOrGroups[AdamGroup],
    lr: Hyperparameter = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0,
    **options: Unpack[DecayedOptions],
) -> ga.Adamax:
    """`torch.optim.Adamax`: eps in the maximum."""
    return ga.Adamax(
        params, lr, betas=betas, eps=eps, eps_mode="max", weight_decay=weight_decay, **options
    )


@preset
def NAdam(
    params: ParamsOrGroups[NAdamGroup],
    lr: Hyperparameter = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0,
    momentum_decay: Hyperparameter = 4e-3,
    decoupled_weight_decay: bool = False,
    **options: Unpack[UndecayedOptions],
) -> ga.NAdam:
    """`torch.optim.NAdam`: the schedule of momentum with psi = 0.004."""
    return ga.NAdam(
        params,
        lr,
        betas=betas,
        eps=eps,
        momentum_decay=momentum_decay,
        weight_decay=weight_decay,
        decay=DECAY[bool(decoupled_weight_decay)],
        **options,
    )


@preset
def RAdam(
    params: ParamsOrGroups[RAdamGroup],
    lr: Hyperparameter = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0,
    decoupled_weight_decay: bool = False,
    **options: Unpack[UndecayedOptions],
) -> ga.RAdam:
    """`torch.optim.RAdam`: threshold 5; eps is added to the root of v before its correction."""
    return ga.RAdam(
        params,
        lr,
        betas=betas,
        eps=eps,
        eps_mode="uncorrected",
        weight_decay=weight_decay,
        decay=DECAY[bool(decoupled_weight_decay)],
        **options,
    )
