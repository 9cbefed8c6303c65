"""The merged gradients of hot rows. Threads take column blocks, so each sum keeps its order.

keys (n,): a row's number above its position in the batch (``mask``), ascending. spans (hot, 2):
first and stop key of each hot row. values (n, width): the batch's gradients. sums (hot, width),
out. block: columns of a task.
"""

import numpy as np
from numba import njit, prange, types

from ..intrinsics import default_modes, part, restore_modes
from .interface import ENTRY, GRADIENTS, MERGED, OPTIONS
from .row_gradients import add, copy

SIGNATURE = types.void(
    types.Array(types.uint64, 1, "C"), types.uint64, types.Array(types.int64, 2, "C"),
    GRADIENTS, MERGED, types.int64, types.boolean,
)  # fmt: skip


@njit(**OPTIONS)
def sum_columns(keys, mask, spans, values, sums, k, first, last):
    start, stop = spans[k]
    copy(part(sums, k, first, last), part(values, np.intp(keys[start] & mask), first, last))
    for i in range(start + 1, stop):
        add(part(sums, k, first, last), part(values, np.intp(keys[i] & mask), first, last))


@njit([SIGNATURE], parallel=True, **ENTRY)
def sum_hot_rows(keys, mask, spans, values, sums, block, serial):
    width = values.shape[1]
    blocks = (width + block - 1) // block
    modes = default_modes()
    if serial:
        for k in range(spans.shape[0]):
            sum_columns(keys, mask, spans, values, sums, k, 0, width)
    else:
        for task in prange(spans.shape[0] * blocks):
            own_modes = default_modes()
            k, first = np.intp(task) // blocks, np.intp(task) % blocks * block
            sum_columns(keys, mask, spans, values, sums, k, first, min(first + block, width))
            restore_modes(own_modes)
    restore_modes(modes)
