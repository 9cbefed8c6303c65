"""`RowGrad`: the gradient of a table, as rows."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.formats import PLAIN, Operand, uniform
from gpuadapt.kernels.numbers import FIRST
from gpuadapt.kernels.rule import rule

from .arrays import KINDS, backend_of, bits_of, describe, kind_of, namespace, on_device, plain
from .errors import GradientError
from .launch import bind_rows, numbers

DUPLICATES = ("sum", "mean")
"""What rows that occur more than once are made into."""


class RowGrad:
    """The gradient of a table's rows: for each row of values, the number of its row.

    `Optimizer.step` takes it wherever a gradient of the whole table would go, and updates
    the rows that occur in it, in time and memory that depend on their number alone. Rows that
    do not occur keep their bits, parameter and states, momentum and weight decay included
    ("lazy" updates, as in torch's SparseAdam and TensorFlow's LazyAdam): where a zero gradient
    would move them, the result is not that of the dense gradient, unless the optimizer was
    made with ``sparse="exact"``.

    Parameters
    ----------
    rows : array of int32 or int64, shape (n,)
        Numbers of rows, from 0, in any order, as often as they occur.
    values : array, shape (n, \\*row shape)
        Their gradients, on the table's device; of any type that gradients have.
    duplicates : {"sum", "mean"}
        Rows that occur more than once are summed first, in order of occurrence, or averaged
        (that sum divided by their number).
    count : int, or array of int64 with one element, optional
        Only so many rows, the first, are in use; all of them by default. As an array on a GPU
        it may change when a step that has been captured is replayed.

    Raises
    ------
    GradientError
        Not such arrays.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> table = np.zeros((1000, 2), np.float32)
    >>> rows, values = np.array([7, 7, 2]), np.ones((3, 2), np.float32)
    >>> ga.SGD(table, lr=0.5).step(ga.RowGrad(rows, values))
    >>> table[[2, 7]]
    array([[-0.5, -0.5],
           [-1. , -1. ]], dtype=float32)
    """

    __slots__ = ("_count", "_duplicates", "_rows", "_values")

    def __init__(
        self, rows: Any, values: Any, *, duplicates: str = "sum", count: Any = None
    ) -> None:
        backend = _backend_of(rows)
        if backend is None or rows.ndim != 1 or rows.dtype not in (np.int32, np.int64):
            raise GradientError(
                f"rows: got {describe(rows)}, expected a 1-D array of int32 or int64"
            )
        fits = _backend_of(values) == backend and kind_of(values) is not None
        if not (fits and values.shape[:1] == rows.shape):
            raise GradientError(
                f"values: got {describe(values)}, expected {', '.join(KINDS)} where rows are, "
                f"of shape ({len(rows)}, ...)"
            )
        if not isinstance(duplicates, str) or duplicates not in DUPLICATES:
            names = ", ".join(map(repr, DUPLICATES))
            raise GradientError(f"duplicates: got {duplicates!r}, expected one of {names}")
        self._rows = plain(rows)
        self._values = plain(values)
        self._duplicates = duplicates
        self._count = None if count is None else _counted(count, self._rows, backend)

    @property
    def rows(self) -> Any:
        """Numbers of rows."""
        return self._rows

    @property
    def values(self) -> Any:
        """Their gradients."""
        return self._values

    @property
    def duplicates(self) -> str:
        """What is done about rows that occur more than once."""
        return self._duplicates

    @property
    def count(self) -> Any:
        """How many of the rows are in use, an int or an array on the GPU; None for all."""
        return self._count

    @property
    def arrays(self) -> tuple[Any, ...]:
        """All arrays that it consists of."""
        on_gpu = self._count is not None and not isinstance(self._count, int)
        return (self._rows, self._values, *[self._count] * on_gpu)

    @classmethod
    def from_dense(cls, gradient: Any) -> RowGrad:
        """The rows of a dense gradient that are not all zero.

        Parameters
        ----------
        gradient : array, shape (rows, \\*row shape)
        """
        backend = _backend_of(gradient)
        if backend is None or gradient.ndim == 0 or kind_of(gradient) is None:
            raise GradientError(
                f"gradient: got {describe(gradient)}, expected an array of {', '.join(KINDS)} "
                "with rows"
            )
        with on_device(gradient):
            used = (gradient != 0).any(axis=tuple(range(1, gradient.ndim)))
            rows = namespace(backend).flatnonzero(used)
            return cls(rows, gradient[rows])

    @classmethod
    def from_scipy(cls, gradient: Any) -> RowGrad:
        """The rows of a SciPy (or CuPy) CSR matrix that have entries, each whole.

        Parameters
        ----------
        gradient : csr_array or csr_matrix, shape (rows, columns)
        """
        if getattr(gradient, "format", None) != "csr":
            raise GradientError(f"gradient: got {describe(gradient)}, expected a CSR matrix")
        pointers = gradient.indptr
        with on_device(pointers):
            xp = namespace(backend_of(pointers) or "cpu")
            rows = xp.flatnonzero(pointers[1:] != pointers[:-1])
            return cls(rows, gradient[rows].toarray())

    def coalesced(self) -> RowGrad:
        """The same gradient with every row once, in ascending order.

        Sums (or means) have the bits that an update would use; those of 16 bits are in float32.
        """
        with on_device(self.values):
            xp = namespace(backend_of(self.rows) or "cpu")
            used = None if self.count is None else int(self.count)
            touched, places = xp.unique(self.rows[:used], return_inverse=True)
            values = xp.empty((len(touched), *self.values.shape[1:]), _summed(self.values))
            _overwrite(values, RowGrad(places, self.values[:used], duplicates=self.duplicates))
            return RowGrad(touched, values)

    def to_dense(self, shape: int | Sequence[int]) -> Any:
        """The gradient of the whole table: an array with zeros where there are no rows.

        Parameters
        ----------
        shape : int or sequence of int
            The table's.

        Raises
        ------
        GradientError
            The rows of values are not those of such a table.
        RowIndexError
            A row is not in the table.
        """
        try:
            shape = tuple(map(operator.index, np.atleast_1d(shape)))
        except (TypeError, ValueError):
            shape = ()
        if not shape or min(shape) < 0 or shape[1:] != self.values.shape[1:]:
            raise GradientError(f"shape: got {shape}, expected (rows, *{self.values.shape[1:]})")
        with on_device(self.values):
            table = namespace(backend_of(self.rows) or "cpu").zeros(shape, _summed(self.values))
            _overwrite(table, self)
            return table

    def __repr__(self) -> str:
        used = "" if self.count is None else f", {self.count} of them in use"
        return f"RowGrad({len(self.rows):,} rows{used}, values {describe(self.values)})"


def _counted(count: Any, rows: Any, backend: str) -> Any:
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
        if 0 <= number <= len(rows):
            with on_device(rows):
                return number if backend == "cpu" else namespace(backend).full(1, number, np.int64)
    raise GradientError(
        f"count: got {count!r}, expected 0 to {len(rows)}, or one int64 where rows are"
    )


def _backend_of(array: Any) -> str | None:
    """As `backend_of`, without masked arrays: what is masked would be taken for numbers."""
    return None if isinstance(array, np.ma.MaskedArray) else backend_of(array)


def _summed(values: Any) -> np.dtype:
    """The type of sums of values."""
    return np.dtype("float64" if kind_of(values) == "float64" else "float32")


@rule
def overwrite(p: Any, g: Any, h: Any) -> Any:
    """p <- g"""
    return g


def _overwrite(table: Any, gradient: RowGrad) -> None:
    """Write the merged rows over those of a table."""
    backend = backend_of(table) or "cpu"
    kind = kind_of(gradient.values) or ""
    formats = uniform(overwrite, table.dtype)._replace(gradient=PLAIN[kind])
    update = bind_rows(overwrite, backend, formats, Operand([table]))
    given = gradient.rows, bits_of(gradient.values), gradient.duplicates
    plan = update.prepare(*given, gradient.count, False, math.inf)
    update(plan, FIRST, numbers(backend, ()))
