"""Bytes that an update must move: dense ones are counted in `gpuadapt.testing`."""

from __future__ import annotations

import numpy as np

from gpuadapt.kernels.language.rule import Rule
from gpuadapt.testing import traffic as element

__all__ = ["INDEX", "element", "rows"]

INDEX = 8
"""Bytes of a row's number."""


def rows(rule: Rule, dtype: np.dtype, width: int, batch: int, touched: int) -> int:
    """For rows of a table: those touched read and written, the batch and its numbers read."""
    return dtype.itemsize * width * (2 * (1 + len(rule.states)) * touched + batch) + INDEX * batch
