"""Do other libraries compute the same? They are timed only if they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import optimizers
from ..oracle import evaluate
from .candidates import Make, MakeRows, checked
from .draws import rows as drawn
from .failures import Errors, noted

STEPS, SIZE, ROWS, WIDTH = 3, 1003, 50, 16

ALLOWED = 64
"""How far results may be from float64, in units of the last place of 1."""

CLASSES = {name.lower(): getattr(optimizers, name) for name in optimizers.__all__}
"""From the name of a method's rule to its class."""


def dense(method: str, makers: Mapping[str, Make], dtype: np.dtype, errors: Errors) -> list[str]:
    """The candidates whose steps of an array give what this rule gives in float64, in their form.

    ``errors`` takes, by name, what the others raise, or how far off they are.
    """
    random, right = np.random.default_rng(1), []
    start, *gradients = random.standard_normal((1 + STEPS, SIZE)).astype(dtype)
    for name, make in makers.items():
        with noted(errors, name, printed=False):
            trainer = make([start], checked(method))
            for gradient in gradients:
                trainer.load([gradient])
                trainer.step()
            _compare(trainer.result()[0], _expected(method, start, gradients, trainer.form), dtype)
            right.append(name)
    return right


def rows(method: str, makers: Mapping[str, MakeRows], errors: Errors) -> list[str]:
    """As `dense`, for rows of a table; without those that have one second moment for a row."""
    random, right = np.random.default_rng(2), []
    start = random.standard_normal((ROWS, WIDTH), np.float32)
    batch = 2 * ROWS
    batches = [
        (drawn(ROWS, batch, "uniform", random), random.standard_normal((batch, WIDTH), np.float32))
        for _ in range(STEPS)
    ]
    sums = [np.zeros((ROWS, WIDTH)) for _ in batches]
    for total, (numbers, values) in zip(sums, batches, strict=True):
        np.add.at(total, numbers, values)
    touched = [np.isin(np.arange(ROWS), numbers) for numbers, _ in batches]
    for name, make in makers.items():
        with noted(errors, name, printed=False):
            trainer = make(start, batches, checked(method))
            if trainer.rowwise:
                continue
            for k in range(STEPS):
                trainer.step(k)
            expected = _expected(method, start, sums, trainer.form, touched)
            _compare(trainer.result(), expected, start.dtype)
            right.append(name)
    return right


def _compare(got: np.ndarray, expected: np.ndarray, dtype: np.dtype) -> None:
    off = float(np.abs(got - expected).max())
    if off > ALLOWED * np.finfo(dtype).eps:
        raise ValueError(f"its result is off by {off:.2g}: it is another formula")


def _expected(
    method: str,
    start: np.ndarray,
    gradients: Sequence[np.ndarray],
    form: Mapping[str, Any],
    touched: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """The parameter after the steps, by NumPy in float64; only rows that are touched change."""
    optimizer = CLASSES[method](np.zeros(1), **form)
    rule, values = optimizer.rule, {**optimizer.param_groups[0], **checked(method)}
    arrays = [start.astype(np.float64), *(np.zeros(start.shape) for _ in rule.states)]
    for t, gradient in enumerate(gradients, 1):
        numbers = rule.evaluate(*(values[name] for name in rule.hyperparameters), t)
        new = evaluate(rule, [arrays[0], gradient.astype(np.float64), *arrays[1:]], numbers)
        if touched is not None:
            here = touched[t - 1][:, None]
            new = [np.where(here, *pair) for pair in zip(new, arrays, strict=True)]
        arrays = new
    return arrays[0]
