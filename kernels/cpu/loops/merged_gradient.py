"""The gradient of a row of a batch, duplicates merged in the order of occurrence."""

import numpy as np
from numba import njit

from ..intrinsics import part
from .interface import INLINE, PLAIN, SUMS, W, unmerged
from .row_gradients import add, clip, copy, copy_merged, divide


@njit(**INLINE)
def merged_gradient(batch, i, end, k):
    """The gradient of the row of keys[i:end], as it is or merged in a buffer."""
    keys, mask, hot, hot_sums, hot_threshold, mean, max_norm, values, buffers, merged, partial = (
        batch
    )
    width = values.shape[1]
    position = np.intp(keys[i] & mask)
    if PLAIN and end == i + 1 and not max_norm < np.inf:
        return unmerged(values, merged, position, k)
    known = -1
    if end - i > hot_threshold:  # only these may be hot, and few are
        for candidate in range(hot.shape[0]):
            if hot[candidate, 0] == i:
                known = candidate
    buffer = part(buffers, k, 0, width)
    if known < 0:
        copy(buffer, part(values, position, 0, width))
        for other in range(i + 1, end):
            add(buffer, part(values, np.intp(keys[other] & mask), 0, width))
    else:
        copy_merged(buffer, part(hot_sums, known, 0, width))
    if mean:
        divide(buffer, W(end - i))
    if max_norm < np.inf:
        clip(buffer, max_norm, part(partial, k, 0, SUMS))
    return part(merged, k, 0, width)
