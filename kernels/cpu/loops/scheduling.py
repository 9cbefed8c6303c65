"""The launch of a kernel over chunks of arrays: threads claim tasks, their own share first."""

import numpy as np
from numba import njit, types

from ..intrinsics import claim, fork
from .interface import ARGUMENTS, ENTRY, OPTIONS, run_chunks

TABLE = types.Array(types.int64, 2, "C")
LIST = types.Array(types.int64, 1, "C")


@njit(**OPTIONS)
def run_share(own, counters, threads, chunks, tasks, arguments):
    """Run the tasks of a thread's own share in order, then what others have not claimed yet."""
    if threads == 1:
        run_chunks(np.intp(0), chunks.shape[0], chunks, arguments)
        return
    count = tasks.size - 1
    for other in range(threads):
        share = (own + other) % threads
        first, last = count * share // threads, count * (share + 1) // threads
        while True:
            task = first + claim(counters[share], np.int64(1))
            if task >= last:
                break
            run_chunks(tasks[task], tasks[task + 1], chunks, arguments)


@njit([types.void(TABLE, types.int64, TABLE, LIST, ARGUMENTS, types.int64)], **ENTRY)
def launch(counters, threads, chunks, tasks, arguments, pool):
    """Run all chunks, in the default modes of arithmetic.

    counters (threads, 8): for each thread, in a cache line of its own, the tasks claimed of its
    share. chunks (n, 3): array, first element, elements. tasks (m + 1,): task k is the chunks from
    tasks[k] on, before tasks[k + 1].
    """
    counters[:, 0] = 0
    fork(run_share, (counters, threads, chunks, tasks, arguments), threads, threads, pool)
