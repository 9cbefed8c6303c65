"""What is drawn for a benchmark: numbers of arrays, rows of batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from ..arrays import namespace, numpy_dtype
from .timing import in_turn

LINE = 64
"""Bytes of a cache line."""


def normal(backend: str, seed: int, zeros: int = 0) -> Callable[..., Any]:
    """A function of (shape, dtype) that draws arrays of a normal distribution where they are to be.

    Of a hundred numbers so many are zero instead.

    With the same seed it draws the same numbers. One thread of the host would take longer for
    the arrays of a GPU than everything that is measured on them.
    """
    if backend == "cpu":
        random = np.random.default_rng(seed)

        def drawn(shape: Any, dtype: Any = "float32") -> np.ndarray:
            array: np.ndarray = random.standard_normal(shape, np.float32).astype(dtype, copy=False)
            if zeros:
                array[random.random(shape, np.float32) < zeros / 100] = 0
            return array

        return drawn
    xp, numbers = namespace(backend), itertools.count(seed << 16)

    def draw(shape: Any, dtype: Any = "float32") -> Any:
        array = xp.empty(shape, dtype)
        _normal_cuda()(np.int64(next(numbers)), np.int64(zeros), array)
        return array

    return draw


NORMAL_IN = "int64 array, int64 zeros"
NORMAL_CUDA = """
    unsigned long long z = ((unsigned long long)array << 40) + (unsigned long long)i + 1;
    z *= 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z ^= z >> 31;
    const double u = ((double)(z >> 32) + 1) / 4294967296.0;
    const double turn = (double)(z & 0xFFFFFFFFULL) / 4294967296.0;
    x = (T)(sqrt(-2 * log(u)) * cos(6.283185307179586 * turn));
    if ((long long)((z * 0x9E3779B97F4A7C15ULL >> 32) % 100) < zeros) {
        x = 0;
    }
"""
"""SplitMix64 of the array's number and the element's, then Box and Muller's transform."""


@cache
def _normal_cuda() -> Callable[..., None]:
    import cupy

    options = ("--fmad=false",)  # the same numbers whatever the compiler contracts
    kernel: Callable[..., None] = cupy.ElementwiseKernel(
        NORMAL_IN, "T x", NORMAL_CUDA, "gpuadapt_normal", options=options
    )
    return kernel


def placed(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a cache line, as torch's tensors do and NumPy's arrays do not.

    Rows of a table may then be whole lines; a row that is not costs one line more.
    """
    memory = np.empty(array.nbytes + LINE, np.uint8)
    copy = memory[-memory.ctypes.data % LINE :][: array.nbytes].view(array.dtype)
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy


def in_type(values: Any, element: str, backend: str = "cuda") -> Any:
    """Finite float32 numbers in another type, as a new array; of bfloat16 on a GPU the bits."""
    if not isinstance(values, np.ndarray):
        return as_bfloat16(values) if element == "bfloat16" else values.astype(element)
    few = values.astype(numpy_dtype(element, "cpu"))
    if backend == "cpu":
        return few
    return namespace(backend).asarray(few.view(np.uint16) if element == "bfloat16" else few)


def as_bfloat16(values: Any) -> Any:
    """Bits of finite float32 numbers on a GPU, rounded to bfloat16, to the nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


KINDS = ("Zipf-like", "uniform", "hot")
"""How often rows of a table occur: the k-th most frequent row 1 / k as often as the first; all
alike; half of them one row, the others uniform."""

BATCHES = 8
"""Batches drawn beforehand and taken in turn: with one the rows would stay in the cache."""


def rows(count: int, batch: int, kind: str, random: np.random.Generator) -> np.ndarray:
    """The row of each of a batch's gradient rows, int64, with duplicates, of ``count`` rows."""
    numbers = random.integers(0, count, batch)
    if kind == "hot":
        numbers[random.random(batch) < 0.5] = count // 3
    elif kind == "Zipf-like":
        # The distribution function of 1 / rank is nearly a logarithm.
        rank = (count ** random.random(batch)).astype(np.int64) - 1
        numbers = _places(count)[rank]
    return numbers


@lru_cache(maxsize=1)
def _places(count: int) -> np.ndarray:
    """Where in a table its most frequent rows lie, the same for every batch."""
    return np.random.default_rng(1).permutation(count)


def over_batches(step: Callable[[int], Any]) -> Callable[[], Any]:
    """Steps by one batch after the other, a call each."""
    return in_turn([partial(step, k) for k in range(BATCHES)])
