"""What a step did to a parameter, beside what it would do in exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.language.rule import Rule

from .arrays import backend_of, namespace, on_device, to_host
from .launch import in_default_modes
from .oracle import evaluate
from .parameter import Parameter
from .quantized import Quantized
from .rowgrad import RowGrad
from .storage import decoded, loaded

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Stats(NamedTuple):
    """A step of one parameter; of a gradient of rows, the rows that occurred.

    Shares are NaN where nothing was to change.
    """

    lost: float
    """Of the elements that float64 arithmetic would have changed, the share that kept their value:
    rounding has left nothing of their updates."""
    ratio: float
    """The update's Euclidean norm over the parameter's before it."""
    rates: dict[float, float] | None
    """Quantiles of the effective rates after the step; None if the rule has no ``rate``."""


def watch(
    parameter: Parameter, grad: Any, used: Callable[[], tuple[Rule, Sequence[float]]],
    rate: Callable[[], tuple[Rule, Sequence[float]] | None],
) -> Callable[[], Stats]:  # fmt: skip
    """Copy what a step starts from; the function returned is for after the step.

    Parameters
    ----------
    parameter : Parameter
    grad : array or RowGrad
        Its gradient, checked or not.
    used, rate : function
        After the step: the rule and its coefficients; the rule of rates and its own, if any.
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
        arrays = [before, gradient, *(_wide(state, before.shape) for state in states)]
        wanted, *_ = evaluate(rule, arrays + _mean(rule, arrays[:2], coefficients), coefficients)
        moved = wanted != before
        lost = np.mean(after[moved] == before[moved]) if moved.any() else np.nan
        norm = np.linalg.norm(before)
        ratio = np.linalg.norm(after - before) / norm if norm else np.nan
        return Stats(float(lost), float(ratio), _rates(parameter, rows, before, rate()))

    return finish


def _rates(
    parameter: Parameter, rows: Any, like: np.ndarray, of: tuple[Rule, Sequence[float]] | None
) -> dict[float, float] | None:
    if of is None or not like.size:
        return None
    rule, coefficients = of
    states = [_wide(state, like.shape) for state in _states(parameter, rows)]
    rates, *_ = evaluate(rule, [like, like, *states], coefficients)
    return dict(zip(QUANTILES, map(float, np.quantile(rates, QUANTILES)), strict=True))


def _part(array: Any, rows: Any) -> Any:
    """An array, or some rows of it."""
    if rows is None:
        return array
    if isinstance(array, Quantized):
        return Quantized(_part(array.codes, rows), _part(array.scales, rows), array.signed)
    with on_device(array):
        return array[namespace(backend_of(array) or "cpu").asarray(rows)]


def _value(parameter: Parameter, rows: Any) -> np.ndarray:
    """The parameter as its rule sees it, in float64."""
    parts = [_part(array, rows) for array in (parameter.array, *parameter.companions.values())]
    return loaded(parameter.formats.parameter, parts).astype(np.float64)


def _states(parameter: Parameter, rows: Any) -> list[np.ndarray]:
    found = [decoded(_part(state, rows)) for state in parameter.states.values()]
    return [state.astype(np.float64) for state in found]


def _wide(state: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A state as one of a number for each element, if it has one for each row."""
    if state.shape == shape:
        return state
    return np.broadcast_to(state.reshape(shape[:1] + (1,) * (len(shape) - 1)), shape)


def _mean(
    rule: Rule, given: Sequence[np.ndarray], coefficients: Sequence[float]
) -> list[np.ndarray]:
    """The mean of squares of each row, if the rule has one for its last argument."""
    if rule.squared is None:
        return []
    known = dict(zip(rule.coefficients, coefficients, strict=True))
    values = [known[name] for name in rule.squared_coefficients]
    squared, *_ = evaluate(rule.squared, given, values)
    rows = np.square(squared).reshape(len(squared), -1).mean(axis=1)
    return [np.array(_wide(rows, squared.shape))]
