"""Optimizers for PyTorch: those of `torch.optim` by fused kernels, and rules of your own."""

from functools import partial

from .methods import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
    SparseAdam,
)
from .own_rule import Optimizer
from .refusal import FallbackWarning

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "FallbackWarning",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "SparseAdam",
]

__dir__ = partial(sorted, __all__)
