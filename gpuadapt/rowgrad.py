"""`RowGrad`: the gradient of a table, as rows."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.formats import PLAIN, Operand, uniform
from gpuadapt.kernels.language.rule import rule
from gpuadapt.kernels.numerics.scalar_layout import FIRST

from .addition import plain_backend, summed, total, widened
from .arrays import (
    DTYPES,
    backend_of,
    bits_of,
    describe,
    dtype_name,
    namespace,
    on_device,
    plain,
)
from .errors import GradientError, RowIndexError
from .launch import RowUpdate, bind_rows, scalars
from .rownumbers import INDEX, as_given, counted, in_use, listed

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
    rows : array of any integer type, of any shape, or (of NumPy's values) a list of int
        Numbers of rows, from 0, in any order, as often as they occur; ``(batch, k)`` for instance.
        Types other than int32 and int64 are copied to int64 in each step.
    values : array, shape (\\*rows.shape, \\*row shape)
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

    Notes
    -----
    ``a + b``, `sum`, and a list as the gradient of one parameter in `Optimizer.step` add gradients
    of the same table. Of two `RowGrad` the rows of the second follow those of the first, so that
    equal rows are summed in order of occurrence; one whose duplicates are averaged is averaged
    first, and only rows in use are taken (of a ``count`` on a GPU, that waits for it). A `RowGrad`
    and an array of the whole table give such an array; in a list, rows are summed before arrays,
    and the step is one of all rows. Of different element types the result has float64 if one of
    them has, otherwise float32.

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
        backend = plain_backend(rows)
        if backend is None and plain_backend(values) == "cpu":
            rows = listed(rows)
            backend = plain_backend(rows)
        if backend is None or rows.dtype.kind not in "iu":
            raise GradientError(f"rows: got {describe(rows)}, expected an array of integers")
        fits = plain_backend(values) == backend and dtype_name(values) is not None
        if not (fits and values.shape[: rows.ndim] == rows.shape):
            shape = ", ".join([*map(str, rows.shape), "..."])
            raise GradientError(
                f"values: got {describe(values)}, expected {', '.join(DTYPES)} where rows are, "
                f"of shape ({shape})"
            )
        if not isinstance(duplicates, str) or duplicates not in DUPLICATES:
            names = ", ".join(map(repr, DUPLICATES))
            raise GradientError(f"duplicates: got {duplicates!r}, expected one of {names}")
        self._rows = plain(rows)
        self._values = plain(values)
        self._duplicates = duplicates
        self._count = None if count is None else counted(count, self._rows, backend)

    @property
    def rows(self) -> Any:
        """Numbers of rows."""
        return self._rows

    @property
    def values(self) -> Any:
        """Their gradients."""
        return self._values

    @property
    def index(self) -> Any:
        """Numbers of rows as kernels take them: int32 or int64, one dimension.

        What int64 does not hold is negative, and so in no table.
        """
        rows = self._rows if self._rows.ndim == 1 else self._rows.reshape(-1)
        return rows if rows.dtype in INDEX else rows.astype(np.int64)

    @property
    def captured(self) -> bool:
        """Whether `index` is the memory of `rows` itself, as in a step that is captured."""
        whole = self._rows.ndim == 1 or self._rows.flags.c_contiguous
        return bool(whole and self._rows.dtype in INDEX)

    @property
    def flat(self) -> Any:
        """Values of shape (n, \\*row shape)."""
        if self._rows.ndim == 1:
            return self._values
        return self._values.reshape(self._rows.size, *self.row_shape)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        shape: tuple[int, ...] = self._values.shape[self._rows.ndim :]
        return shape

    @property
    def duplicates(self) -> str:
        """What is done about rows that occur more than once."""
        return self._duplicates

    @property
    def count(self) -> Any:
        """How many of the rows are in use, an int or an array on the GPU; None for all."""
        return self._count

    @property
    def used(self) -> int:
        """The same as a number; waits for a GPU."""
        return in_use(self._count, self._rows)

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
        backend = plain_backend(gradient)
        if backend is None or gradient.ndim == 0 or dtype_name(gradient) is None:
            raise GradientError(
                f"gradient: got {describe(gradient)}, expected an array of {', '.join(DTYPES)} "
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
            call = "; call its tocsr()" if hasattr(gradient, "tocsr") else ""
            raise GradientError(f"gradient: got {describe(gradient)}, expected a CSR matrix{call}")
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
            used = self.used
            touched, places = xp.unique(self.index[:used], return_inverse=True)
            values = xp.empty((len(touched), *self.row_shape), summed([self.values]))
            _overwrite(values, RowGrad(places, self.flat[:used], duplicates=self.duplicates))
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
        if not shape or min(shape) < 0 or shape[1:] != self.row_shape:
            raise GradientError(f"shape: got {shape}, expected (rows, *{self.row_shape})")
        with on_device(self.values):
            table = namespace(backend_of(self.rows) or "cpu").zeros(shape, summed([self.values]))
            _overwrite(table, self)
            return table

    __array_ufunc__ = None  # so that array + RowGrad is ours

    def __add__(self, other: Any) -> Any:
        if isinstance(other, RowGrad):
            return joined([self, other])
        if plain_backend(other) is None:
            return NotImplemented
        return total([self.to_dense(other.shape), other])

    def __radd__(self, other: Any) -> Any:
        # `sum` begins with 0.
        return self if isinstance(other, int) and other == 0 else self.__add__(other)

    def __repr__(self) -> str:
        used = "" if self.count is None else f", {self.count} of them in use"
        return f"RowGrad({self.rows.size:,} rows{used}, values {describe(self.values)})"


def joined(gradients: Sequence[RowGrad]) -> RowGrad:
    """The sum of gradients of one table: the rows of each behind those of the one before.

    Raises
    ------
    GradientError
        They are of different tables, or on different devices.
    """
    first, *others = (one.coalesced() if one.duplicates == "mean" else one for one in gradients)
    for other in others:
        if other.row_shape != first.row_shape or not _together(other, first):
            raise GradientError(f"cannot add {other!r} to {first!r}: not of one table")
    every = (first, *others)
    with on_device(first.values):
        xp = namespace(backend_of(first.rows) or "cpu")
        used = [one.used for one in every]
        kinds = {dtype_name(one.values) for one in every}
        values = [one.flat[:n] for one, n in zip(every, used, strict=True)]
        if len(kinds) > 1:
            values = [widened(one, summed(values)) for one in values]
        rows = [one.index[:n] for one, n in zip(every, used, strict=True)]
        if len({one.dtype for one in rows}) > 1:
            rows = [one.astype(np.int64) for one in rows]
        return RowGrad(xp.concatenate(rows), xp.concatenate(values))


def _together(a: RowGrad, b: RowGrad) -> bool:
    where = backend_of(a.values)
    on = where == backend_of(b.values)
    return on and (where == "cpu" or a.values.device == b.values.device)


def prepared(update: RowUpdate, gradient: RowGrad, skip: bool, most: float) -> Any:
    """What `RowUpdate.prepare` makes of a gradient.

    Raises
    ------
    RowIndexError
        With the row number and its place as they were given.
    """
    try:
        return update.prepare(
            gradient.index,
            bits_of(gradient.flat),
            gradient.duplicates,
            gradient.count,
            skip,
            most,
        )
    except RowIndexError as error:
        raise as_given(error, gradient.rows) from None


@rule
def overwrite(p: Any, g: Any, h: Any) -> Any:
    """p <- g"""
    return g


def _overwrite(table: Any, gradient: RowGrad) -> None:
    """Write the merged rows over those of a table."""
    backend = backend_of(table) or "cpu"
    kind = dtype_name(gradient.values) or ""
    formats = uniform(overwrite, table.dtype)._replace(gradient=PLAIN[kind])
    update = bind_rows(overwrite, backend, formats, Operand([table]))
    update(prepared(update, gradient, False, math.inf), FIRST, scalars(backend, ()))
