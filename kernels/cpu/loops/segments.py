"""A row catches up along the segments of the history; see `gpuadapt.kernels.catchup.plan`."""

import numpy as np
from numba import njit

from .interface import (
    INLINE,
    MAX_REPLAY,
    history_of,
    replay_step,
    take_segment,
)


@njit(**INLINE)
def catch_up(arguments, row, sums):
    last_step, now, mask, ends = history_of(arguments)
    step = np.int64(last_step[row])
    while step < now:
        target = min(ends[np.uint64(step) & mask], now)
        replayed = max(min(target - step, MAX_REPLAY), 1)
        if target - step > MAX_REPLAY:
            step, replayed = take_segment(arguments, row, step, target)
        for _ in range(replayed):
            step += 1
            replay_step(arguments, row, step, sums)
