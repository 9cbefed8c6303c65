"""TensorFlow 1's optimizers (`tf.compat.v1.train`)."""

from __future__ import annotations

from functools import partial
from typing import Unpack

from .. import optimizers as ga
from ..common_options import (
    AdadeltaGroup,
    AdagradGroup,
    AdamGroup,
    CommonOptions,
    FTRLGroup,
    L2Options,
    RMSpropGroup,
    SGDGroup,
)
from ..containers import ParamsOrGroups
from ..hyperparameters import Hyperparameter
from .translation import doubled, looking_ahead, preset

__all__ = [
    "AdadeltaOptimizer",
    "AdagradOptimizer",
    "AdamOptimizer",
    "FtrlOptimizer",
    "GradientDescentOptimizer",
    "MomentumOptimizer",
    "RMSPropOptimizer",
]

__dir__ = partial(sorted, __all__)


@preset
def GradientDescentOptimizer(
    params: ParamsOrGroups[SGDGroup],
    learning_rate: Hyperparameter,
    **options: Unpack[CommonOptions],
) -> ga.SGD:
    """`tf.compat.v1.train.GradientDescentOptimizer`."""
    return ga.SGD(params, learning_rate, **options)


@preset
def MomentumOptimizer(
    params: ParamsOrGroups[SGDGroup],
    learning_rate: Hyperparameter,
    momentum: Hyperparameter,
    use_nesterov: bool = False,
    **options: Unpack[CommonOptions],
) -> ga.SGD:
    """`tf.compat.v1.train.MomentumOptimizer`: lr outside the buffer."""
    nesterov = looking_ahead(use_nesterov, momentum, params)
    return ga.SGD(params, learning_rate, momentum=momentum, nesterov=nesterov, **options)


@preset
def AdagradOptimizer(
    params: ParamsOrGroups[AdagradGroup],
    learning_rate: Hyperparameter,
    initial_accumulator_value: float = 0.1,
    **options: Unpack[CommonOptions],
) -> ga.Adagrad:
    """`tf.compat.v1.train.AdagradOptimizer`: no eps; the accumulator starts at 0.1."""
    return ga.Adagrad(
        params,
        learning_rate,
        eps_mode="none",
        initial_accumulator=initial_accumulator_value,
        **options,
    )


@preset
def RMSPropOptimizer(
    params: ParamsOrGroups[RMSpropGroup],
    learning_rate: Hyperparameter,
    decay: Hyperparameter = 0.9,
    momentum: Hyperparameter = 0.0,
    epsilon: Hyperparameter = 1e-10,
    centered: bool = False,
    **options: Unpack[L2Options],
) -> ga.RMSprop:
    """`tf.compat.v1.train.RMSPropOptimizer`: eps inside, lr inside; the mean starts at 1."""
    return ga.RMSprop(
        params,
        learning_rate,
        rho=decay,
        eps=epsilon,
        momentum=momentum,
        momentum_form="velocity",
        centered=centered,
        initial_square=1.0,
        **options,
    )


@preset
def AdadeltaOptimizer(
    params: ParamsOrGroups[AdadeltaGroup],
    learning_rate: Hyperparameter = 0.001,
    rho: Hyperparameter = 0.95,
    epsilon: Hyperparameter = 1e-8,
    **options: Unpack[CommonOptions],
) -> ga.Adadelta:
    """`tf.compat.v1.train.AdadeltaOptimizer`."""
    return ga.Adadelta(params, learning_rate, rho=rho, eps=epsilon, **options)


@preset
def AdamOptimizer(
    params: ParamsOrGroups[AdamGroup],
    learning_rate: Hyperparameter = 0.001,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    epsilon: Hyperparameter = 1e-8,
    **options: Unpack[CommonOptions],
) -> ga.Adam:
    """`tf.compat.v1.train.AdamOptimizer`: eps is added to the root of v before its correction."""
    return ga.Adam(
        params,
        learning_rate,
        betas=(beta1, beta2),
        eps=epsilon,
        eps_mode="uncorrected",
        **options,
    )


@preset
def FtrlOptimizer(
    params: ParamsOrGroups[FTRLGroup],
    learning_rate: Hyperparameter,
    initial_accumulator_value: float = 0.1,
    l1_regularization_strength: Hyperparameter = 0.0,
    l2_regularization_strength: Hyperparameter = 0.0,
    beta: Hyperparameter | None = None,
    **options: Unpack[CommonOptions],
) -> ga.FTRL:
    """`tf.compat.v1.train.FtrlOptimizer`, with power -1/2: its l2 is half of ours."""
    return ga.FTRL(
        params,
        learning_rate,
        l1=l1_regularization_strength,
        l2=doubled(l2_regularization_strength),
        beta=0.0 if beta is None else beta,
        initial_accumulator=initial_accumulator_value,
        **options,
    )
