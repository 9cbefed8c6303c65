"""The chunks of many arrays, and tasks: chunks that one thread works on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


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
        sizes: Sequence[int],
        size: int,
        shorter: Sequence[int] = (),
        widths: Sequence[int] = (),
    ) -> None:
        rows = []
        for array, elements in enumerate(sizes):
            chunks = (
                _cut_by_rows(elements, size, widths[array])
                if widths
                else _cut(0, elements, size, shorter[array] if shorter else 0)
            )
            rows += [(array, start, count) for start, count in chunks]
        self.table = np.array(rows, np.int64).reshape(-1, 3)
        self.total = sum(sizes)
        # A task ends with the chunk that fills it.
        filled = np.cumsum(self.table[:, 2]) // size
        ends = np.flatnonzero(np.diff(filled, prepend=0)) + 1
        self.tasks = np.unique(np.concatenate([[0], ends, [len(rows)]])).astype(np.int64)


def _cut(start: int, end: int, size: int, shorter: int = 0) -> Iterator[tuple[int, int]]:
    """The first element and the number of elements of each chunk."""
    stop = min(start + size - shorter, end)
    while start < end:
        yield start, stop - start
        start, stop = stop, min(stop + size, end)


def _cut_by_rows(elements: int, size: int, width: int) -> Iterator[tuple[int, int]]:
    if width <= size:
        yield from _cut(0, elements, size // width * width)
    else:
        for start in range(0, elements, width):
            yield from _cut(start, start + width, size)
