"""A step is appended to the history of a table; see `gpuadapt.kernels.catchup.plan`.

moments (length, k): `Moments` of each step of the ring. ends (length,): the last step of each
step's segment. numbers, before: `HistoryLayout.decay` and all after it, of the step and of the one
before; ``before`` becomes ``numbers``.
"""

import numpy as np
from numba import njit, types

from .interface import ENTRY, MAX_RATIO, MIN_SIZE, NO_END, OPTIONS, TERMS


@njit(**OPTIONS)
def ratios(numbers, before):
    """The ratios of a step's displacement, and of its correction, to those of the step before."""
    later, correction_later, scale, correction, _, form = before[-6:]
    ratio, growth = numbers[-4] / scale * later, 1.0
    if numbers[-3] != 0 or correction != 0:
        growth = numbers[-3] / correction * correction_later
    follows = numbers[-1] == form and 0 <= ratio < np.inf and 1 <= growth < np.inf
    return ratio, growth, follows


@njit(**OPTIONS)
def add_step(moments, states, numbers, ratio, growth):
    """Add a step to the moments of a segment."""
    for k in range(states):
        moments[k] *= numbers[k]
    shrink = numbers[states]
    moments[states] *= shrink
    weight = moments[states + 2] * ratio
    relative = min(moments[states + 3] * growth, MAX_RATIO)
    moments[states + 2], moments[states + 3] = weight, relative
    error = np.abs(weight) if relative == MAX_RATIO else 0.0
    moments[states + 4] = moments[states + 4] * shrink + error
    sums, term = moments[states + 5 :], weight
    sums[0] = sums[0] * shrink + term
    for j in range(1, TERMS + 1):
        term *= (relative - 1) * ((numbers[-2] - (j - 1)) / j)
        sums[j] = sums[j] * shrink + term


NUMBERS, STEPS = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C")
MOMENTS = types.Array(types.float64, 2, "C")
SIGNATURE = types.void(MOMENTS, STEPS, NUMBERS, NUMBERS, types.int64, types.int64)


@njit([SIGNATURE], **ENTRY)
def append(moments, ends, numbers, before, now, states):
    """Append step ``now``; its scalars go to ``before`` as well."""
    here = now & (ends.size - 1)
    begins = numbers[-1] == numbers[-1] and np.abs(numbers[-4]) >= MIN_SIZE
    ratio, growth, follows = ratios(numbers, before)
    ends[here] = now - 1
    for i in range(ends.size):
        if ends[i] == NO_END:
            if begins and follows:
                add_step(moments[i], states, numbers, ratio, growth)
            else:
                ends[i] = now - 1
    if begins:
        ends[here] = NO_END
        own = moments[here]
        own[: states + 1] = numbers[: states + 1]
        own[states + 1] = numbers[-3]
        own[states + 2] = own[states + 5] = numbers[states + 1]
        own[states + 3], own[states + 4] = 1, 0
        own[states + 6 :] = 0
    before[:] = numbers
