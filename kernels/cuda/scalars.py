"""The numbers of a step on a GPU, and what becomes of it: nobody waits for either.

The host writes the coefficients of steps to come into a ring; two kernels of one block each
choose those of the step at hand, by a count that the GPU keeps, and decide by the norm of the
gradients what clips them and whether anything is written at all. So a step that was captured in
a CUDA graph is right however often it is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..numerics.overflow import SQUARED, Measured, Verdict
from ..numerics.scalar_layout import FIRST, LARGEST_SCALE, SKIP
from ..numerics.summation import EXPONENT, LARGEST, MOST, NORMAL
from . import compile, generate
from .memory import Mirror, upload

ROWS = 1024
"""Steps that the ring has room for."""

BLOCK = 256

_BEGIN = r"""
}  // namespace gpuadapt

extern "C" __global__ void gpuadapt_begin(
    const double *__restrict__ ring, const long long *__restrict__ belongs, long long width,
    const float *__restrict__ scale, const long long *__restrict__ scales, long long scaled,
    double times, long long *steps, double *numbers, double *report
) {
    // What a replay that nobody has prepared finds belongs to another step: it is skipped.
    const long long step = *steps, row = step %% %(rows)d;
    const bool known = belongs[row] == step;
    for (long long k = threadIdx.x; k < width; k += %(block)d) {
        numbers[k] = k == %(skip)d ? !known : ring[row * width + k];
    }
    __syncthreads();
    for (long long k = threadIdx.x; k < scaled; k += %(block)d) {
        typedef gpuadapt::number<double> D;
        numbers[scales[k]] = (D(gpuadapt::ieee::widen(*scale)) * D(times)).value;
    }
    if (threadIdx.x == 0) {
        *steps = step + known;
        report[0] = 0;
        report[1] = 1;
        report[2] = !known;
    }
}
"""

_JUDGE = r"""
}  // namespace gpuadapt

// One number of each thread becomes one for all of them.
template <typename F>
__device__ inline double together(double *lanes, double own, F combine) {
    lanes[threadIdx.x] = own;
    for (int half = %(block)d / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            lanes[threadIdx.x] = combine(lanes[threadIdx.x], lanes[threadIdx.x + half]).value;
        }
    }
    __syncthreads();
    const double result = lanes[0];
    __syncthreads();
    return result;
}

extern "C" __global__ void gpuadapt_judge(
    const double *__restrict__ partial, long long count, double norm, int large, double most,
    double limit, long long same, long long squared, long long others, int skips,
    const long long *__restrict__ factors, long long clipped,
    float *loss_scale, int adapts, float growth, float backoff, float interval,
    float least, long long *steps, double *numbers, double *report
) {
    using namespace gpuadapt;
    typedef number<double> D;
    __shared__ double lanes[%(block)d];
    if (norm < 0) {  // not known yet; `summation.total` has the same lines
        D own = 0.0;
        for (long long k = threadIdx.x; k < count; k += %(block)d) {
            own = maximum(own, D(partial[k]));
        }
        D top = together(lanes, own.value, [](D a, D b) { return maximum(a, b); });
        union { double number; long long bits; } power;
        power.number = top.value;
        power.bits &= %(exponent)dLL;
        const D coarse = D(3 * %(most)s) * maximum(D(power.number), D(%(normal)s));
        const D fine = coarse * D(%(shrink)s) * D(2 * %(most)s);
        D upper = 0.0, lower = 0.0;
        for (long long k = threadIdx.x; k < count; k += %(block)d) {
            const D x = partial[k], cut = (x + coarse) - coarse;
            upper = upper + cut;
            lower = lower + (((x - cut) + fine) - fine);
        }
        D sum = together(lanes, upper.value, [](D a, D b) { return a + b; });
        sum = sum + D(together(lanes, lower.value, [](D a, D b) { return a + b; }));
        if (!(top < D(%(largest)s))) {
            sum = where(top != top, top, D(top.value * %(largest)s));
        }
        norm = ieee::root(sum.value);
    }
    const bool clips = !(norm <= most) && most - most == 0;  // an infinite limit is none
    const double factor = clips ? ieee::divide(most, norm) : 1.0;
    bool finite = norm - norm == 0 && large == 0;
    if (skips != 0) {  // `overflow.judged` has the same lines
        double own = 0;
        for (long long k = threadIdx.x; k < others; k += %(block)d) {
            const double peak = partial[count + k];
            const S seen = k < same ? minimum(S(D(factor)) * S(D(peak)), S(D(limit)))
                                    : S(minimum(D(factor) * D(peak), D(limit)));
            const bool too_large = k < squared ? seen >= S(%(squared)s) : seen - seen != S(0);
            own = too_large ? 1 : own;
        }
        finite &= together(lanes, own, [](D a, D b) { return maximum(a, b); }) == 0;
    }
    const bool skip = skips != 0 && !finite;
    if (numbers[%(skip)d] != 0) {
        return;
    }
    for (long long k = threadIdx.x; k < clipped; k += %(block)d) {
        numbers[factors[k]] = factor;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        *steps -= skip;
        numbers[%(skip)d] = skip;
        report[0] = norm;
        report[1] = factor;
        report[2] = skip;
        if (adapts != 0) {  // as LossScale
            typedef number<float> S;
            S scale = loss_scale[0], since = loss_scale[1];
            since = skip ? S(0) : since + S(1);
            loss_scale[2] = skip ? (S(loss_scale[2]) + S(1)).value : 0;
            if (skip) {
                scale = maximum(scale * S(backoff), S(least));
            } else if (since >= S(interval)) {
                scale = minimum(scale * S(growth), S(%(largest_scale)s));
                since = 0;
            }
            loss_scale[0] = scale.value;
            loss_scale[1] = since.value;
        }
    }
}
"""


def begin_source() -> str:
    """The kernel that chooses a step's numbers, as CuPy receives it."""
    return generate.PREAMBLE + _BEGIN % {"rows": ROWS, "block": BLOCK, "skip": SKIP}


