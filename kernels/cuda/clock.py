"""What is remembered of the steps of a table's rows, on a GPU; as the CPU's `clock`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..formats import Formats
from ..missed import Missed, columns, remembered, turns
from ..numbers import SKIP
from ..rule import Rule
from . import text

BLOCK = 256

_ADVANCE = r"""
// What is remembered of the step at hand, in a column; see the CPU's Clock.advance.
__device__ inline double taken(
    const double *given, long long c, long long fades, long long ratio,
    const double *history, long long size, long long before
) {
    double x = given[c];
    if (c >= fades && c < ratio) {
        float narrow;
        ieee::narrow(x, narrow);
        x = ieee::widen(narrow);
    }
    return c == ratio || c == ratio + 1 ? x / history[(c + 2) * size + before] : x;
}

}  // namespace gpuadapt

// Each thread has one of the steps that are remembered; that of the new one writes it down.
extern "C" __global__ void gpuadapt_advance(
    const double *__restrict__ numbers, long long first, long long rule, long long fades,
    long long ratio, long long count, long long ring,
    const long long *__restrict__ now, double *history, double *fading
) {
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x, size = ring + 1;
    if (numbers[%(skip)d] != 0 || k > ring) {
        return;
    }
    const long long here = (*now + 1) & ring, before = *now & ring;
    const double *given = numbers + first + 1;  // the step's number lies between
    if (k == here) {
        for (long long c = 0; c < rule; ++c) {
            history[c * size + here] = numbers[first + c];
        }
        for (long long c = rule; c < count; ++c) {
            history[c * size + here] = gpuadapt::taken(
                given, c, fades, ratio, history, size, before);
        }
        if (count > rule) {
            history[(ratio + 1) * size + here] =
                history[ratio * size + here] / history[(ratio + 1) * size + here];
        }
    }
    for (long long c = fades; count > rule && c <= ratio; ++c) {
        double *product = fading + (c - fades) * size + k;
        *product = k == here ? 1 : *product * gpuadapt::taken(
            given, c, fades, ratio, history, size, before);
        if (c == ratio) {
            double *most = product + size;
            const bool number = *product == *product && *most == *most;
            *most = !number ? *product + *most : *product > *most ? *product : *most;
            *most = k == here ? 1 : *most;
        }
    }
}
"""

_COUNT = r"""
}  // namespace gpuadapt

extern "C" __global__ void gpuadapt_count(const double *__restrict__ numbers, long long *now) {
    *now += numbers[%(skip)d] == 0;
}
"""


def advance_source() -> str:
    """The kernel that remembers a step, as CuPy receives it."""
    return text.PREAMBLE + _ADVANCE % {"skip": SKIP}


def count_source() -> str:
    """The kernel that counts it."""
    return text.PREAMBLE + _COUNT % {"skip": SKIP}


@cache
def advance_kernel() -> Callable[..., None]:
    """The compiled kernel of `advance_source`."""
    return text.built(advance_source(), "gpuadapt_advance")


@cache
def count_kernel() -> Callable[..., None]:
    """As `advance_kernel`, of `count_source`."""
    return text.built(count_source(), "gpuadapt_count")


_DUE = r"""
extern "C" __global__ void gpuadapt_due(
    const long long *__restrict__ now, long long turn, long long each, unsigned long long *keys
) {
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k < each) {
        keys[k] = *now % turn * each + k;
    }
}
"""
"""Keys of the rows that are to be brought up to date with a step; see `turns`."""


def due_source() -> str:
    """The kernel that makes keys of the rows that are due."""
    return _DUE


@cache
def due_kernel() -> Callable[..., None]:
    """As `advance_kernel`, of `due_source`."""
    return text.built(due_source(), "gpuadapt_due")


class Clock:
    """Which steps the rows of a table have had, and what they were; see the CPU's."""

    def __init__(
        self, rule: Rule, formats: Formats, followed: Missed | None, rows: int, updates: int
    ) -> None:
        import cupy

        self.rule, self.followed = rule, followed
        self._columns = columns(rule, followed)
        self.size, states = remembered(rows), len(rule.states)
        self.last = cupy.full(rows, updates, np.int32)
        self.history = cupy.zeros((self._columns.width, self.size), np.float64)
        self.fading = cupy.full((states + 2 if followed else 1, self.size), 1.0, np.float64)
        self.now = cupy.full(1, updates, np.int64)
        self._turn, self._each = turns(rows, self.size)
        self._due = cupy.zeros(self._each, np.uint64)
        self._kernels = advance_kernel(), count_kernel(), due_kernel()

    def advance(self, numbers: Any, first: int) -> None:
        """Remember a step, if it was taken; ``numbers[first]`` is its first coefficient."""
        where = self._columns
        advance, count, _ = self._kernels
        advance(
            (-(-self.size // BLOCK),),
            (BLOCK,),
            (numbers, *map(np.int64, (first, where.rule, where.fades, where.ratio, where.width)),
             np.int64(self.size - 1), self.now, self.history, self.fading),
        )  # fmt: skip
        count((1,), (1,), (numbers, self.now))

    def due(self) -> Any:
        """Keys of the rows that are to be brought up to date with this step, without positions."""
        *_, due = self._kernels
        due(
            (-(-self._each // BLOCK),),
            (BLOCK,),
            (self.now, np.int64(self._turn), np.int64(self._each), self._due),
        )
        return self._due
