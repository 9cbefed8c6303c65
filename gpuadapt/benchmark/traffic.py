"""Bytes that an update must move."""

from __future__ import annotations

import numpy as np

from gpuadapt.kernels import formats
from gpuadapt.kernels.language.rule import Rule

from ..optimizer import Optimizer, internals

INDEX = 8
"""Bytes of a row's number."""


def element(rule: Rule, dtype: np.dtype) -> int:
    """Bytes per element: parameter and states read and written, gradient read."""
    return int(formats.traffic(formats.uniform(rule, dtype)))


def of(optimizer: Optimizer) -> float:
    """Bytes per element of an optimizer's first parameter, with its states, in their formats."""
    return formats.traffic(next(iter(internals(optimizer).parameters.values())).formats)


def rows(rule: Rule, dtype: np.dtype, width: int, batch: int, touched: int) -> int:
    """For rows of a table: those touched read and written, the batch and its numbers read."""
    return dtype.itemsize * width * (2 * (1 + len(rule.states)) * touched + batch) + INDEX * batch
