"""The rows traversal on the GPU: the rows of a table that occur in a batch, each once.

Row numbers are checked and made into keys by one kernel, sorted by CuPy (with CUB's radix
sort), and updated by another: a few lanes, up to a warp, for each occurrence, of which those
of a row's first one work. How many rows there are the host does not know and does not ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..errors import RowIndexError, check_key
from ..numbers import SCALE, SKIP
from ..rule import Rule
from ..summation import SPAN, SUMS
from . import text
from .many import ACCESS
from .memory import layouts
from .row_text import FREQUENT, HELPERS, KEYS, MEAN_SQUARE, ROW_SQUARES, ROW_STATES, ROWS
from .squares import Squares
from .text import TYPES

BLOCK = 128
"""Threads of a block."""

WARP = 32
"""Most lanes that share a row."""

OFTEN = 128
"""A row that occurs twice as often is a frequent one, and has its sum taken by many threads."""


class Form(NamedTuple):
    """What a kernel is compiled for."""

    elements: int
    """Of one access: 16 bytes where every row begins on a multiple of them, else one."""
    lanes: int
    strided: bool
    """Whether rows have gaps, or lie in another order than C's."""


def form(width: int, elements: int, strided: bool) -> Form:
    """With as many lanes as a row has accesses, up to a warp."""
    accesses = -(-width // elements)
    return Form(elements, min(WARP, 1 << (accesses - 1).bit_length()), strided)


def keys_source(index: np.dtype) -> str:
    """The kernel that checks row numbers and makes keys of them."""
    return KEYS % {"index": TYPES[str(index)]}


def frequent_source(dtype: np.dtype) -> str:
    """The kernel that sums the gradients of frequent rows."""
    return text.PREAMBLE + helpers() + FREQUENT % {"type": TYPES[str(dtype)]}


def helpers() -> str:
    """What it shares with the kernels of rules."""
    return text.PLACE + HELPERS % {"sums": SUMS, "often": OFTEN}


def squares_source(dtype: np.dtype, of: Form) -> str:
    """The kernel that sums the squares of each row's gradient."""
    kinds = {"type": TYPES[str(dtype)], "elements": of.elements, "lanes": of.lanes, "scale": SCALE}
    return text.PREAMBLE + helpers() + ROW_SQUARES % kinds


def source(rule: Rule, dtype: np.dtype, of: Form | None = None) -> str:
    """The kernel of a rule as CuPy receives it; by default for wide rows without gaps."""
    elements, lanes, strided = of or Form(ACCESS // dtype.itemsize, WARP, False)
    ctype = TYPES[str(dtype)]
    gradient, coefficients = f"{rule.gradient}_", list(rule.coefficients)
    updated = [f"{name}_" for name in (rule.parameter, *rule.states)]
    by_row = [f"{name}_" for name in rule.row_states]
    wide = [name for name in updated if name not in by_row]
    where = {
        name: f"layout + 1 + {k} * layout[0]" if strided else "1LL" if name in by_row else "width"
        for k, name in enumerate(updated)
    }
    place = {name: f"{name}[place({where[name]}, row, {0 if name in by_row else 'j'})]"
             for name in updated}  # fmt: skip
    # Behind a name: p the pack of an array, o and n the old and the new number of a row.
    access = f"pack<{ctype}, N>"
    mean = ["mean_square"] * (rule.squared is not None)
    numbers = {name: f"{name}p.at[e]" for name in wide} | {name: f"{name}n" for name in by_row}
    called = [numbers[updated[0]], "gradients.at[e]", *(numbers[name] for name in updated[1:])]
    arguments = [f"const {ctype} *__restrict__ {gradient}"]
    arguments += [f"{ctype} *{name}" for name in updated]
    return (
        text.PREAMBLE
        + text.function(rule)
        + (text.function(rule.squared) if rule.squared else "")
        + "\n"
        + helpers()
        + ROWS
        % {
            "type": ctype,
            "name": f"gpuadapt_{rule.name}_rows",
            "rule": rule.symbol,
            "elements": elements,
            "lanes": lanes,
            "skip": SKIP,
            "scale": SCALE,
            "coefficients": text.coefficients(rule, "first", ctype),
            "gradient": gradient,
            "arguments": ", ".join(["const long long *layout"] * strided + arguments),
            "mean_square": _mean_square(rule, ctype, place[updated[0]]),
            "row_states": _lines(
                4, (f"number<{ctype}> {n}n, {n}o = here ? {place[n]} : 0;" for n in by_row)
            ),
            "load": _lines(
                8, (f"{access} {n}p = *reinterpret_cast<{access} *>(&{place[n]});" for n in wide)
            ),
            "old": _lines(12, (f"{n}n = {n}o;" for n in by_row)),
            "numbers": ", ".join([*called, *mean, *coefficients]),
            "store": _lines(
                8, (f"*reinterpret_cast<{access} *>(&{place[n]}) = {n}p;" for n in wide)
            ),
            "after": ROW_STATES % _lines(8, (f"{place[n]} = {n}n.value;" for n in by_row))
            if by_row
            else "",
        }
    )


def _mean_square(rule: Rule, ctype: str, parameter: str) -> str:
    """The lines that compute a row's mean of squares, if the rule has one."""
    if rule.squared is None:
        return ""
    x = "row_gradient.at<1>(j).at[0]"
    return MEAN_SQUARE % {
        "type": ctype,
        "parameter": parameter,
        "squared": rule.squared.symbol,
        "given": ", ".join(["x", x, *rule.squared_coefficients]),
    }


def _lines(indent: int, lines: Iterable[str]) -> str:
    return "\n".join(" " * indent + line for line in lines)


@cache
def kernel(rule: Rule, dtype: np.dtype, of: Form) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    return text.built(source(rule, dtype, of), f"gpuadapt_{rule.name}_rows")


@cache
def keys_kernel(index: np.dtype) -> Callable[..., None]:
    """As `kernel`, of `keys_source`."""
    return text.built(keys_source(index), "gpuadapt_keys")


@cache
def frequent_kernel(dtype: np.dtype) -> Callable[..., None]:
    """As `kernel`, of `frequent_source`."""
    return text.built(frequent_source(dtype), "gpuadapt_frequent")


@cache
def squares_kernel(dtype: np.dtype, of: Form) -> Callable[..., None]:
    """As `kernel`, of `squares_source`."""
    return text.built(squares_source(dtype, of), "gpuadapt_row_squares")


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

    def __init__(self, rule: Rule, parameter: Any, states: Sequence[Any]) -> None:
        import cupy

        self._rule = rule
        arrays = [array if array.ndim else array.reshape(1) for array in (parameter, *states)]
        self._arrays = arrays
        self._count, self._width = len(arrays[0]), math.prod(arrays[0].shape[1:])
        self._strided = not all(array.flags.c_contiguous for array in arrays)
        self._keys = cupy.empty(0, np.uint64)
        self._totals = cupy.empty(0, parameter.dtype)
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
        check_key(n, self._count + 1)
        shift = n.bit_length()
        if n > self._keys.size:
            self._keys = cupy.empty(n + n // 4, np.uint64)
        keys = self._keys[:n]
        if n:
            if not skip:
                self._wrong.fill(0)
            keys_kernel(rows.dtype)(
                (-(-n // BLOCK),),
                (BLOCK,),
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
        values = cupy.ascontiguousarray(values).reshape(n, self._width)
        sums = n // OFTEN * self._width
        if sums > self._totals.size:
            self._totals = cupy.empty(sums + sums // 4, values.dtype)
        totals = self._totals[:sums]
        if sums:
            frequent_kernel(values.dtype)(
                (-(-sums // BLOCK),),
                (BLOCK,),
                (keys, np.int64(n), np.int32(shift), np.int64(self._count),
                 np.int64(self._width), values, totals),
            )  # fmt: skip
        of = form(self._width, self._elements(values), self._strided)
        run = kernel(self._rule, values.dtype, of) if n and self._width else None
        return Plan(keys, shift, totals, values, duplicates == "mean", most, of, run)

    def _check(self, rows: Any) -> None:
        count, from_end = map(int, self._wrong.get())
        if count:
            at = rows.size - from_end
            raise RowIndexError.of(int(rows[at]), at, self._count)

    def partials(self, plan: Plan) -> int:
        """How many numbers `squares` writes."""
        return -(-len(plan.values) // SPAN)

    def squares(self, plan: Plan, numbers: Any, partial: Any) -> None:
        """Write sums of squares of the gradient, duplicates merged, divided by the scale."""
        import cupy

        n, width = plan.values.shape
        if n == 0:
            return
        if self._squared.size != n:
            self._squared = cupy.zeros(n, np.float64)
            self._squared_at = cupy.asarray(np.array([self._squared.data.ptr], np.uint64))
            self._sums = Squares(self._squared.dtype, [n], squared=False)
        if width:
            of = plan.of._replace(strided=False)
            squares_kernel(plan.values.dtype, of)(
                (-(-n * of.lanes // BLOCK),),
                (BLOCK,),
                (plan.keys, np.int64(n), np.int32(plan.shift), np.int64(self._count),
                 np.int64(width), plan.totals, np.int32(plan.mean), numbers, plan.values,
                 self._squared),
            )  # fmt: skip
        self._sums(self._squared_at, self._one, partial)

    def __call__(self, plan: Plan, first: int, numbers: Any) -> None:
        """Update; ``numbers[first]`` is the first coefficient."""
        if plan.run is None:
            return
        n, width = plan.values.shape
        parameter, *states = self._arrays
        plan.run(
            (-(-n * plan.of.lanes // BLOCK),),
            (BLOCK,),
            (plan.keys, np.int64(n), np.int32(plan.shift), np.int64(self._count),
             np.int64(width), plan.totals, np.int32(plan.mean), np.int32(plan.most < math.inf),
             np.float64(plan.most), self._skipped, np.int64(first), numbers, *self._layout,
             plan.values, parameter, *states),
        )  # fmt: skip

    def _elements(self, values: Any) -> int:
        """Of one access: 16 bytes where that is legal for every row of every array."""
        wide = [array for array in self._arrays if array.shape == self._arrays[0].shape]
        row = self._width * values.itemsize
        whole = not self._strided and row % ACCESS == 0
        legal = whole and all(array.data.ptr % ACCESS == 0 for array in (values, *wide))
        return ACCESS // values.itemsize if legal else 1
