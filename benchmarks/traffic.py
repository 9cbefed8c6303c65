"""Bytes that an update must move: the one place where they are counted."""

from __future__ import annotations

import numpy as np
from gpuadapt.kernels.rule import Rule

INDEX = 8
"""Bytes of a row's number."""


def element(rule: Rule, dtype: np.dtype) -> int:
    """For one element: parameter and states read and written, gradient read."""
    return dtype.itemsize * (2 * (1 + len(rule.states)) + 1)


def rows(rule: Rule, dtype: np.dtype, width: int, batch: int, touched: int) -> int:
    """For rows of a table: those touched read and written, the batch and its numbers read."""
    return dtype.itemsize * width * (2 * (1 + len(rule.states)) * touched + batch) + INDEX * batch
