"""Row numbers in order: a parallel radix sort of (row, position).

A key holds a row's number above the position at which it occurred, so that sorting keys puts
equal rows together in order of occurrence.
"""

import numpy as np
from numba import njit, prange

from .interface import ENTRY, OPTIONS


@njit(**OPTIONS)
def pack_part(rows, start, stop, count, shift, keys, found):
    """Keys of positions start to stop; ``found`` gets what is wrong and whether all ascend.

    ``found`` is (rows out of range, the first position of one, 1 if rows ascend). Rows out
    of range get the number ``count``, and so come last.
    """
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
    found[0], found[1], found[2] = bad, first, ascending


@njit(**OPTIONS)
def count_part(keys, start, stop, shift, counts):
    """How often each value of a digit occurs."""
    counts[:] = 0
    mask = np.uint64(counts.size - 1)
    for i in range(start, stop):
        counts[np.intp((keys[i] >> shift) & mask)] += 1


@njit(**OPTIONS)
def place_part(keys, start, stop, shift, places, sorted_keys):
    """Put each key where its digit's next place is."""
    mask = np.uint64(places.size - 1)
    for i in range(start, stop):
        digit = np.intp((keys[i] >> shift) & mask)
        sorted_keys[places[digit]] = keys[i]
        places[digit] += 1


@njit(**OPTIONS)
def accumulate(counts):
    """Counts of (part, digit) become places: digits in order, within one the parts in order."""
    total = 0
    for digit in range(counts.shape[1]):
        for part in range(counts.shape[0]):
            counted = counts[part, digit]
            counts[part, digit] = total
            total += counted


@njit(**OPTIONS)
def ends(n, parts, part):
    """The positions between which a part lies."""
    return n * part // parts, n * (part + 1) // parts


@njit(parallel=True, **ENTRY)
def pack(rows, count, shift, keys, found, serial):
    """Make a key of every row number; ``found`` has a line for each part."""
    n, parts = rows.size, found.shape[0]
    if serial or parts == 1:
        for part in range(parts):
            start, stop = ends(n, parts, part)
            pack_part(rows, start, stop, count, shift, keys, found[part])
    else:
        for part in prange(parts):
            start, stop = ends(n, parts, np.intp(part))
            pack_part(rows, start, stop, count, shift, keys, found[part])


@njit(parallel=True, **ENTRY)
def sort(keys, spare, shift, digits, width, counts, serial):
    """Sort by ``digits`` of ``width`` bits, from ``shift`` on; in ``spare`` if they are odd."""
    n, parts = keys.size, counts.shape[0]
    for digit in range(digits):
        at = shift + np.uint64(digit) * width
        if serial or parts == 1:
            for part in range(parts):
                start, stop = ends(n, parts, part)
                count_part(keys, start, stop, at, counts[part])
            accumulate(counts)
            for part in range(parts):
                start, stop = ends(n, parts, part)
                place_part(keys, start, stop, at, counts[part], spare)
        else:
            for part in prange(parts):
                start, stop = ends(n, parts, np.intp(part))
                count_part(keys, start, stop, at, counts[part])
            accumulate(counts)
            for part in prange(parts):
                start, stop = ends(n, parts, np.intp(part))
                place_part(keys, start, stop, at, counts[part], spare)
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
