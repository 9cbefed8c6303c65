"""A batch's row numbers, checked and sorted, in memory that is kept from step to step."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np

from ..errors import RowIndexError, check_key
from . import compile, threads

DIGIT = 12
"""Most bits of the numbers that one pass sorts by."""

ALONE = 4096
"""Rows up to which one thread sorts them faster: measured, two are as fast at about 5,000."""

SHARE = 8
"""A row that fills more than 1 / SHARE of a thread's part of a batch is a frequent one."""


@cache
def sort() -> ModuleType:
    """Compile `loops/sort.py`."""
    text = (compile.LOOPS / "sort.py").read_text(encoding="utf-8")
    return compile.load("sort", text)


class Batch:
    """Keys of the last batch: a row's number above its position, ascending.

    Attributes
    ----------
    keys : ndarray of uint64
        Of the rows in range.
    shift : int
        Bits of a position.
    frequent : ndarray of int64, shape (k, 2)
        Where the keys of rows begin and end that occur often.
    often : int
        Every row that occurs more than twice as often is frequent.
    wrong : int
        Rows that were out of range.
    """

    def __init__(self) -> None:
        self.keys = np.empty(0, np.uint64)
        self.shift = self.often = self.wrong = 0
        self.frequent = np.empty((0, 2), np.int64)
        self._memory = np.empty((2, 0), np.uint64)

    def load(self, rows: np.ndarray, count: int, skip: bool, parts: int) -> None:
        """Check and sort the row numbers of a batch for a table of ``count`` rows.

        Raises
        ------
        RowIndexError
            The first that is out of range, unless they are to be skipped.
        """
        n, bits = rows.size, count.bit_length()
        check_key(n, count)
        self.shift = n.bit_length()
        if n > self._memory.shape[1]:
            self._memory = np.empty((2, n + n // 4), np.uint64)
        keys, spare = self._memory[:, :n]
        self.often = max(256, n // (SHARE * parts))
        parts = 1 if n <= ALONE else parts
        shift, found = np.uint64(self.shift), np.empty((parts, 3), np.int64)
        compiled = sort()
        threads.call(compiled.pack, rows, count, shift, keys, found)
        self.wrong = int(found[:, 0].sum())
        if self.wrong and not skip:
            at = int(next(first for bad, first, _ in found if bad))
            raise RowIndexError.of(rows[at], at, count)
        if bits and not _ascending(rows, found, parts):
            width = min(DIGIT, max(4, n.bit_length() - 2))
            digits = -(-bits // width)
            width = -(-bits // digits)
            counts = np.empty((parts, 2**width), np.int64)
            threads.call(compiled.sort, keys, spare, shift, digits, np.uint64(width), counts)
            keys = spare if digits % 2 else keys
        self.keys = keys[: n - self.wrong]
        spans = np.empty((n // self.often + 1, 2), np.int64)
        self.frequent = spans[: compiled.frequent(self.keys, shift, self.often, spans)]


def _ascending(rows: np.ndarray, found: np.ndarray, parts: int) -> bool:
    """Whether the numbers ascend already, from what each part of them found."""
    borders = [rows.size * part // parts for part in range(1, parts)]
    inside = found[:, 2].all() and not found[:, 0].any()
    return bool(inside and all(rows[at - 1] <= rows[at] for at in borders if 0 < at < rows.size))
