"""Which elements of a parameter are looked at, and their numbers before and after a step."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.formats import BLOCK, PLAIN, Format, Quantized, block_width, blocks

from .arrays import dtype_name, take_elements, to_host
from .parameter import Parameter
from .rowgrad import RowGrad
from .state_formats import decoded


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


class Stored(NamedTuple):
    """Elements as they are stored, on the host."""

    form: Format | None
    """None if they are decoded already."""
    parts: list[HostArray]


def chosen(
    parameter: Parameter, grad: Array | RowGrad, sampling: Sampling | None
) -> tuple[Part, Stored]:
    """The elements to look at, and their gradients.

    Parameters
    ----------
    parameter : Parameter
    grad : array or RowGrad
        Its gradient; of rows with duplicates their sum or mean is taken.
    sampling : Sampling, optional
        By default all elements are looked at, or all rows that the gradient has.
    """
    if isinstance(grad, RowGrad):
        return _rows(parameter, grad, sampling)
    part = ALL
    if sampling is not None and parameter.array.size > sampling.limit:
        part = Part(places=places(parameter.name, parameter.shape, sampling))
    return part, Stored(PLAIN[dtype_name(grad) or ""], [to_host(_taken(grad, part))])


def _rows(parameter: Parameter, grad: RowGrad, sampling: Sampling | None) -> tuple[Part, Stored]:
    index = to_host(grad.index)[: grad.used]
    rows = np.unique(index[(index >= 0) & (index < len(parameter.array))])
    width = max(math.prod(parameter.shape[1:]), 1)
    if sampling is not None and rows.size * width > sampling.limit:
        count = max(sampling.limit // width, 1)
        rows = rows[spread(rows.size, count, parameter.name)]
    used = np.flatnonzero(np.isin(index, rows))
    values = decoded(_taken(grad.flat, Part(used)))
    merged = RowGrad(index[used], values, duplicates=grad.duplicates).coalesced()
    return Part(rows), Stored(None, [merged.values])


@lru_cache(maxsize=1024)
def places(name: str, shape: tuple[int, ...], sampling: Sampling) -> HostArray:
    """The indices of elements that represent a parameter, in C order.

    Returns
    -------
    ndarray of int64, shape (n,) or, of whole rows, (n, \\*row shape)
    """
    if not sampling.whole_rows or len(shape) < 2:
        return spread(math.prod(shape), sampling.limit, name)
    width = math.prod(shape[1:])
    rows = spread(shape[0], max(sampling.limit // width, 1), name)
    return (rows[:, None] * width + np.arange(width)).reshape(-1, *shape[1:])


def spread(size: int, count: int, name: str) -> HostArray:
    """One index of each of ``count`` equal parts of ``range(size)``, at random by a name."""
    edges = np.arange(count + 1) * size // count
    within = np.random.default_rng(zlib.crc32(name.encode())).random(count) * np.diff(edges)
    return edges[:-1] + within.astype(np.int64)


def rows_of(parameter: Parameter, part: Part) -> HostArray:
    """The rows of a table that have elements in a part."""
    if part.places is not None:
        return np.unique(part.places // math.prod(parameter.shape[1:]))
    return np.arange(len(parameter.array)) if part.rows is None else part.rows


def stored_value(parameter: Parameter, part: Part) -> Stored:
    """The elements of a parameter and its companions."""
    arrays = parameter.array, *parameter.companions.values()
    return Stored(parameter.formats.parameter, [_copied(one, part) for one in arrays])


def stored_states(parameter: Parameter, part: Part) -> list[Stored]:
    """The elements of each state; one that has a number for each row is repeated along it."""
    found = []
    for form, state in zip(parameter.formats.states, parameter.states.values(), strict=True):
        if isinstance(state, Quantized):
            found.append(Stored(None, [_decoded_block(state, part)]))
        elif state.shape == parameter.shape:
            found.append(Stored(form, [_copied(state, part)]))
        else:
            found.append(Stored(form, [_repeated(state, parameter, part)]))
    return found


def _taken(array: Any, part: Part) -> Any:
    """The elements of an array that are in a part."""
    if part.rows is not None:
        return take_elements(array, part.rows)
    if part.places is None:
        return array
    if array.flags.c_contiguous:
        return take_elements(array.reshape(-1), part.places)
    return take_elements(array, *np.unravel_index(part.places, array.shape))


def _copied(array: Array, part: Part) -> HostArray:
    """The elements of an array that are in a part, in new memory of the host."""
    elements = to_host(_taken(array, part))
    return elements.copy() if part is ALL else elements


def _decoded_block(state: Quantized, part: Part) -> HostArray:
    """Elements of 8 bits."""
    if part.places is None:
        arrays = [_taken(array, part) for array in (state.codes, state.scales)]
        return state.format.decode(arrays)
    width = block_width(state.shape)
    of_scales = part.places // width * blocks(width) + part.places % width // BLOCK
    codes = to_host(_taken(state.codes, part))
    return state.format.decode_codes(codes, to_host(_taken(state.scales, Part(places=of_scales))))


def _repeated(state: Array, parameter: Parameter, part: Part) -> HostArray:
    """The numbers of a state of rows, for each element."""
    if part.places is not None:
        return to_host(_taken(state, Part(places=part.places // math.prod(parameter.shape[1:]))))
    numbers = to_host(_taken(state, part))
    return per_element(numbers, numbers.shape + parameter.shape[1:])


def per_element(numbers: HostArray, shape: tuple[int, ...]) -> HostArray:
    """Numbers of rows, broadcast to the shape of elements."""
    return np.broadcast_to(numbers.reshape(shape[:1] + (1,) * (len(shape) - 1)), shape)
