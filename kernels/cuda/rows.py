"""The update of rows of a table on the GPU; each row that occurs in a batch is updated once.

Launches of a step, with n keys of a batch (a key is row << shift | position):

1. ``row_keys.cuh``: check row numbers and make keys, a thread for each.
2. CuPy sorts the keys (CUB's radix sort, which takes a pass for every 8 bits of their type).
3. ``hot_rows.cuh``, if n > HOT: sum gradients of hot rows, a thread for each element.
4. ``row_squares.cuh``, if gradients are measured: `lanes` threads for each key.
5. ``rows.cuh``: update, `lanes` threads for each key. Those of a row's first key work, so the host
   need not know how many rows there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..array_types import DeviceArray
from ..catchup.plan import CatchUpPlan
from ..commit import Call
from ..errors import RowIndexError, check_key
from ..formats import FLOAT64, Format, Formats, Operand
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.overflow import check_of
from ..numerics.summation import CHUNK, SUMS
from . import compile, generate, scalars, tuning
from .generate import TYPES, RowUpdate, Run
from .memory import layouts
from .multi_tensor import ACCESS
from .scalars import StepNumbers
from .squares import Squares

THREADS = 128
"""Threads of a block, but of the kernel that updates: see `tuning`."""

WARP = 32
"""Threads of a warp: the largest number of lanes that share a row."""

HOT = 128
"""A row with 2 * HOT occurrences or more is hot: a kernel of its own sums its gradients."""

NARROW = 32
"""Bits of the narrower keys."""

EXACT_ARGUMENTS = (
    "long long *last_step",
    "const double *__restrict__ history",
    "const double *__restrict__ moments",
    "const long long *__restrict__ ends",
    "long long mask",
    "const long long *__restrict__ step_count",
    "int mode",
)
"""Arguments of a kernel of exact rows; see ``exact_rows.cuh``."""


class LaunchConfig(NamedTuple):
    """What a kernel of rows is compiled for."""

    elements: int
    """Elements of one access: 16 bytes of the largest elements if every row begins on a multiple of
    them, else 1."""
    lanes: int
    """Threads for each key, a power of two up to `WARP`."""
    strided: bool
    """Rows have gaps, or another order than C's."""
    clipped: bool = False
    """The norm of each row's gradient is limited."""
    key: str = "uint64"
    """The type of keys; "uint32" where they have no more bits: a radix sort takes half as long."""


