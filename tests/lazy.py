"""What a step by rows is, bit for bit, in plain NumPy and by dense steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import Case

SUMS = 32


def merged(rows, values, duplicates="sum", most=np.inf) -> dict[int, np.ndarray]:
    """The gradient of each row: summed in order of occurrence, averaged, scaled down."""
    found: dict[int, list[np.ndarray]] = {}
    for row, value in zip(rows.tolist(), values, strict=True):
        found.setdefault(row, []).append(value)
    result = {}
    with np.errstate(all="ignore"):
        for row, gradients in found.items():
            total = gradients[0].copy()
            for gradient in gradients[1:]:
                total = total + gradient
            if duplicates == "mean" and len(gradients) > 1:
                total = total / values.dtype.type(len(gradients))
            norm = np.sqrt(squares(total))
            if norm > most:
                total = total * values.dtype.type(most / norm)
            result[row] = total
    return result


def squares(row: np.ndarray) -> np.float64:
    """A sum in float64, in the order that is defined for it."""
    partial = np.zeros(SUMS)
    for j, x in enumerate(row.astype(np.float64).ravel()):
        partial[j % SUMS] += x * x
    while len(partial) > 1:
        half = len(partial) // 2
        partial = partial[:half] + partial[half:]
    return partial[0]


def train(case: Case, table: np.ndarray, batches: Any, **changes: Any) -> list[np.ndarray]:
    """Dense steps on the merged gradients; the rows that have none are put back after each.

    Returns the table and the states.
    """
    table = table.copy()
    optimizer = case.optimizer({"table": table}, **changes)
    arrays = [table, *optimizer.state["table"].values()]
    for rows, values, *how in batches:
        gradient = np.zeros_like(table)
        found = merged(rows, values, *how)
        for row, total in found.items():
            gradient[row] = total
        before = [array.copy() for array in arrays]
        optimizer.step({"table": gradient})
        left = np.setdiff1d(np.arange(len(table)), list(found))
        for array, old in zip(arrays, before, strict=True):
            array[left] = old[left]
    return arrays
