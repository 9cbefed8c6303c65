"""Keras 3's optimizers (`keras.optimizers`), and those of tf_keras.

Weight decay is times lr and before the update, in all of them.
"""

from __future__ import annotations

from functools import partial
from typing import Unpack

from .. import optimizers as ga
from ..common_options import (
    AdadeltaGroup,
    AdagradGroup,
    AdamGroup,
    BetasGroup,
    FTRLGroup,
    NAdamGroup,
    RMSpropGroup,
    SGDGroup,
    UndecayedOptions,
)
from ..containers import ParamsOrGroups
from ..hyperparameters import Hyperparameter
from .translation import decoupled, doubled, looking_ahead, preset

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lion",
    "Nadam",
    "RMSprop",
]

__dir__ = partial(sorted, __all__)


@preset
def SGD(
    params: ParamsOrGroups[SGDGroup],
    learning_rate: Hyperparameter = 0.01,
    momentum: Hyperparameter = 0.0,
    nesterov: bool = False,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.SGD:
    """`keras.optimizers.SGD`: lr inside the buffer."""
    return ga.SGD(
        params,
        learning_rate,
        momentum=momentum,
        nesterov=looking_ahead(nesterov, momentum, params),
        momentum_form="velocity",
        **decoupled(weight_decay),
        **options,
    )


@preset
def Adagrad(
    params: ParamsOrGroups[AdagradGroup],
    learning_rate: Hyperparameter = 0.001,
    initial_accumulator_value: float = 0.1,
    epsilon: Hyperparameter = 1e-7,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.Adagrad:
    """`keras.optimizers.Adagrad`: eps inside the root; the accumulator starts at 0.1."""
    return ga.Adagrad(
        params,
        learning_rate,
        eps=epsilon,
        initial_accumulator=initial_accumulator_value,
        **decoupled(weight_decay),
        **options,
    )


@preset
def RMSprop(
    params: ParamsOrGroups[RMSpropGroup],
    learning_rate: Hyperparameter = 0.001,
    rho: Hyperparameter = 0.9,
    momentum: Hyperparameter = 0.0,
    epsilon: Hyperparameter = 1e-7,
    centered: bool = False,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.RMSprop:
    """`keras.optimizers.RMSprop`: eps inside the root, lr inside the buffer."""
    return ga.RMSprop(
        params,
        learning_rate,
        rho=rho,
        eps=epsilon,
        momentum=momentum,
        momentum_form="velocity",
        centered=centered,
        **decoupled(weight_decay),
        **options,
    )


@preset
def Adadelta(
    params: ParamsOrGroups[AdadeltaGroup],
    learning_rate: Hyperparameter = 0.001,
    rho: Hyperparameter = 0.95,
    epsilon: Hyperparameter = 1e-7,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.Adadelta:
    """`keras.optimizers.Adadelta`."""
    return ga.Adadelta(
        params, learning_rate, rho=rho, eps=epsilon, **decoupled(weight_decay), **options
    )


@preset
def Adam(
    params: ParamsOrGroups[AdamGroup],
    learning_rate: Hyperparameter = 0.001,
    beta_1: Hyperparameter = 0.9,
    beta_2: Hyperparameter = 0.999,
    epsilon: Hyperparameter = 1e-7,
    amsgrad: bool = False,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.Adam:
    """`keras.optimizers.Adam`: eps is added to the root of v before its correction."""
    return ga.Adam(
        params,
        learning_rate,
        betas=(beta_1, beta_2),
        eps=epsilon,
        eps_mode="uncorrected",
        amsgrad=amsgrad,
        **decoupled(weight_decay),
        **options,
    )


@preset
def AdamW(
    params: ParamsOrGroups[AdamGroup],
    learning_rate: Hyperparameter = 0.001,
    weight_decay: Hyperparameter | None = 0.004,
    beta_1: Hyperparameter = 0.9,
    beta_2: Hyperparameter = 0.999,
    epsilon: Hyperparameter = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[UndecayedOptions],
) -> ga.Adam:
    """`keras.optimizers.AdamW`: `Adam` of this module with weight decay."""
    return Adam(params, learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **options)


@preset
def Adamax(
    params: ParamsOrGroups[AdamGroup],
    learning_rate: Hyperparameter = 0.001,
    beta_1: Hyperparameter = 0.9,
    beta_2: Hyperparameter = 0.999,
    epsilon: Hyperparameter = 1e-7,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.Adamax:
    """`keras.optimizers.Adamax`: eps is added to the maximum."""
    return ga.Adamax(
        params,
        learning_rate,
        betas=(beta_1, beta_2),
        eps=epsilon,
        **decoupled(weight_decay),
        **options,
    )


@preset
def Nadam(
    params: ParamsOrGroups[NAdamGroup],
    learning_rate: Hyperparameter = 0.001,
    beta_1: Hyperparameter = 0.9,
    beta_2: Hyperparameter = 0.999,
    epsilon: Hyperparameter = 1e-7,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.NAdam:
    """`keras.optimizers.Nadam`: the schedule of momentum with psi = 1."""
    return ga.NAdam(
        params,
        learning_rate,
        betas=(beta_1, beta_2),
        eps=epsilon,
        momentum_decay=1.0,
        **decoupled(weight_decay),
        **options,
    )


@preset
def Ftrl(
    params: ParamsOrGroups[FTRLGroup],
    learning_rate: Hyperparameter = 0.001,
    initial_accumulator_value: float = 0.1,
    l1_regularization_strength: Hyperparameter = 0.0,
    l2_regularization_strength: Hyperparameter = 0.0,
    beta: Hyperparameter = 0.0,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.FTRL:
    """`keras.optimizers.Ftrl`, with power -1/2 and without shrinkage: its l2 is half of ours.

    A weight_decay is refused: FTRL computes the parameter from its states alone.
    """
    return ga.FTRL(
        params,
        learning_rate,
        l1=l1_regularization_strength,
        l2=doubled(l2_regularization_strength),
        beta=beta,
        initial_accumulator=initial_accumulator_value,
        **decoupled(weight_decay),
        **options,
    )


@preset
def Lion(
    params: ParamsOrGroups[BetasGroup],
    learning_rate: Hyperparameter = 0.001,
    beta_1: Hyperparameter = 0.9,
    beta_2: Hyperparameter = 0.99,
    weight_decay: Hyperparameter | None = None,
    **options: Unpack[UndecayedOptions],
) -> ga.Lion:
    """`keras.optimizers.Lion`."""
    return ga.Lion(
        params, learning_rate, betas=(beta_1, beta_2), **decoupled(weight_decay), **options
    )
