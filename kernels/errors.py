"""The package's exceptions: one base, so that ``except gpuadapt.Error`` catches them all."""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """Base of every exception that gpuadapt raises on purpose."""


class RuleError(Error):
    """A rule is refused: its content, its source or a declaration."""


class SourceError(Error, ValueError):
    """A text of a kernel that there is not: an unknown backend, traversal, type or form."""


class BackendError(Error, RuntimeError):
    """A backend was asked for that this machine does not have."""


class CacheWarning(UserWarning):
    """Compiled kernels are not kept on disk, or those that are there are not used."""


class TuningWarning(UserWarning):
    """A file of tuned launch parameters is not used: kernels are launched with the defaults."""


class RowIndexError(Error, IndexError):
    """A row index out of the range of its table."""

    position: Any = None
    """The position among the given row indices, if there is one."""
    count: int = 0
    """Number of rows of the table."""

    @classmethod
    def of(cls, row: int, position: Any, count: int) -> RowIndexError:
        """Return the error that names a row of a batch."""
        made = cls(f"row {row} at position {position} is not in a table of {count:,} rows")
        made.position, made.count = position, count
        return made


def check_key(n: int, count: int) -> None:
    """Raise `RowIndexError` if n positions and ``count`` rows do not fit in a key of 64 bits."""
    if n.bit_length() + count.bit_length() > 64:
        raise RowIndexError(f"{n:,} rows of a table of {count:,} are too many to sort at once")
