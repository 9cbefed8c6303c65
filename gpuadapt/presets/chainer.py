"""Chainer's optimizers (`chainer.optimizers`).

Weight decay is a hook there, `WeightDecay(rate)`: `weight_decay=rate` here, but for Adam, which
has its own.
"""

from __future__ import annotations

from typing import Any

from .. import optimizers as ga
from ..hyperparameters import Hyperparameter
from .translation import not_negative, preset, scaled


@preset
def SGD(params: Any, lr: Hyperparameter = 0.01, **options: Any) -> ga.SGD:
    """`chainer.optimizers.SGD`."""
    return ga.SGD(params, lr, **options)


@preset
def MomentumSGD(
    params: Any, lr: Hyperparameter = 0.01, momentum: Hyperparameter = 0.9, **options: Any
) -> ga.SGD:
    """`chainer.optimizers.MomentumSGD`: lr inside the buffer."""
    return ga.SGD(params, lr, momentum=momentum, momentum_form="velocity", **options)


@preset
def NesterovAG(
    params: Any, lr: Hyperparameter = 0.01, momentum: Hyperparameter = 0.9, **options: Any
) -> ga.SGD:
    """`chainer.optimizers.NesterovAG`: lr inside the buffer."""
    return ga.SGD(params, lr, momentum=momentum, nesterov=True, momentum_form="velocity", **options)


@preset
def AdaGrad(
    params: Any, lr: Hyperparameter = 0.001, eps: Hyperparameter = 1e-8, **options: Any
) -> ga.Adagrad:
    """`chainer.optimizers.AdaGrad`: eps outside the root."""
    return ga.Adagrad(params, lr, eps=eps, eps_mode="outside", **options)


@preset
def RMSprop(
    params: Any,
    lr: Hyperparameter = 0.01,
    alpha: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    eps_inside_sqrt: bool = False,
    **options: Any,
) -> ga.RMSprop:
    """`chainer.optimizers.RMSprop`."""
    mode = "inside" if eps_inside_sqrt else "outside"
    return ga.RMSprop(params, lr, rho=alpha, eps=eps, eps_mode=mode, **options)


@preset
def RMSpropGraves(
    params: Any,
    lr: Hyperparameter = 1e-4,
    alpha: Hyperparameter = 0.95,
    momentum: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-4,
    **options: Any,
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
    params: Any, rho: Hyperparameter = 0.95, eps: Hyperparameter = 1e-6, **options: Any
) -> ga.Adadelta:
    """`chainer.optimizers.AdaDelta`: no learning rate."""
    return ga.Adadelta(params, 1.0, rho=rho, eps=eps, **options)


@preset
def Adam(
    params: Any,
    alpha: Hyperparameter = 0.001,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eta: float = 1.0,
    weight_decay_rate: Hyperparameter = 0,
    amsgrad: bool = False,
    **options: Any,
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
