"""The dense traversal on the CPU: one array, cut into spans that threads share."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite.binding import get_host_cpu_name

from ..rule import Rule
from . import module, threads

SPAN = 16384
"""Elements in a span: small enough to share evenly, large enough to cost nothing to list."""

ALONE = 3 * SPAN
"""Elements up to which one thread is faster: waking the others takes TBB about 10 us."""

PREFETCHED = platform.machine() in ("x86_64", "AMD64") and not get_host_cpu_name().startswith(
    "znver"
)
"""Whether to ask for memory ahead of its use.

Hardware follows each array by itself, but stops at the end of a page. Measured, float32 Adam
on two cores, speed with prefetching over without: on a Xeon 1.08x to 1.12x at 30M to 50M
elements, 1.14x at 10M; on an EPYC (Zen 4) 0.73x at 50M and 0.9x at 10M. Other Zens are taken
to be like it.
"""

CACHED = 2**24
"""Bytes of a parameter up to which nothing is prefetched: it costs more than it brings.

On that Xeon 1.0x at 1M elements, 0.7x at 65,536.
"""

BLOCK = 64
"""Elements between two rounds of prefetching."""

AHEAD = 4096
"""Bytes from what is worked on to what is prefetched; 2 kB to 8 kB are much the same."""

LINE = 64
"""Bytes of a cache line."""

_SPAN = """

@njit(**OPTIONS)
def span({arguments}):
    for i in range({first}.size):
        {stored} = {rule}({loaded})
"""

_STREAMED = """

@njit(**OPTIONS)
def streamed({arguments}):
    for start in range(0, {first}.size, {block}):
        for ahead in range(start + {ahead}, start + {ahead} + {block}, {line}):
{prefetched}
        stop = min(start + {block}, {first}.size)
        span({blocks})
"""

_DENSE = """

ARRAY = types.Array(types.{dtype}, 1, "C")
READONLY = types.Array(types.{dtype}, 1, "C", readonly=True)


@njit([types.void({types}, types.boolean)], parallel=True, cache=True, **OPTIONS)
def dense({arguments}, serial):
{rounded}
    n = {first}.size
    if serial or n <= {alone}:
        span({arguments})
    else:
        # Spans of the first array begin on cache lines, and of others that lie as it does:
        # a vector that crosses lines costs two accesses.
        before = np.intp({first}.ctypes.data % {linebytes}) // {itemsize}
        for k in prange((before + n + {span} - 1) // {span}):
            start = max(np.intp(k) * {span} - before, 0)
            stop = min((np.intp(k) + 1) * {span} - before, n)
            {inner}
"""

_BEYOND_CACHE = """if n <= {cached}:
                span({blocks})
            else:
                streamed({blocks})"""


def source(rule: Rule, dtype: np.dtype) -> str:
    """The generated Python module, as Numba compiles it."""
    names = [f"{name}_" for name in rule.program.arguments]
    written = [name for name in names if name != f"{rule.gradient}_"]
    coefficients = list(rule.coefficients)
    streamed, inner = (_STREAMED, _BEYOND_CACHE) if PREFETCHED else ("", "span({blocks})")
    text = _SPAN + streamed + _DENSE.replace("{inner}", inner)
    return module.header(rule, dtype, "dense") + text.format(
        rule=rule.symbol,
        dtype=dtype,
        span=SPAN,
        alone=ALONE,
        first=names[0],
        arguments=", ".join(names + coefficients),
        loaded=", ".join([f"{name}[i]" for name in names] + coefficients),
        stored=", ".join(f"{name}[i]" for name in written),
        blocks=", ".join([f"{name}[start:stop]" for name in names] + coefficients),
        cached=CACHED // dtype.itemsize,
        block=BLOCK,
        ahead=AHEAD // dtype.itemsize,
        line=LINE // dtype.itemsize,
        linebytes=LINE,
        itemsize=dtype.itemsize,
        prefetched="\n".join(f"            prefetch({name}, ahead)" for name in names),
        rounded="\n".join(f"    {name} = T({name})" for name in coefficients),
        types=", ".join(
            ["ARRAY", "READONLY"]
            + ["ARRAY"] * len(rule.states)
            + ["types.float64"] * len(coefficients)
        ),
    )


@cache
def kernel(rule: Rule, dtype: np.dtype) -> Callable[..., None]:
    """The compiled kernel: contiguous 1-D arrays, float64 coefficients, serial or not."""
    compiled: Callable[..., None] = module.load(rule.name, source(rule, dtype)).dense
    return compiled


def bind(
    rule: Rule, parameter: np.ndarray, states: Sequence[np.ndarray]
) -> Callable[[np.ndarray, Sequence[float]], None]:
    """A function of (gradient, coefficients) that updates these arrays in place."""
    compiled = kernel(rule, parameter.dtype)
    if parameter.flags.f_contiguous and not parameter.flags.c_contiguous:
        update = bind(rule, parameter.T, [state.T for state in states])
        return lambda gradient, coefficients: update(gradient.T, coefficients)

    def strided(gradient: np.ndarray, coefficients: Sequence[float]) -> None:
        # NumPy's iterator hands over contiguous spans: views where it can, else copies
        # of `buffersize` elements that it writes back.
        operands = [parameter, gradient, *states]
        flags: list[Any] = [["readwrite", "contig", "aligned"] for _ in operands]
        flags[1] = ["readonly", "contig", "aligned"]
        iterator = np.nditer(
            operands,
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=flags,
            buffersize=SPAN,
        )
        with iterator:
            for spans in iterator:
                threads.call(compiled, *spans, *coefficients)

    if not all(array.flags.carray for array in (parameter, *states)):
        return strided
    flat_parameter = parameter.reshape(-1)
    flat_states = tuple(state.reshape(-1) for state in states)

    def contiguous(gradient: np.ndarray, coefficients: Sequence[float]) -> None:
        flags = gradient.flags
        if flags.c_contiguous and flags.aligned:
            threads.call(
                compiled, flat_parameter, gradient.reshape(-1), *flat_states, *coefficients
            )
        else:
            strided(gradient, coefficients)

    return contiguous
