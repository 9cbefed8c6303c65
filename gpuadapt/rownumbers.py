"""Numbers of a table's rows, as users give them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import backend_of, namespace, on_device, to_host
from .errors import GradientError, RowIndexError

INDEX = (np.dtype(np.int64), np.dtype(np.int32))
"""Types of row numbers that kernels read."""


def listed(rows: Any) -> Any:
    """A list of row numbers as an array of NumPy's; anything else as it is."""
    if isinstance(rows, bool) or not isinstance(rows, (int, list, tuple, range, np.generic)):
        return rows
    try:
        found = np.asarray(rows)
    except ValueError:
        return rows
    return found if found.size else found.astype(np.int64)


def as_given(error: RowIndexError, rows: Any) -> RowIndexError:
    """An error about a row of `RowGrad.index`, with the number and its place in ``rows``."""
    if error.position is None or (rows.ndim == 1 and rows.dtype in INDEX):
        return error
    place = np.unravel_index(error.position, rows.shape)
    at = tuple(map(int, place)) if rows.ndim > 1 else error.position
    return RowIndexError.of(int(to_host(rows)[place]), at, error.count)


def counted(count: Any, rows: Any, backend: str) -> Any:
    """How many rows are in use, where the backend wants it.

    Raises
    ------
    GradientError
    """
    if backend == "cuda" and backend_of(count) == "cuda":
        if count.size == 1 and count.dtype == np.int64:
            return count.reshape(1)
    else:
        try:
            number = operator.index(count.item() if getattr(count, "size", 0) == 1 else count)
        except TypeError:
            number = -1
        if 0 <= number <= rows.size:
            with on_device(rows):
                return number if backend == "cpu" else namespace(backend).full(1, number, np.int64)
    raise GradientError(
        f"count: got {count!r}, expected 0 to {rows.size}, or one int64 where rows are"
    )


def in_use(count: Any, rows: Any) -> int:
    """What `counted` returned, or None for all rows, as a number; waits for a GPU."""
    if count is None:
        return int(rows.size)
    return count if isinstance(count, int) else int(to_host(count)[0])


def advice(given: Any) -> str:
    """What to write instead of something that seems to be a gradient of rows; "" for others."""
    if hasattr(given, "tocsr"):
        call = "" if getattr(given, "format", None) == "csr" else ".tocsr()"
        return f"; of a sparse matrix, RowGrad.from_scipy(gradient{call})"
    if backend_of(given) is not None:
        pair = given.dtype.kind in "iu"
    elif hasattr(given, "is_sparse"):  # torch's
        pair = bool(given.is_sparse or getattr(given, "is_sparse_csr", False))
    else:
        pair = isinstance(given, (Mapping, list, tuple)) or hasattr(given, "indices")
    return "; of rows with their gradients, RowGrad(rows, values)" if pair else ""
