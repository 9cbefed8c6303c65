"""The rows traversal on the CPU: the rows of a table that occur in a batch, each once.

Row numbers are sorted (`loops.sort`); then threads take pieces of the sorted batch as they get
to them. Whoever meets a row first sums its values in order of occurrence, in a buffer that
stays in the cache, and updates it. Rows that come soon are asked for ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..addresses import address
from ..array_types import HostArray
from ..commit import Call, make
from ..formats import FLOAT64, Format, Formats, Operand, blocks, scaling
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.overflow import check_of
from ..numerics.scalar_layout import SCALE
from ..numerics.summation import CHUNK, SUMS
from . import calling, compile, generate
from .calling import Threads
from .row_keys import SortedRows
from .squares import Squares

ALONE = 16384
"""Elements of a batch up to which one thread is faster."""

NOWHERE = np.empty(0, np.int64)

PIECES = 32
"""Pieces that a batch is cut into for each thread."""


def source(rule: Rule, formats: Formats) -> str:
    """Return the text of the module."""
    return generate.rows(rule, formats)


@cached_with_rule
def kernel(rule: Rule, formats: Formats) -> Callable[..., None]:
    """Return the compiled ``rows`` of `loops/rows.py`."""
    return compile.kernel(rule.name, source(rule, formats), "rows")


@cache
def squares_kernel(compute: str, form: Format) -> Callable[..., None]:
    """The compiled kernel of `loops.row_squares`."""
    text = generate.row_squares(compute, form)
    compiled: Callable[..., None] = compile.load("row_squares", text).rows
    return compiled


@cache
def _hot_rows(compute: str, form: Format) -> Callable[..., None]:
    text = generate.hot_rows(compute, form)
    compiled: Callable[..., None] = compile.load("hot_rows", text).sum_hot_rows
    return compiled


class Plan(NamedTuple):
    """The checked and sorted rows of one step, from `Rows.prepare`."""

    keys: HostArray
    arrays: Sequence[HostArray]
    """The parameter and the states, or copies of their rows that occur."""
    copied: HostArray | None
    """The row numbers of copies, or None; keys then have indices of copies in place of rows."""
    values: HostArray
    mean: bool
    max_norm: float
    parts: int
    shift: int
    """Bits of a position in a key."""
    hot: HostArray
    """int64, shape (k, 2): first and stop key of hot rows."""
    hot_threshold: int
    out_of_range: int


class Rows:
    """Updates rows of one table in place; keeps its memory from step to step."""

    def __init__(
        self, rule: Rule, formats: Formats, operand: Operand, threads: Threads = None
    ) -> None:
        arrays = [array if array.ndim else array.reshape(1) for array in operand.arrays]
        self._arrays = arrays
        self._width = math.prod(arrays[0].shape[1:])
        self._shapes = []
        for name, form in zip((rule.parameter, *rule.states), formats.updated, strict=True):
            for part, _ in form.parts:
                width = blocks(self._width) if part == "scale" else self._width
                self._shapes.append(() if name in rule.row_states else (width,))
        self._whole = all(array.flags.carray for array in arrays)
        self._rows = self._shaped(arrays) if self._whole else []
        self._kernel = kernel(rule, formats)
        self.overflow_check = check_of(rule, formats)
        self._kind = formats.wide, formats.gradient
        self._coefficients = len(rule.coefficients)
        scale = scaling(rule, formats)
        self._wide = list(scale.positions.values()) if scale else []
        """list of int : Coefficients that the kernel also takes in the type of wider gradients."""
        self._key, self._random = operand.key, formats.random
        self._threads = threads
        self._sorted = SortedRows(threads)
        self.skipped = 0
        """int : The number of rows that were out of range, over all steps."""
        self._work = _workspace(0, 0, 0, np.dtype(formats.wide))

    def prepare(
        self,
        rows: HostArray,
        values: HostArray,
        duplicates: str,
        count: int | None,
        skip: bool,
        max_norm: float,
    ) -> Plan:
        """Check and sort the row numbers of a step; nothing is written yet.

        Parameters
        ----------
        rows : ndarray of int32 or int64, shape (n,)
        values : ndarray of the gradient's format, shape (n, *row shape)
        duplicates : {"sum", "mean"}
        count : int or None
            The number of rows in use, the first ones; None for all.
        skip : bool
            Leave out rows that are out of range.
        max_norm : float
            Limit of the norm of a row's gradient; infinity for none.

        Raises
        ------
        RowIndexError
            A row is out of range, and they are not to be skipped.
        """
        rows, values = rows[:count], values[:count]
        parts = calling.share(values.size, ALONE, self._threads)
        self._sorted.load(rows, len(self._arrays[0]), skip, parts)
        values = np.require(values, requirements=["C", "A"]).reshape(len(values), self._width)
        values.flags.writeable = False
        keys, arrays, copied = self._sorted.keys, self._arrays, None
        if not self._whole:
            keys, arrays, copied = self._copied_rows()
        # Whatever may fail, such as memory or compilation, does so before anything is written.
        hot = len(self._sorted.hot)
        if len(self._work.buffers) < parts or len(self._work.totals) < hot:
            self._reserve(parts, hot)
        if hot and values.shape[1]:
            self._sum_hot_rows(values, parts)
        found = self._sorted
        return Plan(
            keys, arrays, copied, values, duplicates == "mean", max_norm, parts,
            found.shift, found.hot, found.hot_threshold, found.out_of_range,
        )  # fmt: skip

    def _sum_hot_rows(self, values: HostArray, parts: int) -> None:
        """Merge the gradients of rows that occur often."""
        found = self._sorted
        block = values.shape[1] if parts == 1 else compile.LINE // values.itemsize
        calling.call(
            _hot_rows(*self._kind), parts, self._threads,
            found.keys, self._mask, found.hot, values, self._work.totals[: len(found.hot)], block,
            parts,
        )  # fmt: skip

    def _copied_rows(self) -> tuple[HostArray, list[HostArray], HostArray]:
        """The first three fields of `Plan` for arrays whose rows have gaps."""
        shift = np.uint64(self._sorted.shift)
        numbers = self._sorted.keys >> shift
        first = np.append(True, numbers[1:] != numbers[:-1])[: numbers.size]
        copied = numbers[first].astype(np.int64)
        places = (np.cumsum(first) - 1).astype(np.uint64)
        keys = (places << shift) | (self._sorted.keys & self._mask)
        return keys, [np.ascontiguousarray(array[copied]) for array in self._arrays], copied

    @property
    def _mask(self) -> np.uint64:
        """The bits of a position in a key."""
        return np.uint64((1 << self._sorted.shift) - 1)

    def partials(self, plan: Plan) -> int:
        """Return the length of each result of `squares`."""
        return -(-len(plan.values) // CHUNK)

    def squares(self, plan: Plan, numbers: HostArray, partial: HostArray, peaks: HostArray) -> None:
        """Write sums of squares and largest magnitudes of the merged and unscaled gradient.

        Sums are those before a limit on rows' norms, magnitudes those after it.
        """
        n, scale = len(plan.values), numbers[SCALE]
        squared, tops = np.zeros(n), np.zeros(n)
        make(self._bound(
            squares_kernel(*self._kind), plan, math.inf,
            (scale, plan.max_norm * scale, squared, tops),
        ))  # fmt: skip
        if n:
            sums = Squares("float64", FLOAT64, [n], squared=False, threads=self._threads)
            sums(np.array([address(squared)]), 1.0, partial)
            peaks[:] = np.maximum.reduceat(tops, np.arange(0, n, CHUNK))

    def _shaped(self, arrays: Sequence[HostArray]) -> list[HostArray]:
        """Arrays of rows as the kernel takes them."""
        count = len(arrays[0])
        return [
            array.reshape(count, *shape) for array, shape in zip(arrays, self._shapes, strict=True)
        ]

    def calls(self, plan: Plan, first: int, numbers: HostArray, *more: Any) -> list[Call]:
        """The calls that update.

        ``numbers[first]`` is the first coefficient; ``more`` are the kernel's own arguments.
        """
        updated = self._rows if plan.copied is None else self._shaped(plan.arrays)
        coefficients = numbers[first : first + self._coefficients].tolist()
        coefficients += [coefficients[k] for k in self._wide]
        random: list[Any] = []
        if self._random:
            # Random bits depend on a row's number in the whole table.
            origin = NOWHERE if plan.copied is None else plan.copied
            random = [self._key, numbers[first + self._coefficients], origin]
        max_norm = plan.max_norm * numbers[SCALE]
        calls = self._bound(
            self._kernel, plan, max_norm,
            (*updated, *coefficients, *random, *more),
        )  # fmt: skip
        if plan.copied is not None:
            parts = zip(self._arrays, plan.arrays, strict=True)
            calls += [(array.__setitem__, plan.copied, part) for array, part in parts]
        if plan.out_of_range:
            calls.append((setattr, self, "skipped", self.skipped + plan.out_of_range))
        return calls

    def _bound(
        self, kernel: Callable[..., None], plan: Plan, max_norm: float, arguments: Any
    ) -> list[Call]:
        """The call of a kernel for the rows of a plan, if there are any."""
        work, keys = self._work, plan.keys
        if self._width == 0 or keys.size == 0:
            return []
        totals = work.totals[: len(plan.hot)]
        return [calling.bound(
            kernel, plan.parts, self._threads,
            work.counter, max(16, keys.size // (PIECES * plan.parts)), keys,
            np.uint64(plan.shift), plan.hot, totals, plan.hot_threshold, plan.mean, max_norm,
            work.buffers[: plan.parts], work.merged[: plan.parts], work.partial, plan.values,
            arguments,
        )]  # fmt: skip

    def _reserve(self, parts: int, hot: int) -> None:
        """Make memory for as many threads and hot rows, if there is not enough."""
        had = len(self._work.buffers), len(self._work.totals)
        if had[0] < parts or had[1] < hot:
            room = max(had[0], parts), max(had[1], hot)
            self._work = _workspace(*room, self._width, np.dtype(self._kind[0]))


class _Workspace(NamedTuple):
    counter: HostArray
    buffers: HostArray
    """A row for each thread."""
    merged: HostArray
    """The same memory, read-only as gradients are."""
    totals: HostArray
    """A row for each hot row."""
    partial: HostArray


def _workspace(parts: int, hot: int, width: int, dtype: np.dtype) -> _Workspace:
    buffers = np.empty((parts, width), dtype)
    merged = buffers.view()
    merged.flags.writeable = False
    return _Workspace(
        np.empty(1, np.int64),
        buffers,
        merged,
        np.empty((hot, width), dtype),
        np.empty((parts, 2 * SUMS)),
    )
