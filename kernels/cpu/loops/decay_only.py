"""The part of skipped steps that multiplies the parameter, such as decoupled weight decay."""

import numpy as np
from numba import njit

from .interface import (
    INLINE,
    MAX_INTERVAL,
    OPTIONS,
    decay_once,
    decay_only_at,
    load_decay_only,
    parameter_row,
    scratch_of,
)


@njit(**OPTIONS)
def decay_steps(p, scratch, count):
    """Take ``count`` steps, four at a time while an element is in a register."""
    j = 0
    while j + 4 <= count:
        a, b = decay_only_at(scratch, j), decay_only_at(scratch, j + 1)
        c, d = decay_only_at(scratch, j + 2), decay_only_at(scratch, j + 3)
        for i in range(p.size):
            p[i] = decay_once(decay_once(decay_once(decay_once(p[i], a), b), c), d)
        j += 4
    while j < count:
        a = decay_only_at(scratch, j)
        for i in range(p.size):
            p[i] = decay_once(p[i], a)
        j += 1


@njit(**INLINE)
def decay_parameter(arguments, row, step, target):
    scratch = scratch_of(arguments)[0]
    first = step + 1
    while first <= target:
        count = np.intp(min(MAX_INTERVAL, target + 1 - first))
        for j in range(count):
            load_decay_only(arguments, j, first + j)
        decay_steps(parameter_row(arguments, row), scratch, count)
        first += count
