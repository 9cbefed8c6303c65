"""Memory of large states: small pages while few rows have been touched, huge pages afterwards.

For large arrays NumPy asks the system for huge pages: what is touched first takes 2 MB. That is
fast where all of an array is used, and 2 MB for each row where few rows of a table are. So large
states have memory of their own here, and what is asked for depends on what touches them first.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np

LARGE = 2**22
"""Bytes from which NumPy asks for huge pages."""

SMALL_PAGE, HUGE_PAGE = mmap.PAGESIZE, 2**21

MOST = 0.5
"""The share of small pages in use from which on they are made huge."""

PIECE = 2**23
"""Bytes of each state that are made huge in one step: about 5 ms."""

COLLAPSE = 25
"""Linux's advice to make pages huge now, which Python has no name for."""

SAMPLES, SAMPLE = 64, 1024
"""How many runs of pages are looked at, and how long they are."""

EXCLUSIVE = np.uint64(1 << 56)
"""The bit of /proc/self/pagemap that a page of our own has, and one of zeros has not."""

SUPPORTED = all(hasattr(mmap, f"MADV_{name}") for name in ("HUGEPAGE", "NOHUGEPAGE"))
"""Whether the system takes such advice; otherwise memory is NumPy's."""


class Pages(mmap.mmap):
    """Memory that belongs to one array."""

    huge = False
    """Whether huge pages have been asked for."""


def zeros(count: int) -> np.ndarray:
    """So many bytes that nobody has touched yet.

    Raises
    ------
    MemoryError
    """
    if count < LARGE or not SUPPORTED:
        return np.zeros(count, np.uint8)
    try:
        pages = Pages(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{count:,} bytes for a state: {error}") from None
    return np.frombuffer(pages, np.uint8)


def pages_of(array: Any) -> Pages | None:
    """The memory that `zeros` made for an array; None for other arrays."""
    while isinstance(array, np.ndarray):
        array = array.base
    found = array.obj if isinstance(array, memoryview) else array
    return found if isinstance(found, Pages) else None


def _own(arrays: Iterable[Any]) -> Iterator[Pages]:
    """The memory of arrays that no huge pages have been asked for."""
    for array in arrays:
        pages = pages_of(array)
        if pages is not None and not pages.huge:
            yield pages


def has_pages(arrays: Iterable[Any]) -> bool:
    """Whether some have memory of `zeros` whose use is not known yet."""
    return next(_own(arrays), None) is not None


def touch_all(*arrays: Any) -> None:
    """Ask for huge pages: these arrays will be used as a whole."""
    for pages in _own(arrays):
        pages.huge = True
        if _advise(pages, mmap.MADV_HUGEPAGE) and share(pages) > 0:
            _advise(pages, COLLAPSE)


def _advise(pages: Pages, advice: int, start: int = 0, stop: int | None = None) -> bool:
    """Give advice; False if the system does not take it."""
    try:
        if advice != COLLAPSE or _wanted():
            pages.madvise(advice, start, (len(pages) if stop is None else stop) - start)
    except (OSError, ValueError):
        return False
    return True


@cache
def _wanted() -> bool:
    """Whether whoever runs this system has not forbidden huge pages."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
            return "[never]" not in file.read()
    except OSError:
        return False


def _address(pages: Pages) -> int:
    return int(np.frombuffer(pages, np.uint8).ctypes.data)


def share(pages: Pages) -> float:
    """The share of small pages that are in use, from a sample; 0 if the system does not say."""
    count = len(pages) // SMALL_PAGE
    first = _address(pages) // SMALL_PAGE
    length = min(SAMPLE, -(-count // SAMPLES))
    starts = np.linspace(0, count - length, SAMPLES).astype(np.int64)
    try:
        file = os.open("/proc/self/pagemap", os.O_RDONLY)
        try:
            found = b"".join(os.pread(file, 8 * length, 8 * (first + k)) for k in starts.tolist())
        finally:
            os.close(file)
    except OSError:
        return 0.0
    entries = np.frombuffer(found, np.uint64)
    return float(((entries & EXCLUSIVE) != 0).mean()) if entries.size else 0.0


class Residence:
    """What touches the large states of one parameter: rows of them, or all."""

    def __init__(self) -> None:
        self._asked = False
        """Whether small pages have been asked for."""
        self._touched = self._next = 0
        """Bytes that rows may have touched so far, and with how many to look at what they have."""
        self._at = -1
        """Up to where pages have been made huge, once that has begun."""
        self.settled = False
        """Whether there is nothing left to do."""

    def all(self, arrays: Callable[[], Iterable[Any]]) -> None:
        """All elements are about to be written."""
        if not self.settled:
            touch_all(*arrays())
            self.settled = True

    def rows(self, count: int, arrays: Callable[[], Iterable[Any]]) -> None:
        """So many rows are about to be written; ``arrays`` is seldom asked for them."""
        if self.settled:
            return
        # Exact rows are brought up to date in turn besides those that occur.
        self._touched += count * SMALL_PAGE + (self._next >> 12)
        if self._at < 0 and self._touched < self._next:
            return
        every = list(_own(arrays()))
        largest = max(every, key=len, default=None)
        if largest is None:
            self.settled = True
        elif self._at >= 0:
            self._collapse(every)
        elif not self._asked:
            self._asked = True
            for pages in every:
                _advise(pages, mmap.MADV_NOHUGEPAGE)
            self._next = int(MOST * len(largest))
        elif share(largest) < MOST:
            self._next = 2 * self._touched
        else:
            for pages in every:
                _advise(pages, mmap.MADV_HUGEPAGE)
            self._at = 0

    def _collapse(self, every: Iterable[Pages]) -> None:
        """Make the next piece of each array huge."""
        start, self._at = self._at, self._at + PIECE
        self.settled = True
        for pages in every:
            # Pieces end where huge pages do.
            before = _address(pages) % HUGE_PAGE
            stop = start + PIECE - before
            _advise(pages, COLLAPSE, max(start - before, 0), min(stop, len(pages)))
            pages.huge = stop >= len(pages)
            self.settled = self.settled and pages.huge
