"""Finite gradients whose squares are infinite in a rule's arithmetic.

Kernels find the largest magnitude of each chunk. After clipping it is still the largest, because
clipping is monotonic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..array_types import Array, HostArray
from ..formats import Formats
from ..language.powers import squares
from ..language.rule import Rule
from .summation import clip_factor, total

SQUARED = 2.0**64
"""The first float32 whose square is infinite.

Of float64 that is 2**512; a norm with such a gradient is infinite already.
"""

CHECKS = 3
"""The number of checks. 0: a rule squares gradients of its compute type. 1: a rule squares wider
gradients. 2: another rule has wider gradients, which may overflow when they are rounded."""


def check_of(rule: Rule, formats: Formats) -> int:
    """Return which check a launch needs; `CHECKS` if its gradients' norm is enough."""
    if formats.compute != "float32":
        return CHECKS
    if formats.wide == "float32":
        return 0 if squares(rule) else CHECKS
    return 1 if squares(rule) else 2


class Measured(NamedTuple):
    """Sums of squares and largest magnitudes of the gradients of one device."""

    numbers: Array
    """float64, shape (2 n,): sums of squares of n chunks, then their largest magnitudes."""
    ends: tuple[int, ...]
    """The number of chunks before the end of each check of `CHECKS`; the rest needs none."""


class Verdict(NamedTuple):
    """The norm of a step's gradients and what follows from it."""

    norm: float
    clip_factor: float
    finite: bool
    """Whether all gradients are finite and none is too large to be squared."""


def decide(measured: Sequence[Measured], max_norm: float, max_value: float) -> Verdict:
    """Compute the norm and the clip factor on the host; ``include/judge.cuh`` does it on a GPU.

    Parameters
    ----------
    measured : sequence of Measured
        One for each device, with NumPy arrays.
    max_norm, max_value : float
        Limits of the norm and of each gradient's magnitude; infinity for none.
    """
    sums = [device.numbers[: device.numbers.size // 2] for device in measured]
    norm = math.sqrt(total(sums[0] if len(sums) == 1 else np.concatenate(sums)))
    factor = clip_factor(norm, max_norm)
    # No magnitude is above the norm, so that magnitudes are rarely needed.
    large = not norm < SQUARED / 2 and any(
        _overflows(device.numbers[device.numbers.size // 2 :], device.ends, factor, max_value)
        for device in measured
    )
    return Verdict(norm, factor, math.isfinite(norm) and not large)


def _overflows(peaks: HostArray, ends: Sequence[int], factor: float, max_value: float) -> bool:
    """Whether a clipped gradient is too large for its rule."""
    same, wide, unsquared = (
        peaks[first:last].max(initial=0.0) for first, last in zip((0, *ends), ends, strict=False)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        seen = min(np.float32(factor) * np.float32(same), np.float32(max_value))
        squared, other = (np.float32(min(factor * x, max_value)) for x in (wide, unsquared))
    return bool(seen >= SQUARED or squared >= SQUARED or other == math.inf)
