"""The merged gradients of hot rows. Threads take column blocks, so each sum keeps its order.

keys (n,): a row's number above its position in the batch (``mask``), ascending. spans (hot, 2):
first and stop key of each hot row. values (n, width): the batch's gradients. sums (hot, width),
out. block: columns that a thread takes at once.
"""

import numpy as np
from numba import njit, types

from ..intrinsics import fork, part
from .interface import ENTRY, GRADIENTS, MERGED, OPTIONS
from .row_gradients import add, copy

SIGNATURE = types.void(
    types.Array(types.uint64, 1, "C"), types.uint64, types.Array(types.int64, 2, "C"),
    GRADIENTS, MERGED, types.int64, types.int64, types.int64,
)  # fmt: skip


@njit(**OPTIONS)
def sum_columns(task, keys, mask, spans, values, sums, block):
    """Sum a block of columns of a hot row."""
    width = values.shape[1]
    blocks = (width + block - 1) // block
    k, first = task // blocks, task % blocks * block
    last = min(first + block, width)
    start, stop = spans[k]
    copy(part(sums, k, first, last), part(values, np.intp(keys[start] & mask), first, last))
    for i in range(start + 1, stop):
        add(part(sums, k, first, last), part(values, np.intp(keys[i] & mask), first, last))


@njit([SIGNATURE], **ENTRY)
def sum_hot_rows(keys, mask, spans, values, sums, block, threads, pool):
    blocks = (values.shape[1] + block - 1) // block
    arguments = keys, mask, spans, values, sums, block
    fork(sum_columns, arguments, spans.shape[0] * blocks, threads, pool)
