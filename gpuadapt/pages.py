"""Memory of large states: small pages while few rows are in use, huge pages afterwards.

NumPy asks the system for huge pages for large arrays: the first access to a page allocates 2 MB.
That is fast if the whole array is used, but costs 2 MB per row if few rows of a table are. Large
states are therefore mapped here, and the kind of page depends on the first accesses.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray

LARGE = 2**22
"""Size in bytes from which NumPy asks for huge pages."""

SMALL_PAGE, HUGE_PAGE = mmap.PAGESIZE, 2**21

THRESHOLD = 0.5
"""Make pages huge once this fraction of the small pages is in use."""

BYTES_PER_STEP = 2**23
"""Bytes of each state that one step makes huge; takes about 5 ms."""

COLLAPSE = 25
"""MADV_COLLAPSE of Linux: make pages huge now."""

SAMPLES, SAMPLE_LENGTH = 64, 1024
"""Number of runs of pages in a sample, and pages per run."""

EXCLUSIVE = np.uint64(1 << 56)
"""The bit of an entry of /proc/self/pagemap that is set for a page that was written."""

SUPPORTED = all(hasattr(mmap, f"MADV_{name}") for name in ("HUGEPAGE", "NOHUGEPAGE"))
"""True if the system has both calls; otherwise states are ordinary NumPy arrays."""


class Pages(mmap.mmap):
    """Anonymous memory of one array."""

    huge = False
    """True once huge pages have been asked for."""


def zeros(count: int) -> HostArray:
    """Return a zeroed uint8 array of ``count`` bytes, of which no page is in use yet.

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


def pages_of(array: Array) -> Pages | None:
    """Return the `Pages` under an array made by `zeros`; None for other arrays."""
    while isinstance(array, np.ndarray):
        array = array.base
    memory = array.obj if isinstance(array, memoryview) else array
    return memory if isinstance(memory, Pages) else None


def _small(arrays: Iterable[Any]) -> Iterator[Pages]:
    """Yield the `Pages` for which huge pages have not been asked for."""
    for array in arrays:
        pages = pages_of(array)
        if pages is not None and not pages.huge:
            yield pages


def has_pages(arrays: Iterable[Any]) -> bool:
    """Return True if an array was made by `zeros` and may still have small pages."""
    return next(_small(arrays), None) is not None


def touch_all(*arrays: Any) -> None:
    """Ask for huge pages, before the arrays are written as a whole."""
    for pages in _small(arrays):
        pages.huge = True
        if _advise(pages, mmap.MADV_HUGEPAGE) and fraction_in_use(pages) > 0:
            _advise(pages, COLLAPSE)


def _advise(pages: Pages, advice: int, start: int = 0, stop: int | None = None) -> bool:
    """Call madvise for bytes start to stop; return False if the system refuses."""
    try:
        if advice != COLLAPSE or _huge_pages_allowed():
            pages.madvise(advice, start, (len(pages) if stop is None else stop) - start)
    except (OSError, ValueError):
        return False
    return True


@cache
def _huge_pages_allowed() -> bool:
    """Return False if the system's settings forbid huge pages."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
            return "[never]" not in file.read()
    except OSError:
        return False


def _address(pages: Pages) -> int:
    return int(np.frombuffer(pages, np.uint8).ctypes.data)


def fraction_in_use(pages: Pages) -> float:
    """Estimate the fraction of small pages in use from a sample; 0 if the system does not tell."""
    count = len(pages) // SMALL_PAGE
    first = _address(pages) // SMALL_PAGE
    length = min(SAMPLE_LENGTH, -(-count // SAMPLES))
    starts = np.linspace(0, count - length, SAMPLES).astype(np.int64)
    try:
        file = os.open("/proc/self/pagemap", os.O_RDONLY)
        try:
            data = b"".join(os.pread(file, 8 * length, 8 * (first + k)) for k in starts.tolist())
        finally:
            os.close(file)
    except OSError:
        return 0.0
    entries = np.frombuffer(data, np.uint64)
    return float(((entries & EXCLUSIVE) != 0).mean()) if entries.size else 0.0


class Residence:
    """Choose the pages of one parameter's large states by the rows written so far."""

    def __init__(self) -> None:
        self._small_asked = False
        """True once small pages have been asked for."""
        self._touched = self._next_sample = 0
        """Upper bound of the bytes in use, and the bound at which to take the next sample."""
        self._collapsed = -1
        """Bytes of each state made huge so far; -1 before the first."""
        self.settled = False
        """True once all pages are huge."""

    def all(self, arrays: Callable[[], Iterable[Any]]) -> None:
        """Prepare for a write to all elements of ``arrays()``."""
        if not self.settled:
            touch_all(*arrays())
            self.settled = True

    def rows(self, count: int, arrays: Callable[[], Iterable[Any]]) -> None:
        """Prepare for a write to ``count`` rows of ``arrays()``, which is rarely called."""
        if self.settled:
            return
        # Exact rows also write the rows that are due to catch up.
        self._touched += count * SMALL_PAGE + (self._next_sample >> 12)
        if self._collapsed < 0 and self._touched < self._next_sample:
            return
        every = list(_small(arrays()))
        largest = max(every, key=len, default=None)
        if largest is None:
            self.settled = True
        elif self._collapsed >= 0:
            self._collapse(every)
        elif not self._small_asked:
            self._small_asked = True
            for pages in every:
                _advise(pages, mmap.MADV_NOHUGEPAGE)
            self._next_sample = int(THRESHOLD * len(largest))
        elif fraction_in_use(largest) < THRESHOLD:
            self._next_sample = 2 * self._touched
        else:
            for pages in every:
                _advise(pages, mmap.MADV_HUGEPAGE)
            self._collapsed = 0

    def _collapse(self, every: Iterable[Pages]) -> None:
        """Make the next BYTES_PER_STEP of each array huge."""
        start, self._collapsed = self._collapsed, self._collapsed + BYTES_PER_STEP
        self.settled = True
        for pages in every:
            # Each part ends at the boundary of a huge page.
            before = _address(pages) % HUGE_PAGE
            stop = start + BYTES_PER_STEP - before
            _advise(pages, COLLAPSE, max(start - before, 0), min(stop, len(pages)))
            pages.huge = stop >= len(pages)
            self.settled = self.settled and pages.huge
