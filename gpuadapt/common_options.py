"""The keywords that optimizers have in common, as types: ``**options: Unpack[CommonOptions]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from .hyperparameters import Hyperparameter


class UndecayedOptions(TypedDict, total=False):
    """`CommonOptions` for methods that have weight decay in their own signature."""

    maximize: bool
    rowwise: bool
    max_row_norm: Hyperparameter
    check: str | None
    initial: Mapping[str, float] | None
    state_dtype: str | Mapping[str, str] | None
    master: str | None
    rounding: str
    seed: int
    sparse: str
    exactness: str


class CommonOptions(UndecayedOptions, total=False):
    """The keywords of `Optimizer` that every method takes; see there."""

    weight_decay: Hyperparameter
    decay: str


class BetaOptions(TypedDict, total=False):
    """The long spelling of ``betas``."""

    beta1: Hyperparameter
    beta2: Hyperparameter


class AdamOptions(CommonOptions, BetaOptions, total=False):
    """`CommonOptions` for methods that take ``betas``."""


class AdamWOptions(UndecayedOptions, BetaOptions, total=False):
    """`AdamOptions` for methods that have weight decay in their own signature."""