def judge_source() -> str:
    """The kernel that decides, as CuPy receives it."""
    return generate.PREAMBLE + _JUDGE % {
        "block": BLOCK,
        "skip": SKIP,
        "exponent": EXPONENT,
        "most": float(MOST),
        "shrink": repr(2.0**-53),
        "largest": repr(LARGEST),
        "normal": repr(NORMAL),
        "largest_scale": repr(LARGEST_SCALE),
        "squared": repr(SQUARED),
    }


@cache
def begin_kernel() -> Callable[..., None]:
    """The compiled kernel of `begin_source`."""
    return compile.built(begin_source(), "gpuadapt_begin")


@cache
def judge_kernel() -> Callable[..., None]:
    """As `begin_kernel`, of `judge_source`."""
    return compile.built(judge_source(), "gpuadapt_judge")


def numbers(coefficients: Sequence[float]) -> Any:
    """Numbers of an update that nobody skips or scales, on the current device."""
    import cupy

    return cupy.asarray(np.array([0.0, 1.0, *coefficients]))


def capturing() -> bool:
    """Whether the current stream is being captured in a graph."""
    import cupy

    return bool(cupy.cuda.get_current_stream().is_capturing())


class Control:
    """Where a GPU keeps a step's numbers; made and used on the device it is for."""

    def __init__(self) -> None:
        import cupy

        self._device = cupy.cuda.Device()
        self._steps = cupy.zeros(1, np.int64)
        self._report = cupy.zeros(3, np.float64)
        self._partial = cupy.zeros(1, np.float64)
        self._unused = cupy.zeros(3, np.float32)
        self._scales, self._factors = Mirror(np.int64), Mirror(np.int64)
        self._resize(FIRST)

    def _resize(self, width: int) -> None:
        import cupy

        self.numbers = cupy.zeros(width, np.float64)
        self._ring = cupy.zeros((ROWS, width), np.float64)
        self._belongs = cupy.zeros(ROWS, np.int64)
        self._belongs.fill(-1)

    def restart(self, step: int) -> None:
        """Count on from so many steps, none of which has numbers yet."""
        self._steps.fill(step)
        self._belongs.fill(-1)

    def load(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        """Write the numbers of steps from ``step`` on into the ring."""
        made = np.array(rows)
        if made.shape[1] != self.numbers.size:
            self._resize(made.shape[1])
        start = 0
        while start < len(made):
            row = (step + start) % ROWS
            count = min(len(made) - start, ROWS - row)
            upload(self._ring[row : row + count], made[start : start + count])
            upload(
                self._belongs[row : row + count],
                np.arange(step + start, step + start + count, dtype=np.int64),
            )
            start += count

    def begin(self, scale: Any, places: Sequence[int], times: int = 1) -> None:
        """Choose the numbers of the step at hand, with ``scale`` times a number in these places.

        A float32 number on the device; None if the scale is among the rows already.
        """
        scales = () if scale is None else places
        begin_kernel()(
            (1,),
            (BLOCK,),
            (self._ring, self._belongs, np.int64(self.numbers.size),
             self._unused if scale is None else scale,
             self._scales.of(np.array(scales, np.int64)), np.int64(len(scales)),
             np.float64(times), self._steps, self.numbers, self._report),
        )  # fmt: skip

    def partial(self, count: int) -> Any:
        """Memory for so many numbers of what is measured, kept."""
        import cupy

        if count > self._partial.size:
            self._partial = cupy.empty(count, np.float64)
        return self._partial[:count]

    def fetch(self, partial: Any) -> np.ndarray:
        """As a NumPy array; waits."""
        result: np.ndarray = partial.get()
        return result

    def judge(
        self,
        measured: Measured,
        known: Verdict | None,
        most: float,
        limit: float,
        skip: bool,
        places: Sequence[int],
        adapted: Any,
    ) -> None:
        """From what is measured to the factor, in these places, and the verdict.

        ``known`` is both, if they have been made of what other devices measured, too; ``adapted``
        is None or (numbers of a loss scale, growth, backoff, interval, minimum).
        """
        scale, *rates = adapted or (self._unused, 1, 1, 1, 1)
        norm, large = (-1.0, False) if known is None else (known.norm, not known.finite)
        judge_kernel()(
            (1,),
            (BLOCK,),
            (measured.numbers, np.int64(measured.numbers.size // 2), np.float64(norm),
             np.int32(large), np.float64(most), np.float64(limit), *map(np.int64, measured.ends),
             np.int32(skip),
             self._factors.of(np.array(places, np.int64)), np.int64(len(places)),
             scale, np.int32(adapted is not None), *map(np.float32, rates),
             self._steps, self.numbers, self._report),
        )  # fmt: skip

    def steps(self) -> int:
        """Steps taken; waits for whatever stream they are on."""
        self._device.synchronize()
        return int(self._steps.get()[0])

    def report(self) -> tuple[float, float, bool]:
        """Norm, factor and whether it was skipped, of the last step; waits as `steps`."""
        self._device.synchronize()
        norm, factor, skipped = self._report.get().tolist()
        return norm, factor, bool(skipped)
