"""A chunk whose elements are independent."""

from numba import njit

from .interface import INLINE, arrays_at, update_span


@njit(**INLINE)
def update_chunk(array, start, size, addresses, gradients, scalars, keys, tables, buffers, long):
    arrays = arrays_at(array, start, size, 0, addresses, gradients)
    update_span(arrays, scalars, start, keys, buffers)
