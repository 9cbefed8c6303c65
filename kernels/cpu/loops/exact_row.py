"""The update or the copies of a row that occurs in a batch, after it has caught up."""

import numpy as np
from numba import njit

from ..intrinsics import part
from .interface import (
    INLINE,
    SUMS,
    catch_up,
    history_of,
    output_of,
    parameter_row,
    update_row,
)
from .merged_gradient import merged_gradient
from .row_gradients import copy_merged


@njit(**INLINE)
def process_row(arguments, batch, i, end, row, k):
    """Take the steps that the row has skipped; then update it, or copy it to each occurrence."""
    keys, mask = batch[0], batch[1]
    last_step, now = history_of(arguments)[:2]
    reading, out = output_of(arguments)
    sums = part(batch[-1], k, 0, SUMS)
    catch_up(arguments, row, sums)
    last_step[row] = now
    if reading:
        if out.shape[0] > 0:
            for other in range(i, end):
                position = np.intp(keys[other] & mask)
                copy_merged(part(out, position, 0, out.shape[1]), parameter_row(arguments, row))
    else:
        update_row(arguments, row, merged_gradient(batch, i, end, k), sums)
        last_step[row] = now + 1
