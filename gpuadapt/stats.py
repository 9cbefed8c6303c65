"""`Stats`: compare what a step did to a parameter with the same step in float64."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.formats import BLOCK, Quantized, block_width, blocks
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


class Watch(NamedTuple):
    """A parameter that is looked at before and after a step."""

    elements: int
    """Number of elements that are looked at."""
    finish: Callable[[], Stats]
    """Called after the step."""


class Sampling(NamedTuple):
    """How many elements of a parameter are looked at."""

    limit: int
    """Most elements; of a larger parameter so many, evenly spread, at random places."""
    whole_rows: bool
    """True if the rule takes means over rows: these are looked at as a whole, at least one."""


class Part(NamedTuple):
    """Elements of a parameter: all, some rows, or some elements."""

    rows: HostArray | None = None
    """int64, shape (n,): indices of rows."""
    places: HostArray | None = None
    """int64, any shape: indices of elements, in C order."""


ALL = Part()

Used = tuple[Rule, Sequence[float]]
"""A rule and its coefficients."""


def watch(
    parameter: Parameter,
    grad: Array | RowGrad,
    used: Callable[[], Mapping[str, Used]],
    rate: Callable[[], Used | None],
    sampling: Sampling | None = None,
) -> Watch:
    """Copy a parameter and its states before a step; no bit of them changes.

    Parameters
    ----------
    parameter : Parameter
    grad : array or RowGrad
        Its gradient.
    used : function
        Called after the step; for each parameter the rule and its coefficients.
    rate : function
        Called after the step; the rule of effective rates and its coefficients, if there is one.
    sampling : Sampling, optional
        By default all elements are looked at, or all rows that the gradient has.

    Raises
    ------
    ParameterError
        If exact rows have to catch up, and the table is read-only.
    """
    if isinstance(grad, RowGrad):
        part, gradient = _rows(parameter, grad, sampling)
    else:
        part = ALL
        if sampling is not None and parameter.array.size > sampling.limit:
            part = Part(places=_places(parameter.name, parameter.shape, sampling))
        gradient = decoded(_taken(grad, part))
    gradient = gradient.astype(np.float64)
    with parameter.up_to_date(partial(_rows_of, parameter, part)):
        before = _value(parameter, part)
        states = _states(parameter, part, np.dtype(np.float64))

    @in_default_modes
    def finish() -> Stats:
        rule, coefficients = used()[parameter.name]
        after = _value(parameter, part)
        arrays = [before, gradient, *states]
        arrays += _row_means(rule, arrays[:2], coefficients)
        exact, *_ = evaluate(rule, arrays, coefficients)
        changed = exact != before
        lost = np.mean(after[changed] == before[changed]) if changed.any() else np.nan
        norm = np.linalg.norm(before)
        ratio = np.linalg.norm(after - before) / norm if norm else np.nan
        rates = _rates(parameter, part, rate())
        return Stats(float(lost), float(ratio), rates)

    return Watch(before.size, finish)


def _rows(parameter: Parameter, grad: RowGrad, sampling: Sampling | None) -> tuple[Part, HostArray]:
    """The rows that a gradient has, or some of them, and their merged gradients."""
    index = to_host(grad.index)[: grad.used]
    rows = np.unique(index[(index >= 0) & (index < len(parameter.array))])
    width = max(math.prod(parameter.shape[1:]), 1)
    if sampling is not None and rows.size * width > sampling.limit:
        count = max(sampling.limit // width, 1)
        rows = rows[_spread(rows.size, count, parameter.name)]
    used = np.flatnonzero(np.isin(index, rows))
    values = decoded(_taken(grad.flat, Part(used)))
    merged = RowGrad(index[used], values, duplicates=grad.duplicates).coalesced()
    return Part(rows), merged.values


@lru_cache(maxsize=64)
def _places(name: str, shape: tuple[int, ...], sampling: Sampling) -> HostArray:
    """The indices of elements that represent a parameter, in C order.

    Returns
    -------
    ndarray of int64, shape (n,) or, of whole rows, (n, \\*row shape)
    """
    if not sampling.whole_rows or len(shape) < 2:
        return _spread(math.prod(shape), sampling.limit, name)
    width = math.prod(shape[1:])
    rows = _spread(shape[0], max(sampling.limit // width, 1), name)
    return (rows[:, None] * width + np.arange(width)).reshape(-1, *shape[1:])


def _spread(size: int, count: int, name: str) -> HostArray:
    """One index of each of ``count`` equal parts of ``range(size)``, at random."""
    edges = np.arange(count + 1) * size // count
    within = np.random.default_rng(zlib.crc32(name.encode())).random(count) * np.diff(edges)
    return edges[:-1] + within.astype(np.int64)


def _rows_of(parameter: Parameter, part: Part) -> HostArray:
    """The rows of a table that have elements in a part."""
    if part.places is not None:
        return np.unique(part.places // math.prod(parameter.shape[1:]))
    return np.arange(len(parameter.array)) if part.rows is None else part.rows


def _rates(parameter: Parameter, part: Part, rate: Used | None) -> dict[float, float] | None:
    """Quantiles of the effective learning rate, whose bits are those of `effective_lr`."""
    shape = _shape(parameter, part)
    if rate is None or 0 in shape:
        return None
    rule, coefficients = rate
    unused = np.zeros(shape, parameter.compute_dtype)
    states = _states(parameter, part, parameter.compute_dtype)
    rates, *_ = evaluate(rule, [unused, unused, *states], coefficients)
    quantiles = np.quantile(rates.astype(np.float64), QUANTILES)
    return dict(zip(QUANTILES, map(float, quantiles), strict=True))


def _taken(array: Any, part: Part) -> Any:
    """The elements of an array that are in a part."""
    if part is ALL:
        return array
    with on_device(array):
        xp = namespace(backend_of(array) or "cpu")
        if part.places is None:
            return array[xp.asarray(part.rows)]
        if array.flags.c_contiguous:
            return array.reshape(-1)[xp.asarray(part.places)]
        return array[tuple(map(xp.asarray, np.unravel_index(part.places, array.shape)))]


def _value(parameter: Parameter, part: Part) -> HostArray:
    """The parameter with its companions, in float64."""
    parts = [_taken(array, part) for array in (parameter.array, *parameter.companions.values())]
    return parameter.formats.parameter.decode(parts).astype(np.float64)


def _states(parameter: Parameter, part: Part, dtype: np.dtype) -> list[HostArray]:
    """The states as the rule sees them; those of rows have the shape of elements."""
    shape, found = _shape(parameter, part), []
    for form, state in zip(parameter.formats.states, parameter.states.values(), strict=True):
        own = part
        if part.places is not None and state.shape != parameter.shape:
            own = Part(places=part.places // math.prod(parameter.shape[1:]))
        if part.places is not None and isinstance(state, Quantized):
            numbers = _decoded_codes(state, part.places)
        else:
            numbers = form.decode([_taken(array, own) for array in parts_of(state)])
        found.append(_per_element(numbers.astype(dtype), shape))
    return found


def _shape(parameter: Parameter, part: Part) -> tuple[int, ...]:
    """The shape in which the numbers of a part are returned."""
    shape: tuple[int, ...] = parameter.shape
    if part.places is not None:
        return part.places.shape
    return shape if part.rows is None else part.rows.shape + shape[1:]


def _decoded_codes(state: Quantized, places: HostArray) -> HostArray:
    """The elements of 8 bits at some indices."""
    width = block_width(state.shape)
    of_scales = places // width * blocks(width) + places % width // BLOCK
    codes, scales = (
        to_host(_taken(array, Part(places=at)))
        for array, at in ((state.codes, places), (state.scales, of_scales))
    )
    return state.format.decode_codes(codes, scales)


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
