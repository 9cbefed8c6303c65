"""A chunk of arrays in blocks, which do not cross rows: many rows, or a part of one."""

from numba import njit

from .interface import BLOCK, INLINE, arrays_at, update_span, width_of


@njit(**INLINE)
def update_chunk(array, start, size, addresses, gradients, scalars, keys, tables, buffers, long):
    width = width_of(tables, array)
    done = size - size
    while done < size:
        begin = start + done
        row = begin // width
        column = begin - row * width
        count = min(size - done, width - column)
        block = row * ((width + BLOCK - 1) // BLOCK) + column // BLOCK
        arrays = arrays_at(array, begin, count, block, addresses, gradients)
        update_span(arrays, scalars, begin, keys, buffers)
        done += count
