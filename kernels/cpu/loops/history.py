"""A step is appended to the history of a table; see `gpuadapt.kernels.catchup.plan`.

moments (length, k): the moments of the segment that begins with each step of the ring. ends
(length,): its last step. numbers, before: `HistoryLayout.decay` and all after it, of the step and
of the one before; ``before`` becomes ``numbers``.
"""

import numpy as np
from numba import njit, types

from .interface import (
    CORRECTION,
    ENTRY,
    FIRST_SUM,
    INLINE,
    LEFT_OUT,
    MAX_RATIO,
    MIN_SIZE,
    NEGLIGIBLE,
    NO_END,
    OPTIONS,
    RELATIVE,
    SHRINK,
    TERMS,
    WEIGHT,
)


@njit(**OPTIONS)
def ratios(numbers, before):
    """The ratios of a step's displacement, and of its correction, to those of the step before.

    And whether the step continues the segment of that step.
    """
    _, _, scale, correction, _, form = numbers[-6:]
    later, correction_later, old_scale, old_correction, _, old_form = before[-6:]
    ratio, growth = scale / old_scale * later, 1.0
    if correction != 0 or old_correction != 0:
        growth = correction / old_correction * correction_later
    continues = form == old_form and 0 <= ratio < np.inf and 1 <= growth < np.inf
    return ratio, growth, continues


@njit(**INLINE)
def add_step(moments, i, states, numbers, ratio, growth):
    """Add a step to the moments of the segment that begins with step ``i`` of the ring."""
    for k in range(states):
        moments[i, k] *= numbers[k]
    shrink, exponent = numbers[states], numbers[-2]
    weight = moments[i, states + WEIGHT] * ratio
    relative = min(moments[i, states + RELATIVE] * growth, MAX_RATIO)
    moments[i, states + WEIGHT], moments[i, states + RELATIVE] = weight, relative
    first = states + FIRST_SUM
    if shrink == 1 and np.abs(weight) <= NEGLIGIBLE * np.abs(moments[i, first]):
        return
    moments[i, states + SHRINK] *= shrink
    error = np.abs(weight) if relative == MAX_RATIO else 0.0
    moments[i, states + LEFT_OUT] = moments[i, states + LEFT_OUT] * shrink + error
    moments[i, first] = moments[i, first] * shrink + weight
    term = weight
    for j in range(1, TERMS + 1):
        term *= (relative - 1) * ((exponent - (j - 1)) / j)
        moments[i, first + j] = moments[i, first + j] * shrink + term


@njit(**OPTIONS)
def begin(moments, i, states, numbers):
    """Begin a segment with step ``i`` of the ring."""
    moments[i, :states] = numbers[:states]
    moments[i, states + SHRINK], moments[i, states + CORRECTION] = numbers[states], numbers[-3]
    moments[i, states + WEIGHT] = moments[i, states + FIRST_SUM] = numbers[states + 1]
    moments[i, states + RELATIVE], moments[i, states + LEFT_OUT] = 1, 0
    moments[i, states + FIRST_SUM + 1 :] = 0


NUMBERS, STEPS = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C")
MOMENTS = types.Array(types.float64, 2, "C")
SIGNATURE = types.void(MOMENTS, STEPS, NUMBERS, NUMBERS, types.int64, types.int64)


@njit([SIGNATURE], **ENTRY)
def append(moments, ends, numbers, before, now, states):
    """Append step ``now``; its scalars go to ``before`` as well."""
    here = now & (ends.size - 1)
    scale, form = numbers[-4], numbers[-1]
    begins = form == form and np.abs(scale) >= MIN_SIZE
    ratio, growth, continues = ratios(numbers, before)
    ends[here] = now - 1
    for i in range(ends.size):
        if ends[i] == NO_END:
            if begins and continues:
                add_step(moments, i, states, numbers, ratio, growth)
            else:
                ends[i] = now - 1
    if begins:
        ends[here] = NO_END
        begin(moments, here, states, numbers)
    before[:] = numbers
