"""The end of a segment whose displacements no longer change the parameter: states decay at once."""

import numpy as np
from numba import njit

from .interface import INLINE, decay_parameter, decay_states


@njit(**INLINE)
def take_segment(arguments, row, step, target):
    """Take all steps up to ``target``; returns the step, and how many are to be replayed: 0."""
    decay_parameter(arguments, row, step, target)
    decay_states(arguments, row, step)
    return target, np.int64(0)
