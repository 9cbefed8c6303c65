"""The traversal of many arrays on the CPU: one launch, cut into spans that threads share.

What a kernel works on is a table of addresses: of parameters and states, written once, and of
gradients, new in every step. One array is a table of one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from llvmlite.binding import get_host_cpu_name

from ..numbers import SCALE
from ..rule import Rule
from ..spans import Spans
from . import module, squares, threads
from .headers import address
from .shared import SHARED, Shared

SPAN = 16384
"""Elements in a span: small enough to share evenly, large enough to cost nothing to list."""

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

_SPAN = """

@njit(**OPTIONS)
def span({given}):
    for i in range({first}.size):
        {stored} = {rule}({loaded})
"""

_STREAMED = """

@njit(**OPTIONS)
def streamed({given}):
    for start in range(0, {first}.size, {block}):
        for ahead in range(start + {ahead}, start + {ahead} + {block}, {line}):
{prefetched}
        stop = min(start + {block}, {first}.size)
        span({blocks})
"""

_WORK = """

@njit(**OPTIONS)
def work(first, last, spans, {arguments}):
    for s in range(first, last):
        a, start, size = spans[s, 0], spans[s, 1], spans[s, 2]
        if gradients[a] == 0:
            continue
        offset = start * {itemsize}
{views}
        at = firsts[a]
{coefficients}
        {inner}

"""

_BEYOND_CACHE = """if long:
            streamed({given})
        else:
            span({given})"""


def source(rule: Rule, dtype: np.dtype) -> str:
    """The generated Python module, as Numba compiles it."""
    names = [f"{name}_" for name in rule.program.arguments]
    updated = [f"{rule.parameter}_", *(f"{name}_" for name in rule.states)]
    coefficients = list(rule.coefficients)
    streamed, inner = (_STREAMED, _BEYOND_CACHE) if PREFETCHED else ("", "span({given})")
    text = _SPAN + streamed + _WORK.replace("{inner}", inner) + SHARED
    where = {name: f"addresses[a, {k}]" for k, name in enumerate(updated)}
    where[f"{rule.gradient}_"] = "gradients[a]"
    return module.header(rule, dtype, "many") + text.format(
        name="many",
        types="TABLE, LIST, LIST, NUMBERS, types.boolean",
        rule=rule.symbol,
        first=names[0],
        given=", ".join(names + coefficients),
        arguments="addresses, gradients, firsts, numbers, long",
        loaded=", ".join([f"{name}[i]" for name in names] + coefficients),
        stored=", ".join(f"{name}[i]" for name in updated),
        blocks=", ".join([f"{name}[start:stop]" for name in names] + coefficients),
        block=BLOCK,
        ahead=AHEAD // dtype.itemsize,
        line=module.LINE // dtype.itemsize,
        itemsize=dtype.itemsize,
        prefetched="\n".join(f"            prefetch({name}, ahead)" for name in names),
        views="\n".join(f"        {n} = memory(T, {where[n]} + offset, size)" for n in names),
        coefficients="\n".join(
            f"        {name} = T(numbers[at + {k}])" for k, name in enumerate(coefficients)
        ),
    )


@cache
def kernel(rule: Rule, dtype: np.dtype) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    compiled: Callable[..., None] = module.load(rule.name, source(rule, dtype)).many
    return compiled


class Many:
    """Updates arrays of one element type in place, all in one launch.

    Parameters
    ----------
    rule : Rule
    arrays : sequence of (parameter, *states)
        Contiguous arrays, not empty; of one element type.
    """

    def __init__(self, rule: Rule, arrays: Sequence[Sequence[np.ndarray]]) -> None:
        parameters = [parameter for parameter, *_ in arrays]
        dtype = parameters[0].dtype
        self._kernel = kernel(rule, dtype)
        self._arrays = arrays  # whose addresses these are
        self._addresses = np.array([[address(array) for array in of] for of in arrays], np.int64)
        sizes = [array.size for array in parameters]
        # Spans of the first array begin on cache lines, and of others that lie as it does:
        # a vector that crosses lines costs two accesses.
        before = [place % module.LINE // dtype.itemsize for place in self._addresses[:, 0].tolist()]
        spans = Spans(sizes, SPAN, before)
        self._run = Shared(spans)
        self._long = spans.total * dtype.itemsize > CACHED
        self._squares = squares.Squares(dtype, sizes)

    def __call__(self, gradients: np.ndarray, firsts: np.ndarray, numbers: np.ndarray) -> None:
        """Update.

        Parameters
        ----------
        gradients : ndarray of int64, shape (arrays,)
            Addresses of contiguous gradients; 0 where there is none.
        firsts : ndarray of int64, shape (arrays,)
            Where in ``numbers`` the coefficients of each array begin.
        numbers : ndarray of float64
            See `gpuadapt.kernels.numbers`.
        """
        self._run(self._kernel, self._addresses, gradients, firsts, numbers, self._long)

    def partials(self, gradients: np.ndarray) -> int:
        """How many numbers `squares` writes."""
        return self._squares.partials

    def squares(self, gradients: np.ndarray, numbers: np.ndarray, partial: np.ndarray) -> None:
        """Write sums of squares of the gradients, divided by the scale; see `squares.Squares`."""
        self._squares(gradients, numbers[SCALE], partial)


class Part:
    """Updates one part of an array after another, in one thread."""

    def __init__(self, rule: Rule, dtype: np.dtype) -> None:
        self._kernel = kernel(rule, dtype)
        self._span = np.zeros((1, 3), np.int64)
        self._unused = np.zeros(1, np.int64)

    def __call__(
        self, operands: Sequence[np.ndarray], firsts: np.ndarray, numbers: np.ndarray
    ) -> None:
        """Update (parameter, gradient, *states), contiguous and of one size."""
        self._span[0, 2] = operands[0].size
        parameter, gradient, *states = map(address, operands)
        threads.call(
            self._kernel,
            self._unused, 1, self._span, self._unused, np.array([[parameter, *states]]),
            np.array([gradient]), firsts, numbers, False,
        )  # fmt: skip
