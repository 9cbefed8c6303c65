"""Row indices and counts of rows, as users give them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import backend_of, namespace, on_device, to_host
from .errors import GradientError, RowIndexError
from .foreign import as_array

INDEX = (np.dtype(np.int64), np.dtype(np.int32))
"""Dtypes of row indices that kernels read."""


def listed(rows: Any) -> Any:
    """Convert a list of row indices to a NumPy array; return anything else as it is."""
    if isinstance(rows, bool) or not isinstance(rows, (int, list, tuple, range, np.generic)):
        return rows
    try:
        array = np.asarray(rows)
    except ValueError:
        return rows
    return array if array.size else array.astype(np.int64)


def as_given(error: RowIndexError, rows: Any) -> RowIndexError:
    """Restate an error about an element of `RowGrad.index` as one about the user's ``rows``.

    Parameters
    ----------
    error : RowIndexError
        With a position in `RowGrad.index`, or None.
    rows : array of integers, any shape
        `RowGrad.rows`.
    """
    if error.position is None or (rows.ndim == 1 and rows.dtype in INDEX):
        return error
    indices = np.unravel_index(error.position, rows.shape)
    position = tuple(map(int, indices)) if rows.ndim > 1 else error.position
    return RowIndexError.of(int(to_host(rows)[indices]), position, error.count)


def counted(count: Any, rows: Any, backend: str) -> Any:
    """Check how many rows to use, and put the number where the backend reads it.

    Parameters
    ----------
    count : int, or array of int64 with one element
    rows : array of integers, any shape
    backend : {"cpu", "cuda"}
        Of ``rows``.

    Returns
    -------
    int on the CPU; array of int64, shape (1,), on a GPU

    Raises
    ------
    GradientError
        Not such a number, or not from 0 to ``rows.size``.
    """
    count = as_array("count", count)
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
    """Return the result of `counted` as int (None: ``rows.size``); waits for a GPU."""
    if count is None:
        return int(rows.size)
    return count if isinstance(count, int) else int(to_host(count)[0])


def advice(given: Any) -> str:
    """Return the end of an error message for what looks like a gradient of rows; "" otherwise."""
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
