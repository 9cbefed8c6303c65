"""Lists of spans: runs of elements of many arrays, and pieces of that list for threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class Spans:
    """The spans of arrays with these sizes.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each array.
    span : int
        Elements of a span.
    before : sequence of int, optional
        By how many elements the first span of each array is shorter.
    widths : sequence of int, optional
        Elements of a row of each array: a span is then of whole rows, or within one.

    Attributes
    ----------
    table : ndarray of int64, shape (spans, 3)
        Each span's array, first element and number of elements.
    pieces : ndarray of int64
        Where pieces begin in the table, and its length: a piece is as many spans of
        neighbouring arrays as are needed for the elements of one whole span.
    total : int
        Elements of all arrays.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        span: int,
        before: Sequence[int] = (),
        widths: Sequence[int] = (),
    ) -> None:
        rows = []
        for array, size in enumerate(sizes):
            parts = (
                _by_rows(size, span, widths[array])
                if widths
                else _cut(0, size, span, before[array] if before else 0)
            )
            rows += [(array, start, count) for start, count in parts]
        self.table = np.array(rows, np.int64).reshape(-1, 3)
        self.total = sum(sizes)
        # A piece ends with the span that fills it.
        filled = np.cumsum(self.table[:, 2]) // span
        ends = np.flatnonzero(np.diff(filled, prepend=0)) + 1
        self.pieces = np.unique(np.concatenate([[0], ends, [len(rows)]])).astype(np.int64)


def _cut(start: int, end: int, span: int, before: int = 0) -> Iterator[tuple[int, int]]:
    """First elements and numbers of elements."""
    stop = min(start + span - before, end)
    while start < end:
        yield start, stop - start
        start, stop = stop, min(stop + span, end)


def _by_rows(size: int, span: int, width: int) -> Iterator[tuple[int, int]]:
    if width <= span:
        yield from _cut(0, size, span // width * width)
    else:
        for row in range(0, size, width):
            yield from _cut(row, row + width, span)