def launch_config(width: int, elements: int, strided: bool) -> LaunchConfig:
    """Choose as many lanes as a row has accesses, up to a warp.

    Parameters
    ----------
    width, elements : int
        Elements of a row and of one access.
    strided : bool
        Rows have gaps.
    """
    accesses = -(-width // elements)
    return LaunchConfig(elements, min(WARP, 1 << (accesses - 1).bit_length()), strided)


def key_type(n: int, count: int) -> str:
    """Choose the type of keys for n row numbers of a table of ``count`` rows."""
    return "uint32" if n.bit_length() + (count + 1).bit_length() <= NARROW else "uint64"


def keys_source(index: np.dtype, key: str = "uint64") -> str:
    """Write the kernel of ``row_keys.cuh`` for types of row numbers and keys."""
    return compile.link({"index": TYPES[str(index)], "key": TYPES[key]}, "", "row_keys.cuh")


def hot_rows_source(compute: str, format: Format, key: str = "uint64") -> str:
    """Write the kernel of ``hot_rows.cuh`` for gradients of a format, merged in a type."""
    macros = _macros(compute, format) | {"clipped": 0, "key": TYPES[key]}
    return compile.link(macros, generate.gradient(compute, format), "hot_rows.cuh")


def squares_source(compute: str, format: Format, config: LaunchConfig) -> str:
    """Write the kernel of ``row_squares.cuh``; as `hot_rows_source`."""
    macros = _macros(compute, format) | scalars.GRADIENT_MACROS | _shape(config)
    return compile.link(macros, generate.gradient(compute, format), "row_squares.cuh")


def _macros(compute: str, format: Format) -> dict[str, object]:
    return {"hot": HOT, "sums": SUMS, **generate.gradient_macros(compute, format)}


def _shape(config: LaunchConfig) -> dict[str, object]:
    return {
        "elements": config.elements,
        "lanes": config.lanes,
        "clipped": int(config.clipped),
        "key": TYPES[config.key],
    }


def source(
    rule: Rule,
    formats: Formats,
    config: LaunchConfig | None = None,
    exact: bool = False,
    catch_up: CatchUpPlan | None = None,
) -> str:
    """Write the kernel of ``rows.cuh``.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    config : LaunchConfig, optional
        For wide rows without gaps by default.
    exact : bool
        Rows take the steps that they have skipped.
    catch_up : CatchUpPlan, optional
        The closed form of skipped steps; they are replayed by default.
    """
    config = config or LaunchConfig(ACCESS // formats.itemsizes[1], WARP, False)
    run = Run(rule, formats)
    update = RowUpdate(run, config.strided)
    arguments = ["const GA_GRADIENT *__restrict__ values", *update.arguments()]
    parameter = update.names[0]
    macros = {
        "name": f"gpuadapt_{rule.name}_rows",
        **scalars.UPDATE_MACROS,
        "coefficients": len(rule.coefficients),
        **run.macros(),
        "mean_square": int(rule.squared is not None),
        "row_states": int(bool(rule.row_states)),
        "parameter": parameter,
        **_macros(formats.wide, formats.gradient),
        **_shape(config),
    }
    if exact:
        arguments += [*EXACT_ARGUMENTS, f"{update.types[parameter]} *out"]
        macros["exact"] = 1
    macros["arguments"] = ", ".join(arguments)
    macros["arrays"] = ", ".join(
        re.findall(r"\w+$", argument)[0] for argument in update.arguments()
    )
    squared = generate.function(rule.squared, formats) if rule.squared else ""
    generated = (
        run.head
        + generate.namespace(squared)
        + generate.merged_gradient(formats.compute, formats.gradient, formats.wide)
        + '#include "layout.cuh"\n'
        + generate.namespace(update.struct())
    )
    if exact:
        generated += '#include "exact_rows.cuh"\n'
    if catch_up:
        closed_form = generate.ClosedForm(rule, catch_up)
        macros |= closed_form.macros()
        generated += f'{closed_form.text()}#include "closed_form.cuh"\n'
    elif exact:
        generated += '#include "replay.cuh"\n'
    return compile.link(macros, generated, "rows.cuh")


@cached_with_rule
def kernel(rule: Rule, formats: Formats, config: LaunchConfig) -> Callable[..., None]:
    """Compile the kernel of `source`."""
    return compile.built(source(rule, formats, config), f"gpuadapt_{rule.name}_rows")


@cache
def keys_kernel(index: np.dtype, key: str) -> Callable[..., None]:
    """Compile the kernel of `keys_source`."""
    return compile.built(keys_source(index, key), "gpuadapt_keys")


@cache
def hot_rows_kernel(compute: str, format: Format, key: str) -> Callable[..., None]:
    """Compile the kernel of `hot_rows_source`."""
    return compile.built(hot_rows_source(compute, format, key), "gpuadapt_hot_rows")


@cache
def squares_kernel(compute: str, format: Format, config: LaunchConfig) -> Callable[..., None]:
    """Compile the kernel of `squares_source`."""
    return compile.built(squares_source(compute, format, config), "gpuadapt_row_squares")


def check_threads(n: int) -> None:
    """Raise `RowIndexError` if a launch for n rows has more blocks than CUDA launches at once.

    CuPy would launch as many as a number of 32 bits says.
    """
    if n * WARP // THREADS >= 2**31:
        raise RowIndexError(f"{n:,} rows are too many for one launch: split them into two RowGrad")


class RowPlan(NamedTuple):
    """The arguments of one launch, made by `Rows.prepare`."""

    keys: DeviceArray
    """The type of `key_type`, shape (n,): sorted; row << shift | position."""
    shift: int
    hot_sums: DeviceArray
    """The type of merged gradients, shape (n // HOT * width,)."""
    values: DeviceArray
    """The type of gradients, shape (n, width)."""
    mean: bool
    max_norm: float
    config: LaunchConfig
    kernel: Callable[..., None] | None
    """None if there is nothing to launch."""


class Rows:
    """Updates rows of one table, in place; buffers are kept between steps."""

    def __init__(self, rule: Rule, formats: Formats, operand: Operand) -> None:
        import cupy

        self._rule, self._formats = rule, formats
        self._threads = tuning.launch(tuning.ROWS).threads
        self.overflow_check = check_of(rule, formats)
        self._key = [np.int64(operand.key)] * formats.random
        arrays: list[DeviceArray] = [
            array if array.ndim else array.reshape(1) for array in operand.arrays
        ]
        self._arrays = arrays
        self._count, self._width = len(arrays[0]), math.prod(arrays[0].shape[1:])
        self._strided = not all(array.flags.c_contiguous for array in arrays)
        self._keys = cupy.empty(0, np.uint64)
        self._hot_sums = cupy.empty(0, np.dtype(formats.wide))
        self._out_of_range = cupy.zeros(2, np.uint64)
        self._skipped = cupy.zeros(1, np.uint64)
        self._unused = cupy.zeros(1, np.int64)
        self._layout = [cupy.asarray(layouts(arrays))] * self._strided
        self._squared = cupy.empty(0, np.float64)
        self._unscaled = scalars.numbers(())
        self._pool = cupy.cuda.MemoryPool()

    @property
    def skipped(self) -> int:
        """Number of keys so far that were out of range; waits for the device."""
        self._skipped.device.synchronize()
        return int(self._skipped.get()[0])

    def prepare(
        self,
        rows: DeviceArray,
        values: DeviceArray,
        duplicates: str,
        count: DeviceArray | None,
        skip: bool,
        max_norm: float,
    ) -> RowPlan:
        """Check and sort the row numbers of a step; write nothing of the table yet.

        Parameters
        ----------
        rows : CuPy array of int32 or int64, shape (n,)
        values : CuPy array of the gradient's format, shape (n, *row shape)
        duplicates : {"sum", "mean"}
        count : CuPy array of int64, shape (1,), optional
            Number of row numbers that are in use, from the first on; all by default.
        skip : bool
            Leave out rows that are out of range; otherwise this waits for the GPU.
        max_norm : float
            Largest norm of a row's gradient, or infinity.

        Raises
        ------
        RowIndexError
            A row is out of range, and ``skip`` is False.
        """
        import cupy

        n = rows.size
        keys, shift = self._sorted(rows, count, skip)
        values = cupy.ascontiguousarray(values).reshape(n, self._width)
        sums = n // HOT * self._width
        if sums > self._hot_sums.size:
            self._hot_sums = cupy.empty(sums + sums // 4, np.dtype(self._formats.wide))
        hot_sums = self._hot_sums[:sums]
        if sums:
            key = str(keys.dtype)
            compile.ready(hot_rows_kernel(self._formats.wide, self._formats.gradient, key))(
                (-(-sums // THREADS),),
                (THREADS,),
                (keys, np.int64(n), np.int32(shift), np.int64(self._count),
                 np.int64(self._width), values, hot_sums),
            )  # fmt: skip
        config = self._config(values)._replace(clipped=max_norm < math.inf, key=str(keys.dtype))
        compiled = compile.ready(self._compiled(config)) if n and self._width else None
        mean = duplicates == "mean"
        return RowPlan(keys, shift, hot_sums, values, mean, max_norm, config, compiled)

    def _sorted(
        self, rows: DeviceArray, count: DeviceArray | None, skip: bool
    ) -> tuple[DeviceArray, int]:
        """Return sorted keys, rows out of range last, and the number of bits of a position."""
        import cupy

        n = rows.size
        check_key(n, self._count + 1)
        check_threads(n)
        shift = n.bit_length()
        if n > self._keys.size:
            self._keys = cupy.empty(n + n // 4, np.uint64)
        key = self._key_type(n)
        keys = self._keys.view(key)[:n]
        if n:
            if not skip:
                self._out_of_range.fill(0)
            compile.ready(keys_kernel(rows.dtype, key))(
                (-(-n // THREADS),),
                (THREADS,),
                (rows, np.int64(rows.strides[0] // rows.itemsize), np.int64(n),
                 self._unused if count is None else count, np.int32(count is not None),
                 np.int64(self._count), np.int32(shift), keys, self._out_of_range),
            )  # fmt: skip
            if not skip:
                self._check(rows)
            # The sort's own memory comes from a pool of this object, since a captured step keeps
            # using it.
            with cupy.cuda.using_allocator(self._pool.malloc):
                keys.sort()
        return keys, shift

    def _key_type(self, n: int) -> str:
        return key_type(n, self._count)

    def _config(self, values: DeviceArray) -> LaunchConfig:
        config = launch_config(self._width, self._elements(values), self._strided)
        return config._replace(lanes=WARP) if self._formats.block else config

    def _compiled(self, config: LaunchConfig) -> Callable[..., None]:
        return kernel(self._rule, self._formats, config)

    def _check(self, rows: Any) -> None:
        count, from_end = map(int, self._out_of_range.get())
        if count:
            at = rows.size - from_end
            raise RowIndexError.of(int(rows[at]), at, self._count)

    def partials(self, plan: RowPlan) -> int:
        """Return the length of each output of `squares`."""
        return -(-len(plan.values) // CHUNK)

    def squares(
        self, plan: RowPlan, numbers: StepNumbers, partial: DeviceArray, peaks: DeviceArray
    ) -> None:
        """Measure the gradient: duplicates merged, divided by the scale.

        Parameters
        ----------
        plan : RowPlan
        numbers : StepNumbers
            See `gpuadapt.kernels.numerics.scalar_layout`.
        partial, peaks : CuPy array of float64, shape (partials(plan),)
            Outputs: partial sums of squares; largest magnitudes after clipping to ``max_norm``.
        """
        import cupy

        n, width = plan.values.shape
        if n == 0:
            return
        if self._squared.size != 2 * n:
            squared = cupy.zeros(2 * n, np.float64)
            start = squared.data.ptr
            addresses = np.array([start, start + n * squared.itemsize], np.uint64)
            placed, sums = cupy.asarray(addresses), Squares("float64", FLOAT64, [n], squared=False)
            self._squared, self._squared_addresses, self._sums = squared, placed, sums
        if width:
            config = plan.config._replace(strided=False)
            compile.ready(squares_kernel(self._formats.wide, self._formats.gradient, config))(
                (-(-n * config.lanes // THREADS),),
                (THREADS,),
                (plan.keys, np.int64(n), np.int32(plan.shift), np.int64(self._count),
                 np.int64(width), plan.hot_sums, np.int32(plan.mean), np.float64(plan.max_norm),
                 *numbers.of_gradient(), plan.values, self._squared),
            )  # fmt: skip
        self._sums(self._squared_addresses, self._unscaled, partial, peaks)

    def calls(self, plan: RowPlan, offset: int, numbers: StepNumbers, *catch_up: Any) -> list[Call]:
        """The launch that updates, as a call, if there are rows.

        ``numbers[offset]`` is the first coefficient; ``catch_up`` are arguments of exact rows.
        """
        if plan.kernel is None:
            return []
        n, width = plan.keys.size, self._width
        grid, block = (-(-n * plan.config.lanes // self._threads),), (self._threads,)
        arguments = (
            plan.keys, np.int64(n), np.int32(plan.shift), np.int64(self._count),
            np.int64(width), plan.hot_sums, np.int32(plan.mean), np.float64(plan.max_norm),
            self._skipped, np.int64(offset), *numbers.of_update(not catch_up), plan.values,
            *self._layout, *self._arrays, *self._key, *catch_up,
        )  # fmt: skip
        return [(plan.kernel, grid, block, arguments)]

    def _elements(self, values: DeviceArray) -> int:
        """Return the elements of one access, see `LaunchConfig`."""
        if self._strided:
            return 1
        formats = self._formats
        elements = generate.NEIGHBOURS if formats.block else ACCESS // formats.itemsizes[1]
        by_element = [array for array in self._arrays if array.shape == self._arrays[0].shape]
        aligned = all(array.data.ptr % ACCESS == 0 for array in (values, *by_element))
        return elements if aligned and self._width % elements == 0 else 1
