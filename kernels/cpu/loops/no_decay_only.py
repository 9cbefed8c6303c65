"""Of rules whose skipped steps do not multiply the parameter."""

from numba import njit

from .interface import INLINE


@njit(**INLINE)
def decay_parameter(arguments, row, step, target):
    pass
