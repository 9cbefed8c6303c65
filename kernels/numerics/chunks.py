"""The chunks of many arrays, and tasks: chunks that one thread works on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..array_types import HostArray

Integers = Sequence[int] | HostArray


class Chunks:
    """The chunks of arrays with these sizes.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each array.
    size : int
        Elements of a chunk.
    shorter : sequence of int, optional
        By how many elements the first chunk of each array is shorter.
    widths : sequence of int, optional
        Elements of a row of each array: a chunk is then whole rows, or a part of one.

    Attributes
    ----------
    table : ndarray of int64, shape (chunks, 3)
        Each chunk's array, first element and number of elements.
    tasks : ndarray of int64, shape (tasks + 1,)
        Task k is the chunks from tasks[k] on, before tasks[k + 1]: as many as have the elements
        of one whole chunk.
    total : int
        Elements of all arrays.
    """

    def __init__(
        self,
        sizes: Integers,
        size: int,
        shorter: Integers = (),
        widths: Integers = (),
    ) -> None:
        self.table = _table(sizes, size, shorter, widths)
        self.total = int(np.sum(sizes, dtype=np.int64))
        # A task ends with the chunk that fills it.
        filled = np.cumsum(self.table[:, 2]) // size
        ends = np.flatnonzero(np.diff(filled, prepend=0)) + 1
        self.tasks = np.unique(np.concatenate([[0], ends, [len(self.table)]])).astype(np.int64)


def _table(sizes: Integers, size: int, shorter: Integers, widths: Integers) -> np.ndarray:
    """Return `Chunks.table`, by arithmetic with arrays: there may be 100,000 sizes."""
    elements = np.array(sizes, np.int64)
    missing = np.array(shorter, np.int64) if len(shorter) else np.zeros_like(elements)
    # A run is what chunks are cut from: a row that is longer than a chunk, or a whole array.
    run, step = elements, np.full_like(elements, size)
    if len(widths):
        width = np.maximum(np.array(widths, np.int64), 1)
        run = np.where(width > size, width, elements)
        step = np.where(width > size, size, size // width * width)
    per_run = -(-(run + missing) // step)
    counts = np.where(elements > 0, elements // np.maximum(run, 1) * per_run, 0)
    array = np.repeat(np.arange(len(elements)), counts)
    number = np.arange(len(array)) - np.repeat(np.cumsum(counts) - counts, counts)
    run, step, missing = run[array], step[array], missing[array]
    number_of_run, number = np.divmod(number, per_run[array])
    start = np.maximum(number * step - missing, 0)
    stop = np.minimum((number + 1) * step - missing, run)
    return np.stack([array, number_of_run * run + start, stop - start], axis=1)
