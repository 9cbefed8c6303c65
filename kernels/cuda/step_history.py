"""What is remembered of the steps of a table's rows, on a GPU; as the CPU's `clock`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..catchup.plan import FAINT, OPEN, Missed, columns, remembered, turns
from ..formats import Formats
from ..language.rule import Rule
from ..numerics.scalar_layout import SKIP
from . import compile, generate

BLOCK = 256

_ADVANCE = r"""
// What is remembered of the step at hand: its numbers, and what the first part and the bend of
// motions are multiplied by; see the CPU's StepHistory.advance.
struct taken {
    const double *given, *history;
    long long size, before, scale, width;

    // A number of the step, and of the one before.
    __device__ double now(long long c) const { return given[c]; }
    __device__ double old(long long c) const { return history[c * size + before]; }

    __device__ double ratio() const {
        return now(scale) / old(scale) * old(scale - 2);
    }
    __device__ double bend() const {
        const bool none = now(scale + 1) == 0 && old(scale + 1) == 0;
        return none ? 1 : now(scale + 1) / old(scale + 1) * old(scale - 1);
    }
    // Whether it goes on from the one before, if there was one.
    __device__ bool goes_on(bool first) const {
        const double kind = now(scale + 2), size = now(scale) < 0 ? -now(scale) : now(scale);
        const double most = 1.7976931348623157e308;
        if (!(size >= %(faint)s) || kind != (first ? kind : old(scale + 2))) {
            return false;
        }
        return first || (ratio() >= 0 && ratio() <= most && bend() >= 1 && bend() <= most);
    }
};

}  // namespace gpuadapt

// Each thread has one of the steps that are remembered; that of the new one writes it down.
extern "C" __global__ void gpuadapt_advance(
    const double *__restrict__ numbers, long long first, long long rule, long long fades,
    long long scale, long long width, long long ring, long long start,
    const long long *__restrict__ now, double *history, double *fading, long long *ends
) {
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x, size = ring + 1;
    if (numbers[%(skip)d] != 0 || k > ring) {
        return;
    }
    const long long here = (*now + 1) & ring;
    // The step's number lies between.
    const gpuadapt::taken step = {numbers + first + 1, history, size, *now & ring, scale, width};
    if (k == here) {
        for (long long c = 0; c < rule; ++c) {
            history[c * size + here] = numbers[first + c];
        }
    }
    if (width == rule) {
        return;
    }
    const bool first_step = *now == start, goes_on = step.goes_on(first_step);
    const double ratio = first_step ? 1 : step.ratio(), bend = first_step ? 1 : step.bend();
    const long long states = scale - 2 - fades;
    if (k == here) {
        for (long long c = rule; c < width; ++c) {
            history[c * size + here] = step.now(c);
        }
        history[width * size + here] = ratio;
        history[(width + 1) * size + here] = bend;
        for (long long c = 0; c < states + 2; ++c) {
            fading[c * size + k] = 1;
        }
        ends[k] = %(open)dLL;
    } else if (!goes_on && ends[k] == %(open)dLL) {
        ends[k] = *now;
    } else if (goes_on && ends[k] == %(open)dLL) {
        for (long long c = 0; c < states; ++c) {
            fading[c * size + k] *= step.now(fades + c);
        }
        fading[states * size + k] *= ratio;
        fading[(states + 1) * size + k] += fading[states * size + k];
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
    return generate.PREAMBLE + _ADVANCE % {"skip": SKIP, "open": OPEN, "faint": repr(FAINT)}


def count_source() -> str:
    """The kernel that counts it."""
    return generate.PREAMBLE + _COUNT % {"skip": SKIP}


@cache
def advance_kernel() -> Callable[..., None]:
    """The compiled kernel of `advance_source`."""
    return compile.built(advance_source(), "gpuadapt_advance")


@cache
def count_kernel() -> Callable[..., None]:
    """As `advance_kernel`, of `count_source`."""
    return compile.built(count_source(), "gpuadapt_count")


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
    return compile.built(due_source(), "gpuadapt_due")


class StepHistory:
    """Which steps the rows of a table have had, and what they were; see the CPU's."""

    def __init__(
        self, rule: Rule, formats: Formats, followed: Missed | None, rows: int, updates: int
    ) -> None:
        import cupy

        self.rule, self.followed = rule, followed
        self._columns = columns(rule, followed)
        self.size, states = remembered(rows), len(rule.states)
        self.last = cupy.full(rows, updates, np.int32)
        # Beside the numbers of a step there is what motions are multiplied by; see the CPU's paces.
        self.history = cupy.zeros((self._columns.width + 2, self.size), np.float64)
        self.fading = cupy.full((states + 2 if followed else 1, self.size), 1.0, np.float64)
        self.ends = cupy.full(self.size, OPEN, np.int64)
        self._start = updates
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
            (numbers, *map(np.int64, (first, where.rule, where.fades, where.scale, where.width)),
             np.int64(self.size - 1), np.int64(self._start), self.now, self.history, self.fading,
             self.ends),
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
