"""Lists of spans: runs of elements of many arrays, and pieces of that list for threads."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(self, sizes: Sequence[int], span: int, before: Sequence[int] = ()) -> None:
        rows = []
        for array, size in enumerate(sizes):
            start, stop = 0, min(span - (before[array] if before else 0), size)
            while start < size:
                rows.append((array, start, stop - start))
                start, stop = stop, min(stop + span, size)
        self.table = np.array(rows, np.int64).reshape(-1, 3)
        self.total = sum(sizes)
        # A piece ends with the span that fills it.
        filled = np.cumsum(self.table[:, 2]) // span
        ends = np.flatnonzero(np.diff(filled, prepend=0)) + 1
        self.pieces = np.unique(np.concatenate([[0], ends, [len(rows)]])).astype(np.int64)
