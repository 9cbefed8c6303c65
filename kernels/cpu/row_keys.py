"""The row numbers of a batch, checked and sorted, in memory that is kept from step to step."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np

from ..array_types import HostArray
from ..errors import RowIndexError, check_key
from . import calling, compile
from .calling import Threads

DIGIT = 12
"""The largest number of bits that one pass sorts by."""

ALONE = 4096
"""Rows up to which one thread is faster; two threads are as fast at about 5,000."""

SHARE = 8
"""A row is hot if it fills more than 1 / SHARE of a thread's part of a batch."""


@cache
def sort() -> ModuleType:
    """Compile `loops/sort.py`."""
    return compile.load("sort", compile.link("sort", "", "sort"))


class SortedRows:
    """The keys of the last batch, ascending: row << shift | position in the batch.

    Attributes
    ----------
    keys : ndarray of uint64
        Without rows that are out of range.
    shift : int
        Bits of a position.
    hot : ndarray of int64, shape (k, 2)
        First and stop key of hot rows, which occur often.
    hot_threshold : int
        Every row that occurs more than twice as often is hot.
    out_of_range : int
        Number of rows that were out of range.
    """

    def __init__(self, threads: Threads = None) -> None:
        self._threads = threads
        self.keys = np.empty(0, np.uint64)
        self.shift = self.hot_threshold = self.out_of_range = 0
        self.hot = np.empty((0, 2), np.int64)
        self._memory = np.empty((2, 0), np.uint64)

    def load(self, rows: HostArray, count: int, skip: bool, parts: int) -> None:
        """Check and sort the row numbers of a batch for a table of ``count`` rows.

        Raises
        ------
        RowIndexError
            A row is out of range and ``skip`` is false; it names the first one.
        """
        n, bits = rows.size, count.bit_length()
        check_key(n, count)
        self.shift = n.bit_length()
        if n > self._memory.shape[1]:
            self._memory = np.empty((2, n + n // 4), np.uint64)
        keys, spare = self._memory[:, :n]
        self.hot_threshold = max(256, n // (SHARE * parts))
        parts = 1 if n <= ALONE else parts
        shift, found = np.uint64(self.shift), np.empty((parts, 3), np.int64)
        compiled = sort()
        calling.call(compiled.pack, parts, self._threads, rows, count, shift, keys, found)
        self.out_of_range = int(found[:, 0].sum())
        if self.out_of_range and not skip:
            at = int(next(first for bad, first, _ in found if bad))
            raise RowIndexError.of(rows[at], at, count)
        ascending = found[:, 2].all() and not found[:, 0].any()
        if bits and not (ascending and (parts == 1 or _borders_ascend(rows, parts))):
            width = min(DIGIT, max(4, n.bit_length() - 2))
            digits = -(-bits // width)
            width = -(-bits // digits)
            counts = np.empty((parts, 2**width), np.int64)
            given = keys, spare, shift, digits, np.uint64(width), counts
            calling.call(compiled.sort, parts, self._threads, *given)
            keys = spare if digits % 2 else keys
        self.keys = keys[: n - self.out_of_range]
        spans = np.empty((n // self.hot_threshold + 1, 2), np.int64)
        self.hot = spans[: compiled.find_hot(self.keys, shift, self.hot_threshold, spans)]


def _borders_ascend(rows: HostArray, parts: int) -> bool:
    """Whether the first number of each part is not below the last one of the part before."""
    borders = [rows.size * part // parts for part in range(1, parts)]
    return all(rows[at - 1] <= rows[at] for at in borders if 0 < at < rows.size)
