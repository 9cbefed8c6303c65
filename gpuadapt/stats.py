"""`Stats`: compare what a step did to parameters with the same step in float64.

Parameters that are stored alike are compared together: a record of many small ones would
otherwise take a millisecond for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.language.rule import Rule

from .launch import in_default_modes
from .oracle import evaluate
from .parameter import Parameter
from .rowgrad import RowGrad
from .sampling import (
    Part,
    Sampling,
    Stored,
    chosen,
    per_element,
    rows_of,
    stored_states,
    stored_value,
)

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


Used = tuple[Rule, Sequence[float]]
"""A rule and its coefficients."""


class Wanted(NamedTuple):
    """A parameter to look at."""

    parameter: Parameter
    grad: Array | RowGrad
    sampling: Sampling | None
    """None for all elements, or all rows that the gradient has."""


class Watched(NamedTuple):
    """Parameters that are looked at before and after a step."""

    elements: dict[str, int]
    """By parameter the number of elements that are looked at."""
    finish: Callable[[], dict[str, Stats]]
    """Called after the step."""


class Look(NamedTuple):
    """A parameter before the step."""

    parameter: Parameter
    part: Part
    gradient: Stored
    before: Stored
    states: list[Stored]


class Batch(NamedTuple):
    """Numbers of parameters that are stored alike, before the step, in float64.

    Their shape is (n,), or that of the only parameter.
    """

    looks: list[Look]
    bounds: list[slice]
    """The elements of each parameter."""
    before: HostArray
    gradient: HostArray
    states: list[HostArray]


def watch(
    wanted: Sequence[Wanted],
    used: Callable[[], Mapping[str, Used]],
    rate: Callable[[Parameter], Used | None],
) -> Watched:
    """Copy parameters and their states before a step; no bit of them changes.

    Parameters
    ----------
    wanted : sequence of Wanted
    used : function
        Called after the step; by parameter the rule and its coefficients.
    rate : function
        Called after the step; the rule of effective rates and its coefficients, if there is one.

    Raises
    ------
    ParameterError
        If exact rows have to catch up, and the table is read-only.
    """
    alike: dict[Any, list[Look]] = {}
    for one in wanted:
        look = _look(*one)
        alike.setdefault(_kind(look), []).append(look)
    batches = [_batch(looks) for looks in alike.values()]

    @in_default_modes
    def finish() -> dict[str, Stats]:
        known, found = used(), dict[str, Stats]()
        for batch in batches:
            found |= _compared(batch, known, rate)
        return found

    sizes = {
        look.parameter.name: own.stop - own.start
        for batch in batches
        for look, own in zip(batch.looks, batch.bounds, strict=True)
    }
    return Watched({name: sizes[name] for name in (one.parameter.name for one in wanted)}, finish)


def _look(parameter: Parameter, grad: Array | RowGrad, sampling: Sampling | None) -> Look:
    part, gradient = chosen(parameter, grad, sampling)
    with parameter.up_to_date(partial(rows_of, parameter, part)):
        before, states = stored_value(parameter, part), stored_states(parameter, part)
    return Look(parameter, part, gradient, before, states)


def _kind(look: Look) -> Any:
    """A key that looks have in common whose numbers can be joined."""
    parameter = look.parameter
    by_rows = any(kept.by_row for kept in parameter.storage.states)
    return id(parameter.storage), look.gradient.form, id(parameter) if by_rows else 0


def _batch(looks: list[Look]) -> Batch:
    ends = np.cumsum([look.gradient.parts[0].size for look in looks]).tolist()
    bounds = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    wide = np.dtype(np.float64)
    gradient = _numbers([look.gradient for look in looks], wide)
    before = _numbers([look.before for look in looks], wide)
    states = [_numbers(own, wide) for own in zip(*(look.states for look in looks), strict=True)]
    return Batch(looks, bounds, before, gradient, states)


def _joined(arrays: Sequence[HostArray]) -> HostArray:
    """One array as it is; several as one of shape (n,)."""
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([one.reshape(-1) for one in arrays])


def _numbers(stored: Sequence[Stored], dtype: np.dtype) -> HostArray:
    """The numbers of several parameters, new."""
    parts = [_joined(own) for own in zip(*(one.parts for one in stored), strict=True)]
    form = stored[0].form
    return (parts[0] if form is None else form.decode(parts)).astype(dtype)


def _compared(
    batch: Batch, known: Mapping[str, Used], rate: Callable[[Parameter], Used | None]
) -> dict[str, Stats]:
    """The statistics of the parameters of a batch."""
    looks, before = batch.looks, batch.before.reshape(-1)
    stored = [stored_value(look.parameter, look.part) for look in looks]
    after = _numbers(stored, np.dtype(np.float64)).reshape(-1)
    arrays = [batch.before, batch.gradient, *batch.states]
    exact = _evaluated(batch, arrays, [known[look.parameter.name] for look in looks])
    changed, kept, moved = exact != before, after == before, after - before
    rates = _rates(batch, [rate(look.parameter) for look in looks])
    found = {}
    for look, own, quantiles in zip(looks, batch.bounds, rates, strict=True):
        count = np.count_nonzero(changed[own])
        lost = np.count_nonzero(changed[own] & kept[own]) / count if count else np.nan
        norm = _norm(before[own])
        ratio = _norm(moved[own]) / norm if norm else np.nan
        found[look.parameter.name] = Stats(float(lost), float(ratio), quantiles)
    return found


def _norm(numbers: HostArray) -> Any:
    """The Euclidean norm. `np.linalg.norm` calls BLAS, whose threads may change the last bits."""
    with np.errstate(over="ignore"):
        return np.sqrt(np.add.reduce(np.square(numbers)))


def _rates(batch: Batch, used: Sequence[Used | None]) -> list[dict[float, float] | None]:
    """Quantiles of the effective learning rates, whose bits are those of `effective_lr`."""
    if None in used or not batch.before.size:
        return [None] * len(used)
    looks, dtype = batch.looks, batch.looks[0].parameter.compute_dtype
    stored = (stored_states(look.parameter, look.part) for look in looks)
    states = [_numbers(own, dtype) for own in zip(*stored, strict=True)]
    unused = np.zeros(batch.before.shape, dtype)
    rates = _evaluated(batch, [unused, unused, *states], used).astype(np.float64)
    found: list[dict[float, float] | None] = [None] * len(used)
    sizes = [own.stop - own.start for own in batch.bounds]
    for size in {*sizes} - {0}:  # one call for all of a size: a call costs more than sorting
        alike = [k for k, one in enumerate(sizes) if one == size]
        values = np.array([rates[batch.bounds[k]] for k in alike])
        for k, quantiles in zip(alike, np.quantile(values, QUANTILES, axis=1).T, strict=True):
            found[k] = dict(zip(QUANTILES, quantiles.tolist(), strict=True))
    return found


def _evaluated(batch: Batch, arrays: Sequence[HostArray], used: Sequence[Any]) -> HostArray:
    """The first result of the rule of each parameter, with its coefficients; shape (n,)."""
    if all(one == used[0] for one in used):
        rule, coefficients = used[0]
        return _first(rule, arrays, coefficients)
    found = [
        _first(rule, [array[own] for array in arrays], coefficients)
        for own, (rule, coefficients) in zip(batch.bounds, used, strict=True)
    ]
    return np.concatenate(found)


def _first(rule: Rule, arrays: Sequence[HostArray], coefficients: Sequence[float]) -> HostArray:
    means = _row_means(rule, arrays[:2], coefficients)
    result: HostArray = evaluate(rule, [*arrays, *means], coefficients)[0]
    return result.reshape(-1)


def _row_means(
    rule: Rule, arrays: Sequence[HostArray], coefficients: Sequence[float]
) -> list[HostArray]:
    """The mean of squares of each row, if it is the last argument of the rule."""
    if rule.squared is None:
        return []
    known = dict(zip(rule.coefficients, coefficients, strict=True))
    values = [known[name] for name in rule.squared_coefficients]
    squared, *_ = evaluate(rule.squared, arrays, values)
    if not squared.size:
        return [squared]
    means = np.square(squared).reshape(len(squared), -1).mean(axis=1)
    return [np.array(per_element(means, squared.shape))]
