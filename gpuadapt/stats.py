"""`Stats`: compare what a step did to a parameter with the same step in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.language.rule import Rule

from .arrays import backend_of, namespace, on_device, to_host
from .launch import in_default_modes
from .oracle import evaluate
from .parameter import Parameter
from .rowgrad import RowGrad
from .state_formats import decoded, parts_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Stats(NamedTuple):
    """Statistics of a step of one parameter, or of the rows that its gradient has."""

    lost: float
    """Fraction of the elements changed in float64 whose update was rounded to nothing; NaN if
    float64 changes none."""
    ratio: float
    """Euclidean norm of the update over that of the parameter; NaN if the latter is 0."""
    rates: dict[float, float] | None
    """Effective learning rate by quantile, after the step; None if the rule has no ``rate``."""


def watch(
    parameter: Parameter,
    grad: Array | RowGrad,
    used: Callable[[], tuple[Rule, Sequence[float]]],
    rate: Callable[[], tuple[Rule, Sequence[float]] | None],
) -> Callable[[], Stats]:
    """Copy a parameter and its states before a step.

    Parameters
    ----------
    parameter : Parameter
    grad : array or RowGrad
        Its gradient.
    used : function
        Called after the step; the rule and its coefficients.
    rate : function
        Called after the step; the rule of effective rates and its coefficients, if there is one.

    Returns
    -------
    function
        Called after the step.
    """
    rows = None
    if isinstance(grad, RowGrad):
        merged = RowGrad(
            to_host(grad.index), decoded(grad.flat), duplicates=grad.duplicates, count=grad.used
        ).coalesced()
        inside = (merged.rows >= 0) & (merged.rows < len(parameter.array))
        rows, grad = merged.rows[inside], merged.values[inside]
    before, states = _value(parameter, rows), _states(parameter, rows)
    gradient = decoded(grad).astype(np.float64)

    @in_default_modes
    def finish() -> Stats:
        rule, coefficients = used()
        after = _value(parameter, rows)
        arrays = [before, gradient, *(_per_element(state, before.shape) for state in states)]
        arrays += _row_means(rule, arrays[:2], coefficients)
        exact, *_ = evaluate(rule, arrays, coefficients)
        changed = exact != before
        lost = np.mean(after[changed] == before[changed]) if changed.any() else np.nan
        norm = np.linalg.norm(before)
        ratio = np.linalg.norm(after - before) / norm if norm else np.nan
        return Stats(float(lost), float(ratio), _rates(parameter, rows, before, rate()))

    return finish


def _rates(
    parameter: Parameter,
    rows: HostArray | None,
    before: HostArray,
    rate: tuple[Rule, Sequence[float]] | None,
) -> dict[float, float] | None:
    """Quantiles of the effective learning rate."""
    if rate is None or not before.size:
        return None
    rule, coefficients = rate
    states = [_per_element(state, before.shape) for state in _states(parameter, rows)]
    rates, *_ = evaluate(rule, [before, before, *states], coefficients)
    return dict(zip(QUANTILES, map(float, np.quantile(rates, QUANTILES)), strict=True))


def _part(array: Any, rows: HostArray | None) -> Any:
    """An array, or some rows of it."""
    if rows is None:
        return array
    with on_device(array):
        return array[namespace(backend_of(array) or "cpu").asarray(rows)]


def _value(parameter: Parameter, rows: HostArray | None) -> HostArray:
    """The parameter with its companions, in float64."""
    parts = [_part(array, rows) for array in (parameter.array, *parameter.companions.values())]
    return parameter.formats.parameter.decode(parts).astype(np.float64)


def _states(parameter: Parameter, rows: HostArray | None) -> list[HostArray]:
    """The states as the rule sees them, in float64."""
    return [
        form.decode([_part(array, rows) for array in parts_of(state)]).astype(np.float64)
        for form, state in zip(parameter.formats.states, parameter.states.values(), strict=True)
    ]


def _per_element(state: HostArray, shape: tuple[int, ...]) -> HostArray:
    """A state of shape (rows,), broadcast to ``shape``; other states as they are."""
    if state.shape == shape:
        return state
    return np.broadcast_to(state.reshape(shape[:1] + (1,) * (len(shape) - 1)), shape)


def _row_means(
    rule: Rule, arrays: Sequence[HostArray], coefficients: Sequence[float]
) -> list[HostArray]:
    """The mean of squares of each row, if it is the last argument of the rule."""
    if rule.squared is None:
        return []
    known = dict(zip(rule.coefficients, coefficients, strict=True))
    values = [known[name] for name in rule.squared_coefficients]
    squared, *_ = evaluate(rule.squared, arrays, values)
    means = np.square(squared).reshape(len(squared), -1).mean(axis=1)
    return [np.array(_per_element(means, squared.shape))]
