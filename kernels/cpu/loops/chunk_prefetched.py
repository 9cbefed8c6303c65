"""A chunk of arrays larger than the caches, whose memory is asked for ahead of its use."""

from numba import njit

from .interface import (
    AHEAD,
    INLINE,
    LINE,
    OPTIONS,
    arrays_at,
    prefetch_ahead,
    size_of,
    slice_of,
    update_span,
)

ROUND = 64
"""Elements between two rounds of prefetching."""


@njit(**OPTIONS)
def update_prefetched(arrays, scalars, begin, keys, buffers):
    for start in range(0, size_of(arrays), ROUND):
        for ahead in range(start + AHEAD, start + AHEAD + ROUND, LINE):
            prefetch_ahead(arrays, ahead)
        stop = min(start + ROUND, size_of(arrays))
        update_span(slice_of(arrays, start, stop), scalars, begin, keys, buffers)


@njit(**INLINE)
def update_chunk(array, start, size, addresses, gradients, scalars, keys, tables, buffers, long):
    arrays = arrays_at(array, start, size, 0, addresses, gradients)
    if long:
        update_prefetched(arrays, scalars, start, keys, buffers)
    else:
        update_span(arrays, scalars, start, keys, buffers)
