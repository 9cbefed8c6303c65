"""The keywords that optimizers have in common, as types, and those of groups.

``**options: Unpack[CommonOptions]`` tells type checkers; `signatures.spelled_out` tells people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Required, TypedDict

from .averages import Average
from .choices import Check, Decay, Exactness, Master, Rounding, Sparse, StateDtype
from .containers import Params
from .hyperparameters import Betas, Hyperparameter


class GroupOptions(TypedDict, total=False):
    """The settings that every group has, without weight decay."""

    maximize: bool
    rowwise: bool
    max_row_norm: Hyperparameter
    check: Check | None
    state_dtype: StateDtype | Mapping[str, StateDtype] | None
    master: Master | None
    rounding: Rounding
    seed: int
    sparse: Sparse
    exactness: Exactness


class UndecayedOptions(GroupOptions, total=False):
    """`CommonOptions` for constructors that have weight decay, and its form, of their own."""

    initial: Mapping[str, float] | None
    average: Average | None


class DecayedOptions(UndecayedOptions, total=False):
    """`CommonOptions` for constructors that have weight decay of their own."""

    decay: Decay


class L2Options(UndecayedOptions, total=False):
    """`CommonOptions` for constructors whose ``decay`` is something else."""

    weight_decay: Hyperparameter


class CommonOptions(DecayedOptions, total=False):
    """The keywords of `Optimizer` that every method takes; see there."""

    weight_decay: Hyperparameter


class BetaOptions(TypedDict, total=False):
    """The long spelling of ``betas``."""

    beta1: Hyperparameter | None
    beta2: Hyperparameter | None


class AdamOptions(CommonOptions, BetaOptions, total=False):
    """`CommonOptions` for methods that take ``betas``."""


class AdamWOptions(UndecayedOptions, BetaOptions, total=False):
    """`UndecayedOptions` for methods that take ``betas``."""


class Group(GroupOptions, total=False):
    """A group of parameters, with settings of its own; the keys that all methods have."""

    params: Required[Params]
    lr: Hyperparameter
    weight_decay: Hyperparameter
    decay: Decay
    average_decay: Hyperparameter
    average_alpha: Hyperparameter


class SGDGroup(Group, total=False):
    """A group of `SGD`."""

    momentum: Hyperparameter
    dampening: Hyperparameter


class AdagradGroup(Group, total=False):
    """A group of `Adagrad`."""

    eps: Hyperparameter
    lr_decay: Hyperparameter


class FTRLGroup(Group, total=False):
    """A group of `FTRL`."""

    l1: Hyperparameter
    l2: Hyperparameter
    beta: Hyperparameter


class AdadeltaGroup(Group, total=False):
    """A group of `Adadelta`."""

    rho: Hyperparameter
    eps: Hyperparameter


class RMSpropGroup(AdadeltaGroup, total=False):
    """A group of `RMSprop`."""

    momentum: Hyperparameter


class BetasGroup(Group, BetaOptions, total=False):
    """A group of `Lion`; what methods with ``betas`` share."""

    betas: Betas


class AdamGroup(BetasGroup, total=False):
    """A group of `Adam`, `AdamW` or `Adamax`."""

    eps: Hyperparameter


class NAdamGroup(AdamGroup, total=False):
    """A group of `NAdam`."""

    momentum_decay: Hyperparameter


class RAdamGroup(AdamGroup, total=False):
    """A group of `RAdam`."""

    threshold: Hyperparameter
    threshold_inclusive: bool
