"""Row numbers in order: a parallel radix sort of (row, position).

A key holds a row's number above the position at which it occurred, so that sorting keys puts
equal rows together in order of occurrence.
"""

import numpy as np
from numba import njit

from ..intrinsics import fork
from .interface import ENTRY, OPTIONS


@njit(**OPTIONS)
def ends(n, parts, part):
    """The positions between which a part lies."""
    return n * part // parts, n * (part + 1) // parts


@njit(**OPTIONS)
def pack_part(part, rows, count, shift, keys, found):
    """Make the keys of a part; see `pack`."""
    start, stop = ends(rows.size, found.shape[0], part)
    bad, first, ascending, before = 0, -1, 1, np.int64(0)
    for i in range(start, stop):
        row = np.int64(rows[i])
        if row < 0 or row >= count:
            if bad == 0:
                first = i
            bad += 1
            row = count
        if row < before:
            ascending = 0
        before = row
        keys[i] = (np.uint64(row) << shift) | np.uint64(i)
    found[part, 0], found[part, 1], found[part, 2] = bad, first, ascending


@njit(**OPTIONS)
def count_part(part, keys, shift, counts):
    """How often each value of a digit occurs in a part."""
    start, stop = ends(keys.size, counts.shape[0], part)
    of_part = counts[part]
    of_part[:] = 0
    mask = np.uint64(of_part.size - 1)
    for i in range(start, stop):
        of_part[np.intp((keys[i] >> shift) & mask)] += 1


@njit(**OPTIONS)
def place_part(part, keys, shift, places, sorted_keys):
    """Put each key of a part where its digit's next place is."""
    start, stop = ends(keys.size, places.shape[0], part)
    of_part = places[part]
    mask = np.uint64(of_part.size - 1)
    for i in range(start, stop):
        digit = np.intp((keys[i] >> shift) & mask)
        sorted_keys[of_part[digit]] = keys[i]
        of_part[digit] += 1


@njit(**OPTIONS)
def accumulate(counts):
    """Counts of (part, digit) become places: digits in order, within one the parts in order."""
    total = 0
    for digit in range(counts.shape[1]):
        for part in range(counts.shape[0]):
            counted = counts[part, digit]
            counts[part, digit] = total
            total += counted


@njit(**ENTRY)
def pack(rows, count, shift, keys, found, pool):
    """Make a key of every row number; ``found`` (parts, 3) has a line for each part.

    ``found`` is (rows out of range, the first position of one, 1 if rows ascend). Rows out
    of range get the number ``count``, and so come last.
    """
    parts = found.shape[0]
    fork(pack_part, (rows, count, shift, keys, found), parts, parts, pool)


@njit(**ENTRY)
def sort(keys, spare, shift, digits, width, counts, pool):
    """Sort by ``digits`` of ``width`` bits, from ``shift`` on; in ``spare`` if they are odd."""
    parts = counts.shape[0]
    for digit in range(digits):
        at = shift + np.uint64(digit) * width
        fork(count_part, (keys, at, counts), parts, parts, pool)
        accumulate(counts)
        fork(place_part, (keys, at, counts, spare), parts, parts, pool)
        keys, spare = spare, keys


@njit(**ENTRY)
def find_hot(keys, shift, min_count, spans):
    """Write the first and the stop key of rows that occur often to ``spans``; returns their number.

    All rows that occur more than ``2 min_count`` times are found, and none with ``min_count`` or
    fewer: the search goes in steps of ``min_count`` keys, and a hot row covers two of them.
    """
    n, found, i = keys.size, 0, 0
    while i + min_count < n:
        row = keys[i] >> shift
        if keys[i + min_count] >> shift != row:
            i += min_count
            continue
        start, stop = i, i + min_count + 1
        while start > 0 and keys[start - 1] >> shift == row:
            start -= 1
        while stop < n and keys[stop] >> shift == row:
            stop += 1
        spans[found, 0], spans[found, 1] = start, stop
        found += 1
        i = stop
    return found
