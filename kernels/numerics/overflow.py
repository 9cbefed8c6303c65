"""Gradients that are finite and yet too large: what the arithmetic of a rule cannot square.

Measuring finds the largest magnitude of each span. That of what the rule sees follows from it
where gradients are clipped, because clipping never makes the larger of two numbers the smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..formats import Formats
from ..language.powers import squares
from ..language.rule import Rule
from .summation import factor, total

SQUARED = 2.0**64
"""The first float32 whose square is infinite.

Of float64 that is 2**512; a norm with such a gradient is infinite already.
"""

KINDS = 3
"""How many kinds of launches are looked at: those whose rules square gradients of the type of
their arithmetic; those whose rules square wider gradients; other rules, of wider gradients, which
may have no number in the type of the arithmetic."""


def kind(rule: Rule, formats: Formats) -> int:
    """Of a launch; `KINDS` if the norm alone says whether its gradients are finite."""
    if formats.compute != "float32":
        return KINDS
    if formats.wide == "float32":
        return 0 if squares(rule) else KINDS
    return 1 if squares(rule) else 2


class Measured(NamedTuple):
    """What the gradients of one device are measured to be."""

    numbers: Any
    """Sums of squares of spans, then as many largest magnitudes."""
    ends: tuple[int, ...]
    """Where spans of each of the `KINDS` end; what comes after these is not looked at."""


class Verdict(NamedTuple):
    """What becomes of the gradients of a step."""

    norm: float
    factor: float
    """What they are multiplied by."""
    finite: bool
    """Whether all of them are finite, and none is too large for what is done to it."""


def judged(measured: Sequence[Measured], most: float, limit: float) -> Verdict:
    """From the largest norm and the largest magnitude that are wanted, infinity for any.

    On the host, from NumPy arrays; `gpuadapt.kernels.cuda.scalars` has the same for a GPU.
    """
    sums = [of.numbers[: of.numbers.size // 2] for of in measured]
    norm = math.sqrt(total(sums[0] if len(sums) == 1 else np.concatenate(sums)))
    by = factor(norm, most)
    # No magnitude is above the norm, so that the largest ones are rarely needed.
    large = not norm < SQUARED / 2 and any(
        _overflows(of.numbers[of.numbers.size // 2 :], of.ends, by, limit) for of in measured
    )
    return Verdict(norm, by, math.isfinite(norm) and not large)


def _overflows(peaks: np.ndarray, ends: Sequence[int], by: float, limit: float) -> bool:
    """Whether some gradient is too large where a rule sees it, clipped."""
    same, wide, unsquared = (
        peaks[first:last].max(initial=0.0) for first, last in zip((0, *ends), ends, strict=False)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        seen = min(np.float32(by) * np.float32(same), np.float32(limit))
        squared, other = (np.float32(min(by * x, limit)) for x in (wide, unsquared))
    return bool(seen >= SQUARED or squared >= SQUARED or other == math.inf)
