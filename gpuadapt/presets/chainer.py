"""Chainer's optimizers (`chainer.optimizers`).

Weight decay is a hook there, `WeightDecay(rate)`: `weight_decay=rate` here, but for Adam, which
has its own.
"""

from __future__ import annotations

from functools import partial
from typing import Unpack

from .. import optimizers as ga
from ..common_options import (
    AdadeltaGroup,
    AdagradGroup,
    AdamGroup,
    CommonOptions,
    RMSpropGroup,
    SGDGroup,
    UndecayedOptions,
)
from ..containers import ParamsOrGroups
from ..hyperparameters import Hyperparameter
from .translation import not_negative, preset, scaled

__all__ = [
    "SGD",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "MomentumSGD",
    "NesterovAG",
    "RMSprop",
    "RMSpropGraves",
]

__dir__ = partial(sorted, __all__)


@preset
def SGD(
    params: ParamsOrGroups[SGDGroup], lr: Hyperparameter = 0.01, **options: Unpack[CommonOptions]
) -> ga.SGD:
    """`chainer.optimizers.SGD`."""
    return ga.SGD(params, lr, **options)


@preset
def MomentumSGD(
    params: ParamsOrGroups[SGDGroup],
    lr: Hyperparameter = 0.01,
    momentum: Hyperparameter = 0.9,
    **options: Unpack[CommonOptions],
) -> ga.SGD:
    """`chainer.optimizers.MomentumSGD`: lr inside the buffer."""
    return ga.SGD(params, lr, momentum=momentum, momentum_form="velocity", **options)


@preset
def NesterovAG(
    params: ParamsOrGroups[SGDGroup],
    lr: Hyperparameter = 0.01,
    momentum: Hyperparameter = 0.9,
    **options: Unpack[CommonOptions],
) -> ga.SGD:
    """`chainer.optimizers.NesterovAG`: lr inside the buffer."""
    return ga.SGD(params, lr, momentum=momentum, nesterov=True, momentum_form="velocity", **options)


@preset
def AdaGrad(
    params: ParamsOrGroups[AdagradGroup],
    lr: Hyperparameter = 0.001,
    eps: Hyperparameter = 1e-8,
    **options: Unpack[CommonOptions],
) -> ga.Adagrad:
    """`chainer.optimizers.AdaGrad`: eps outside the root."""
    return ga.Adagrad(params, lr, eps=eps, eps_mode="outside", **options)


@preset
def RMSprop(
    params: ParamsOrGroups[RMSpropGroup],
    lr: Hyperparameter = 0.01,
    alpha: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    eps_inside_sqrt: bool = False,
    **options: Unpack[CommonOptions],
) -> ga.RMSprop:
    """`chainer.optimizers.RMSprop`."""
    return ga.RMSprop(
        params,
        lr,
        rho=alpha,
        eps=eps,
        eps_mode="inside" if eps_inside_sqrt else "outside",
        **options,
    )


@preset
def RMSpropGraves(
    params: ParamsOrGroups[RMSpropGroup],
    lr: Hyperparameter = 1e-4,
    alpha: Hyperparameter = 0.95,
    momentum: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-4,
    **options: Unpack[CommonOptions],
) -> ga.RMSprop:
    """`chainer.optimizers.RMSpropGraves`: centered, eps inside the root, lr inside the buffer."""
    return ga.RMSprop(
        params,
        lr,
        rho=alpha,
        eps=eps,
        momentum=momentum,
        momentum_form="velocity",
        centered=True,
        **options,
    )


@preset
def AdaDelta(
    params: ParamsOrGroups[AdadeltaGroup],
    rho: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-6,
    **options: Unpack[CommonOptions],
) -> ga.Adadelta:
    """`chainer.optimizers.AdaDelta`: no learning rate."""
    return ga.Adadelta(params, 1.0, rho=rho, eps=eps, **options)


@preset
def Adam(
    params: ParamsOrGroups[AdamGroup],
    alpha: Hyperparameter = 0.001,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eta: float = 1.0,
    weight_decay_rate: Hyperparameter = 0,
    amsgrad: bool = False,
    **options: Unpack[UndecayedOptions],
) -> ga.Adam:
    """`chainer.optimizers.Adam`: eta multiplies the whole step; weight decay is not times alpha."""
    return ga.Adam(
        params,
        scaled("alpha", alpha, not_negative("eta", eta)),
        betas=(beta1, beta2),
        eps=eps,
        eps_mode="uncorrected",
        amsgrad=amsgrad,
        weight_decay=scaled("weight_decay_rate", weight_decay_rate, eta),
        decay="absolute",
        **options,
    )
