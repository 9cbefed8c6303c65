"""The rows traversal on the GPU: the rows of a table that occur in a batch, each once.

Row numbers are checked and made into keys by one kernel, sorted by CuPy (with CUB's radix
sort), and updated by another: a few lanes, up to a warp, for each occurrence, of which those
of a row's first one work. How many rows there are the host does not know and does not ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..errors import RowIndexError, check_key
from ..formats import FLOAT64, Format, Formats, Operand
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.overflow import kind
from ..numerics.scalar_layout import SCALE
from ..numerics.summation import SPAN
from . import compile
from .memory import layouts
from .multi_tensor import ACCESS
from .row_source import (
    OFTEN,
    WARP,
    Form,
    form,
    frequent_source,
    keys_source,
    source,
    squares_source,
)
from .squares import Squares

THREADS = 128
"""Of a block."""


@cached_with_rule
def kernel(rule: Rule, formats: Formats, of: Form) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    return compile.built(source(rule, formats, of), f"gpuadapt_{rule.name}_rows")


@cache
def keys_kernel(index: np.dtype) -> Callable[..., None]:
    """As `kernel`, of `keys_source`."""
    return compile.built(keys_source(index), "gpuadapt_keys")


@cache
def frequent_kernel(compute: str, form: Format) -> Callable[..., None]:
    """As `kernel`, of `frequent_source`."""
    return compile.built(frequent_source(compute, form), "gpuadapt_frequent")


@cache
def squares_kernel(compute: str, form: Format, of: Form) -> Callable[..., None]:
    """As `kernel`, of `squares_source`."""
    return compile.built(squares_source(compute, form, of), "gpuadapt_row_squares")


class Plan(NamedTuple):
    """What `Rows.prepare` leaves for one call of the update."""

    keys: Any
    shift: int
    totals: Any
    """The sums of frequent rows."""
    values: Any
    mean: bool
    most: float
    of: Form
    run: Callable[..., None] | None
    """The kernel, compiled; None if there is nothing to do."""


class Rows:
    """Updates rows of one table, in place; keeps between steps what it needs for one."""

    def __init__(self, rule: Rule, formats: Formats, operand: Operand) -> None:
        import cupy

        self._rule, self._formats = rule, formats
        self.kind = kind(rule, formats)
        self._key = [np.int64(operand.key)] * formats.random
        arrays = [array if array.ndim else array.reshape(1) for array in operand.arrays]
        self._arrays = arrays
        self._count, self._width = len(arrays[0]), math.prod(arrays[0].shape[1:])
        self._strided = not all(array.flags.c_contiguous for array in arrays)
        self._keys = cupy.empty(0, np.uint64)
        self._totals = cupy.empty(0, np.dtype(formats.wide))
        self._wrong = cupy.zeros(2, np.uint64)
        self._skipped = cupy.zeros(1, np.uint64)
        self._unused = cupy.zeros(1, np.int64)
        self._layout = [cupy.asarray(layouts(arrays))] * self._strided
        self._squared = cupy.empty(0, np.float64)
        self._one = cupy.asarray(np.ones(SCALE + 1))
        """Numbers that scale nothing."""
        self._pool = cupy.cuda.MemoryPool()

    @property
    def skipped(self) -> int:
        """Rows that were out of range and left out, so far; waits for the GPU."""
        return int(self._skipped.get()[0])

    def prepare(
        self, rows: Any, values: Any, duplicates: str, count: Any, skip: bool, most: float
    ) -> Plan:
        """Check and sort the row numbers of a step; nothing of the table is written yet.

        Parameters are those of the CPU's, ``count`` an int64 on the device. It waits for the GPU
        only if wrong rows are not to be skipped.

        Raises
        ------
        RowIndexError
            A row is out of range, and they are not to be skipped.
        """
        import cupy

        n = rows.size
        keys, shift = self._sorted(rows, count, skip)
        values = cupy.ascontiguousarray(values).reshape(n, self._width)
        kind = self._formats.wide, self._formats.gradient
        sums = n // OFTEN * self._width
        if sums > self._totals.size:
            self._totals = cupy.empty(sums + sums // 4, np.dtype(self._formats.wide))
        totals = self._totals[:sums]
        if sums:
            frequent_kernel(*kind)(
                (-(-sums // THREADS),),
                (THREADS,),
                (keys, np.int64(n), np.int32(shift), np.int64(self._count),
                 np.int64(self._width), values, totals),
            )  # fmt: skip
        of = self._form(values)
        run = self._compiled(of) if n and self._width else None
        return Plan(keys, shift, totals, values, duplicates == "mean", most, of, run)

    def _sorted(self, rows: Any, count: Any, skip: bool) -> tuple[Any, int]:
        """Keys of rows, those out of range last, and the bits of a position."""
        import cupy

        n = rows.size
        check_key(n, self._count + 1)
        shift = n.bit_length()
        if n > self._keys.size:
            self._keys = cupy.empty(n + n // 4, np.uint64)
        keys = self._keys[:n]
        if n:
            if not skip:
                self._wrong.fill(0)
            keys_kernel(rows.dtype)(
                (-(-n // THREADS),),
                (THREADS,),
                (rows, np.int64(rows.strides[0] // rows.itemsize), np.int64(n),
                 self._unused if count is None else count, np.int32(count is not None),
                 np.int64(self._count), np.int32(shift), keys, self._wrong),
            )  # fmt: skip
            if not skip:
                self._check(rows)
            # What sorting needs for itself comes from a pool that nobody else uses: a captured
            # step goes on using that memory.
            with cupy.cuda.using_allocator(self._pool.malloc):
                keys.sort()
        return keys, shift

    def _form(self, values: Any) -> Form:
        of = form(self._width, self._elements(values), self._strided)
        return of._replace(lanes=WARP) if self._formats.block else of

    def _compiled(self, of: Form) -> Callable[..., None]:
        return kernel(self._rule, self._formats, of)

    def _check(self, rows: Any) -> None:
        count, from_end = map(int, self._wrong.get())
        if count:
            at = rows.size - from_end
            raise RowIndexError.of(int(rows[at]), at, self._count)

    def partials(self, plan: Plan) -> int:
        """How many numbers `squares` writes."""
        return -(-len(plan.values) // SPAN)

    def squares(self, plan: Plan, numbers: Any, partial: Any, peaks: Any) -> None:
        """Write sums of squares of the gradient, duplicates merged, divided by the scale.

        And largest magnitudes, of what a limit on rows' norms leaves, to ``peaks``.
        """
        import cupy

        n, width = plan.values.shape
        if n == 0:
            return
        if self._squared.size != 2 * n:
            self._squared = cupy.zeros(2 * n, np.float64)
            start = self._squared.data.ptr
            at = np.array([start, start + n * self._squared.itemsize], np.uint64)
            self._squared_at = cupy.asarray(at)
            self._sums = Squares("float64", FLOAT64, [n], squared=False)
        if width:
            of = plan.of._replace(strided=False)
            squares_kernel(self._formats.wide, self._formats.gradient, of)(
                (-(-n * of.lanes // THREADS),),
                (THREADS,),
                (plan.keys, np.int64(n), np.int32(plan.shift), np.int64(self._count),
                 np.int64(width), plan.totals, np.int32(plan.mean), np.int32(plan.most < math.inf),
                 np.float64(plan.most), numbers, plan.values, self._squared),
            )  # fmt: skip
        self._sums(self._squared_at, self._one, partial, peaks)

    def __call__(self, plan: Plan, first: int, numbers: Any) -> None:
        """Update; ``numbers[first]`` is the first coefficient."""
        self._launch(plan, first, numbers)

    def _launch(self, plan: Plan, first: int, numbers: Any, *more: Any) -> None:
        if plan.run is None:
            return
        n, width = plan.keys.size, self._width
        plan.run(
            (-(-n * plan.of.lanes // THREADS),),
            (THREADS,),
            (plan.keys, np.int64(n), np.int32(plan.shift), np.int64(self._count),
             np.int64(width), plan.totals, np.int32(plan.mean), np.int32(plan.most < math.inf),
             np.float64(plan.most), self._skipped, np.int64(first), numbers, *self._layout,
             plan.values, *self._arrays, *self._key, *more),
        )  # fmt: skip

    def _elements(self, values: Any) -> int:
        """Of one access: 16 bytes where that is legal for every row of every array."""
        if self._formats.block or self._strided:
            return 1
        elements = ACCESS // self._formats.itemsize
        wide = [array for array in self._arrays if array.shape == self._arrays[0].shape]
        whole = self._width % elements == 0
        legal = whole and all(array.data.ptr % ACCESS == 0 for array in (values, *wide))
        return elements if legal else 1
