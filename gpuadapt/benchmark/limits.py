"""The machine's own limit: the same arrays read and written, with next to no arithmetic."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from gpuadapt.kernels.cpu import threading_layer
from gpuadapt.kernels.language.program import Program
from gpuadapt.kernels.language.rule import Rule, from_program

from ..arrays import namespace
from ..optimizer import Optimizer
from . import traffic
from .draws import placed


def dense(backend: str, size: int, dtype: np.dtype, states: int) -> dict[str, Callable[[], Any]]:
    """What to time beside an update of ``size`` elements with that many states.

    "limit" runs a rule of additions through the same kernel; on a GPU "copy" is a
    device-to-device copy that moves the same bytes.
    """
    xp = namespace(backend)
    # Ones, not zeros: memory that nobody has written is one page, and stays in the cache.
    gradient = xp.ones(size, dtype)
    rule = additions(states)
    optimizer = Optimizer(rule, xp.ones(size, dtype))
    found: dict[str, Callable[[], Any]] = {"limit": lambda: optimizer.step(gradient)}
    if backend == "cuda":
        half = traffic.element(rule, dtype) * size // 2
        source, target = xp.ones(half, xp.uint8), xp.ones(half, xp.uint8)
        found["copy"] = lambda: xp.copyto(target, source)
    return found


@cache
def additions(states: int) -> Rule:
    """Return the rule that adds the gradient to the parameter and to each state."""
    names = [f"s{k}" for k in range(states)]
    results = tuple(ast.BinOp(ast.Name(name), ast.Add(), ast.Name("g")) for name in ("p", *names))
    program = Program(f"additions_{states}", "", ("p", "g", *names), "h", (), results, {})
    return from_program(program, flush=False)


def rows(
    backend: str, table: tuple[int, int], batches: Sequence[np.ndarray], states: int
) -> Callable[[int], Any]:
    """Add the rows of batch k to the table and to its states, sorted beforehand.

    Parameters
    ----------
    table : tuple of int
        Rows, width; float32.
    batches : sequence of ndarray of int64
        For each row of values the number of the row that it goes to.
    states : int
        Arrays of the table's shape beside it.

    Returns
    -------
    function of k
    """
    xp, width = namespace(backend), table[1]
    tables = xp.ones((1 + states, *table), np.float32)
    tables = placed(tables) if xp is np else tables
    plans = []
    for numbers in batches:
        touched, counts = np.unique(numbers, return_counts=True)
        ends = np.concatenate([[0], np.cumsum(counts)])
        order = np.argsort(numbers, kind="stable")
        plan = [xp.asarray(part) for part in (touched, ends, order)]
        values = xp.ones((numbers.size, width), np.float32)
        plans.append((*plan, placed(values) if xp is np else values))
    if backend == "cpu":
        add = _rows_cpu()
        return lambda k: add(*plans[k], tables)
    kernel = _rows_cuda()
    return lambda k: kernel(
        *plans[k], width, tables[0].size, 1 + states, tables, size=plans[k][0].size * width
    )


@cache
def _rows_cpu() -> Callable[..., None]:
    """A kernel of (touched, ends, order, values, tables)."""
    from numba import njit, prange

    from gpuadapt.kernels.cpu.intrinsics import prefetch

    threading_layer.prepare()
    ahead, line = 8, 16  # rows; elements of a cache line

    @njit(error_model="numpy")
    def add(row: Any, values: Any) -> None:
        for j in range(row.size):
            row[j] += values[j]

    @njit(error_model="numpy")
    def ask(array: Any, row: Any) -> None:
        for j in range(0, array.shape[1], line):
            prefetch(array[row], j)
        prefetch(array[row], array.shape[1] - 1)

    @njit(parallel=True, error_model="numpy")
    def kernel(touched: Any, ends: Any, order: Any, values: Any, tables: Any) -> None:
        for k in prange(touched.size):
            row = touched[k]
            later = np.intp(k) + ahead
            if later < touched.size:
                ask(values, order[ends[later]])
                for a in range(tables.shape[0]):
                    ask(tables[a], touched[later])
            for n in range(ends[k], ends[k + 1]):
                add(tables[0, row], values[order[n]])
            for a in range(1, tables.shape[0]):
                add(tables[a, row], tables[0, row])

    compiled: Callable[..., None] = kernel
    return compiled


ROWS_IN = (
    "raw int64 touched, raw int64 ends, raw int64 order, raw float32 values, "
    "int64 width, int64 stride, int64 count"
)
ROWS_CUDA = """
    const long long k = i / width, j = i % width, at = touched[k] * width + j;
    float sum = tables[at];
    for (long long n = ends[k]; n < ends[k + 1]; ++n) {
        sum += values[order[n] * width + j];
    }
    tables[at] = sum;
    for (long long a = 1; a < count; ++a) {
        tables[a * stride + at] += sum;
    }
"""
"""A thread for each number of the touched rows; the most frequent row takes the longest."""


@cache
def _rows_cuda() -> Callable[..., None]:
    import cupy

    kernel: Callable[..., None] = cupy.ElementwiseKernel(
        ROWS_IN, "raw float32 tables", ROWS_CUDA, "gpuadapt_rows_limit"
    )
    return kernel
