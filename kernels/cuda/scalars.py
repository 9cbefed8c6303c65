"""The scalars of a step on a GPU, and what becomes of it: nobody waits for either.

The host writes the scalars of steps to come into a ring. Every kernel of a step selects the row of
the ring by a count that the GPU keeps, and the step's last kernel advances that count
(``scalars.cuh``). So a step that was captured in a CUDA graph is right however often it is
replayed. If the gradients are measured, a kernel of one block (``judge.cuh``) decides by their norm
what clips them and whether anything is written; it then makes the scalars that the updates read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..commit import Call
from ..numerics.overflow import CHECKS, SQUARED, Measured, Verdict
from ..numerics.scalar_layout import FIRST, LARGEST_SCALE, SCALE, STEP
from ..numerics.summation import EXPONENT, LARGEST, MAX_CHUNKS, NORMAL
from . import compile
from .memory import Mirror, upload

BY_VALUE = 64
"""So many scalars of a step, and addresses of gradients, can be arguments of a launch."""

ROWS = 1024
"""Steps that the ring has room for, a power of two."""

WRAP = 2**32
"""The GPU counts steps modulo this number; see ``scalars.cuh``."""

BLOCK = 256

_PLACES = {"rows": ROWS, "step": STEP, "scale": SCALE}

_STEP = "const double *__restrict__ scalars, long long scalars_width, unsigned long long *steps"

UPDATE_MACROS = {**_PLACES, "scalars": f"{_STEP}, double *report, int last"}
"""Macros of kernels that update, with the arguments of `StepNumbers.of_update`."""

GRADIENT_MACROS = {
    **_PLACES,
    "scalars": f"{_STEP}, const float *__restrict__ loss_scale, double times",
}
"""Macros of kernels that measure gradients, with the arguments of `StepNumbers.of_gradient`."""


def count_source() -> str:
    """Write the kernel of ``count_step.cuh``."""
    return compile.link(UPDATE_MACROS, "", "count_step.cuh")


def judge_source() -> str:
    """Write the kernel of ``judge.cuh``."""
    macros = {
        **_PLACES,
        "block": BLOCK,
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
def count_kernel() -> Callable[..., None]:
    """The compiled kernel of `count_source`."""
    return compile.built(count_source(), "gpuadapt_count_step")


@cache
def judge_kernel() -> Callable[..., None]:
    """As `count_kernel`, of `judge_source`."""
    return compile.built(judge_source(), "gpuadapt_judge")


class StepNumbers:
    """Where kernels find the scalars of their step: their arguments of ``scalars.cuh``.

    Parameters
    ----------
    scalars : CuPy array of float64
        Rows of scalars, in one dimension.
    width : int
        Length of a row; 0 if there is one row, for any step.
    steps : CuPy array of uint64, shape (1,)
        The number of steps taken, in the upper half.
    report : CuPy array of float64, shape (3,)
        Output of the kernel that counts the step.

    Attributes
    ----------
    uncounted : bool
        No kernel of the step counts it yet.
    last : bool
        The next update is the last one of the step.
    given : ndarray of float64, optional
        The scalars of a step that only launches with arguments by value take; it is not counted.
    """

    given: np.ndarray | None = None

    def __init__(self, scalars: Any, width: int, steps: Any, report: Any) -> None:
        import cupy

        self.scalars, self._report = scalars, report
        self._step = scalars, np.int64(width), steps
        self._no_scale = cupy.zeros(1, np.float32), np.float64(0)
        self.uncounted = self.last = False
        self.scale_by(None)

    @classmethod
    def of_no_step(cls) -> StepNumbers:
        """Scalars that belong to no step, on the current device: a kernel writes nothing."""
        import cupy

        report = cupy.zeros(3, np.float64)
        return cls(cupy.full(FIRST, -1, np.float64), 0, cupy.zeros(1, np.uint64), report)

    def scale_by(self, scale: Any, times: float = 1) -> None:
        """Let gradients be divided by ``scale * times``, or by the scale among the scalars."""
        self._scale = self._no_scale if scale is None else (scale, np.float64(times))

    def of_step(self) -> tuple[Any, ...]:
        """Arguments of kernels that only read scalars."""
        return self._step

    def of_gradient(self) -> tuple[Any, ...]:
        """Arguments of kernels that measure gradients."""
        return self._step + self._scale

    def of_update(self, last: bool = True) -> tuple[Any, ...]:
        """Arguments of a kernel that updates, for one launch.

        ``last``: it is the last kernel of its update that has these arguments. If the update is the
        step's last one, the kernel counts the step.
        """
        counts = last and self.last and self.uncounted
        if counts:
            self.uncounted = False
        return (*self._step, self._report, np.int32(counts))


def numbers(coefficients: Sequence[float]) -> StepNumbers:
    """The scalars of an unscaled update that is not skipped, on the current device."""
    import cupy

    scalars = cupy.asarray(np.array([0.0, 1.0, *coefficients]))
    return StepNumbers(scalars, 0, cupy.zeros(1, np.uint64), cupy.zeros(3, np.float64))


class StepScalars:
    """The scalars of a step on the current device; see `gpuadapt.launch.StepScalars`.

    The scalars of several steps are uploaded ahead, into a ring of ``ROWS`` rows.
    """

    def __init__(self) -> None:
        import cupy

        self._device = cupy.cuda.Device()
        self._steps = cupy.zeros(1, np.uint64)
        self._latest = 0
        """A number of steps that the GPU has not passed, and will not before the next upload."""
        self._report = cupy.zeros(3, np.float64)
        self._partial = cupy.zeros(1, np.float64)
        self._unused = cupy.zeros(3, np.float32)
        self._scales, self._factors = Mirror(np.int64), Mirror(np.int64)
        self._scale_indices: Sequence[int] = ()
        """The scalars that become the scale, if that is on the GPU."""
        self._behind = False
        """Steps have been taken that the GPU has not counted."""
        self._resize(FIRST)

    def _resize(self, width: int) -> None:
        import cupy

        ring = cupy.zeros(ROWS * width, np.float64)
        ring.fill(-1)
        uploaded = StepNumbers(ring, width, self._steps, self._report)
        made = cupy.zeros(width, np.float64)
        judged = StepNumbers(made, 0, cupy.zeros(1, np.uint64), self._report)
        # Together: they fit each other, also after an allocation that failed.
        self._width, self._uploaded, self._judged, self.numbers = width, uploaded, judged, uploaded

    def restart(self, step: int) -> None:
        """Continue from this number of steps; none has scalars yet."""
        self._latest, self._behind, self._uploaded.given = step, False, None
        self._steps.fill(np.uint64(step % WRAP << 32))
        self._uploaded.scalars.fill(-1)

    def give(self, step: int, row: Sequence[float]) -> None:
        """Take the scalars of a step as arguments of its launches; the host counts it.

        It must be certain that the step is taken, and all of its updates must be `MultiTensor`.
        """
        self.numbers, self._latest, self._behind = self._uploaded, step + 1, True
        self.numbers.given, self.numbers.uncounted = np.array(row), False

    def load(self, step: int, rows: Sequence[Sequence[float]]) -> None:
        """Write the scalars of steps ``step``, ``step + 1``, ... into the ring.

        After `give`, ``step`` is the number of steps taken.
        """
        made = np.array(rows)
        width = made.shape[1]
        if width != self._width:
            self._resize(width)
        self._uploaded.given = None
        if self._behind:
            upload(self._steps, np.array([step % WRAP << 32], np.uint64))
            self._behind = False
        self._latest = step + len(made)
        made[:, STEP] = np.arange(step, self._latest) % WRAP
        start = 0
        while start < len(made):
            row = (step + start) % ROWS
            count = min(len(made) - start, ROWS - row)
            ring = self._uploaded.scalars
            upload(ring[row * width : (row + count) * width], made[start : start + count])
            start += count

    def select_step(
        self, scale: Any, indices: Sequence[int], micro_batches: int, measured: bool
    ) -> list[Call]:
        """Begin a step: its kernels read its scalars from the ring.

        See `gpuadapt.launch.StepScalars`. There is nothing to launch, unless a scale of a step that
        is not measured has to be written to the scalars at ``indices``.
        """
        self.numbers = self._uploaded
        self.numbers.uncounted, self.numbers.last = True, False
        self.numbers.scale_by(scale, micro_batches)
        self._scale_indices = () if scale is None else indices
        if scale is not None and not measured:
            nothing = Measured(self._partial[:0], (0,) * CHECKS)
            known = Verdict(0.0, 1.0, True)
            return self.finish_norm(nothing, known, math.inf, math.inf, False, (), None)[1]
        return []

    def partial_sums(self, count: int) -> Any:
        """Memory of ``count`` float64, kept for the next step."""
        import cupy

        if count > self._partial.size:
            self._partial = cupy.empty(count, np.float64)
        return self._partial[:count]

    def to_host(self, partial: Any) -> np.ndarray:
        """Copy to a NumPy array; waits for the device."""
        self._device.synchronize()
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
    ) -> tuple[None, list[Call]]:
        """Compute norm, clip factor and whether to skip, unless ``known`` has them; count the step.

        ``loss_scale`` is None or (state of a `LossScale`, growth, backoff, interval, minimum).
        """
        adapted, *rates = loss_scale or (self._unused, 1, 1, 1, 1)
        norm, large = (-1.0, False) if known is None else (known.norm, not known.finite)
        scales = self._scale_indices
        arguments = (
            measured.numbers, np.int64(measured.numbers.size // 2), np.float64(norm),
            np.int32(large), np.float64(max_norm), np.float64(max_value),
            *map(np.int64, measured.ends), np.int32(skip),
            self._factors.of(np.array(indices, np.int64)), np.int64(len(indices)),
            adapted, np.int32(loss_scale is not None), *map(np.float32, rates),
            self._scales.of(np.array(scales, np.int64)), np.int64(len(scales)),
            *self._uploaded.of_gradient(), self._judged.scalars, self._report,
        )  # fmt: skip
        self.numbers = self._judged
        return None, [(compile.ready(judge_kernel()), (1,), (BLOCK,), arguments)]

    def last_numbers(self) -> StepNumbers:
        """What the last update of the step takes: its last kernel counts the step."""
        self.numbers.last = True
        return self.numbers

    def end_step(self) -> list[Call]:
        """The launch that counts the step, as a call, unless a kernel does so."""
        if not self.numbers.uncounted:
            return []
        return [(compile.ready(count_kernel()), (1,), (1,), self.last_numbers().of_update())]

    def last_scalars(self) -> np.ndarray:
        """The scalars of the last step; waits for the device."""
        if self.numbers.given is not None:
            return self.numbers.given
        if self.numbers is self._judged:
            return self.to_host(self._judged.scalars)
        row = (self.steps() - 1) % ROWS
        ring = self._uploaded.scalars
        return self.to_host(ring[row * self._width : (row + 1) * self._width])

    def steps(self) -> int:
        """Number of steps taken; waits for the device."""
        if self._behind:
            return self._latest
        self._device.synchronize()
        return self._latest - (self._latest - (int(self._steps.get()[0]) >> 32)) % WRAP

    def result(self) -> tuple[float, float, bool]:
        """Norm, clip factor and whether the last step was skipped; waits for the device."""
        self._device.synchronize()
        norm, factor, skipped = self._report.get().tolist()
        if self.numbers is not self._judged:  # the report has those of a step before
            norm, factor = 0.0, 1.0
        return norm, factor, bool(skipped)
