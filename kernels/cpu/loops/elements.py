"""The loop over elements that need no random bits."""

from numba import njit

from .interface import OPTIONS, U, row_states, size_of, update


@njit(**OPTIONS)
def update_span(arrays, scalars, begin, keys, buffers):
    states = row_states(arrays)
    for i in range(size_of(arrays)):
        states = update(i, arrays, scalars, U(0))
    return states
