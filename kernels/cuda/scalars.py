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
from ..numerics.summation import EXPONENT, LARGEST, MAX_CHUNKS, NORMAL
from . import compile
from .memory import Mirror, upload

ROWS = 1024
"""Steps that the ring has room for."""

BLOCK = 256


def begin_source() -> str:
    """Write the kernel of ``begin.cuh``."""
    return compile.link({"rows": ROWS, "block": BLOCK, "skip": SKIP}, "", "begin.cuh")


def judge_source() -> str:
    """Write the kernel of ``judge.cuh``."""
    macros = {
        "block": BLOCK,
        "skip": SKIP,
        "exponent": f"{EXPONENT}LL",
        "max_terms": float(MAX_CHUNKS),
        "shrink": repr(2.0**-53),
        "largest": repr(LARGEST),
        "normal": repr(NORMAL),
        "largest_scale": repr(LARGEST_SCALE),
        "squared": repr(SQUARED),
    }
    return compile.link(macros, "", "judge.cuh")


@cache
def begin_kernel() -> Callable[..., None]:
    """The compiled kernel of `begin_source`."""
    return compile.built(begin_source(), "gpuadapt_begin")


@cache
def judge_kernel() -> Callable[..., None]:
    """As `begin_kernel`, of `judge_source`."""
    return compile.built(judge_source(), "gpuadapt_judge")


def numbers(coefficients: Sequence[float]) -> Any:
    """The scalars of an unscaled update that is not skipped, on the current device; float64."""
    import cupy

    return cupy.asarray(np.array([0.0, 1.0, *coefficients]))


def capturing() -> bool:
    """True while the current stream is being captured in a graph."""
    import cupy

    return bool(cupy.cuda.get_current_stream().is_capturing())


class StepScalars:
    """The scalars of a step on the current device; see `gpuadapt.launch.StepScalars`.

    The scalars of several steps are uploaded ahead, into a ring of ``ROWS`` rows.
    """

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
        """Continue from this number of steps; none has scalars yet."""
        self._steps.fill(step)
        self._belongs.fill(-1)

    def load(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        """Write the scalars of steps ``step``, ``step + 1``, ... into the ring."""
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

    def select_step(self, scale: Any, indices: Sequence[int], micro_batches: int = 1) -> None:
        """Select the scalars of the current step; those at ``indices`` become the scale.

        ``scale`` is an array of one float32, multiplied by ``micro_batches``; None if the scale is
        among the uploaded scalars.
        """
        scales = () if scale is None else indices
        begin_kernel()(
            (1,),
            (BLOCK,),
            (self._ring, self._belongs, np.int64(self.numbers.size),
             self._unused if scale is None else scale,
             self._scales.of(np.array(scales, np.int64)), np.int64(len(scales)),
             np.float64(micro_batches), self._steps, self.numbers, self._report),
        )  # fmt: skip

    def partial_sums(self, count: int) -> Any:
        """Memory of ``count`` float64, kept for the next step."""
        import cupy

        if count > self._partial.size:
            self._partial = cupy.empty(count, np.float64)
        return self._partial[:count]

    def to_host(self, partial: Any) -> np.ndarray:
        """Copy to a NumPy array; waits."""
        result: np.ndarray = partial.get()
        return result

    def finish_norm(
        self,
        measured: Measured,
        known: Verdict | None,
        max_norm: float,
        max_value: float,
        skip: bool,
        indices: Sequence[int],
        loss_scale: Any,
    ) -> None:
        """Compute norm, clip factor and whether to skip, unless ``known`` has them.

        ``loss_scale`` is None or (state of a `LossScale`, growth, backoff, interval, minimum).
        """
        scale, *rates = loss_scale or (self._unused, 1, 1, 1, 1)
        norm, large = (-1.0, False) if known is None else (known.norm, not known.finite)
        judge_kernel()(
            (1,),
            (BLOCK,),
            (measured.numbers, np.int64(measured.numbers.size // 2), np.float64(norm),
             np.int32(large), np.float64(max_norm), np.float64(max_value),
             *map(np.int64, measured.ends), np.int32(skip),
             self._factors.of(np.array(indices, np.int64)), np.int64(len(indices)),
             scale, np.int32(loss_scale is not None), *map(np.float32, rates),
             self._steps, self.numbers, self._report),
        )  # fmt: skip

    def steps(self) -> int:
        """Number of steps taken; waits for the device."""
        self._device.synchronize()
        return int(self._steps.get()[0])

    def result(self) -> tuple[float, float, bool]:
        """Norm, clip factor and whether the last step was skipped; waits for the device."""
        self._device.synchronize()
        norm, factor, skipped = self._report.get().tolist()
        return norm, factor, bool(skipped)
