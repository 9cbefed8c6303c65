"""`RowGrad`: the gradient of a table, given by rows."""

from __future__ import annotations

import math
import operator
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from operator import attrgetter
from typing import Any, TypeAlias, get_args, overload

import numpy as np

from gpuadapt.kernels.array_types import Array
from gpuadapt.kernels.formats import PLAIN, Operand, uniform
from gpuadapt.kernels.language.rule import rule
from gpuadapt.kernels.numerics.scalar_layout import FIRST

from . import containers
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
from .choices import Duplicates
from .errors import GradientError, RowIndexError
from .foreign import as_array
from .launch import RowUpdate, bind_rows, run, scalars
from .row_indices import INDEX, as_given, counted, in_use, listed
from .texts import safe

DUPLICATES = get_args(Duplicates)


class RowGrad:
    """The gradient of some rows of a table: row indices, and one row of values for each.

    `Optimizer.step` takes it in place of a gradient of the whole table. The step updates only the
    rows that occur; its time and memory depend on their number alone. Other rows keep the bits of
    parameter and states: no momentum, no weight decay ("lazy" updates, as in torch's SparseAdam
    and TensorFlow's LazyAdam). With ``sparse="exact"`` they end up where dense steps with a zero
    gradient would move them.

    Parameters
    ----------
    rows : array of integers, any shape; or list of int if values are NumPy's
        Row indices from 0, in any order, with duplicates; for example of shape ``(batch, k)``.
        These and the values may be of other libraries, such as torch; they are not copied.
        Each step copies types other than int32 and int64 to int64.
    values : array, shape (\\*rows.shape, \\*row shape)
        The gradient of each row, on the table's device, of any dtype that gradients may have.
    duplicates : {"sum", "mean"}
        Merge duplicate rows by their sum in order of occurrence, or by that sum divided by their
        number.
    count : int, or array of int64 with one element, optional
        Use only the first ``count`` rows; all by default. A captured step reads it at each replay
        if it is an array on the GPU.

    Raises
    ------
    GradientError
        An argument has another type, dtype, shape or device; or count exceeds the rows.

    Notes
    -----
    ``a + b``, `sum`, and a list as the gradient of one parameter in `Optimizer.step` add gradients
    of the same table:

    - Two `RowGrad`: rows are concatenated, so that equal rows are summed in order of occurrence. A
      gradient with ``duplicates="mean"`` is averaged first. Rows beyond ``count`` are dropped,
      which waits for a GPU if ``count`` is there.
    - A `RowGrad` and an array of the whole table: ``+`` gives such an array. In a list rows are
      summed before arrays, and the step updates all rows.
    - Different dtypes: the sum is float64 if one of them is, otherwise float32.

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
        self,
        rows: containers.Array,
        values: containers.Array,
        *,
        duplicates: Duplicates = "sum",
        count: int | containers.Array | None = None,
    ) -> None:
        self._take(rows, values, duplicates, count)

    def _take(self, rows: Any, values: Any, duplicates: Any, count: Any) -> None:
        """Check the arguments and keep them."""
        if not (type(rows) is type(values) is np.ndarray):
            rows, values = as_array("rows", rows), as_array("values", values)
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

    # Steps read these several times: `attrgetter` makes no call of a Python function.
    rows = property(attrgetter("_rows"), doc="Row indices, array of integers, any shape.")
    values = property(
        attrgetter("_values"),
        doc="The gradient of each row, shape (\\*rows.shape, \\*row shape).",
    )
    dtype = property(attrgetter("_values.dtype"), doc="The dtype of the values.")
    duplicates = property(
        attrgetter("_duplicates"), doc='How duplicate rows are merged: "sum" or "mean".'
    )
    count = property(
        attrgetter("_count"),
        doc="How many rows to use: int, or int64 array of shape (1,) on the GPU; None for all.",
    )

    @property
    def index(self) -> Array:
        """Row indices for kernels: int32 or int64, shape (n,).

        An unsigned index beyond int64 wraps to a negative number, which is out of range.
        """
        rows = self._rows if self._rows.ndim == 1 else self._rows.reshape(-1)
        return rows if rows.dtype in INDEX else rows.astype(np.int64)

    @property
    def captured(self) -> bool:
        """True if `index` shares memory with `rows`, as the capture of a step requires."""
        whole = self._rows.ndim == 1 or self._rows.flags.c_contiguous
        return bool(whole and self._rows.dtype in INDEX)

    @property
    def flat(self) -> Array:
        """The values with shape (n, \\*row shape)."""
        if self._rows.ndim == 1:
            return self._values
        return self._values.reshape(self._rows.size, *self.row_shape)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        shape: tuple[int, ...] = self._values.shape[self._rows.ndim :]
        return shape

    @property
    def used(self) -> int:
        """How many rows to use, as int; waits for a GPU if `count` is there."""
        return in_use(self._count, self._rows)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """`rows`, `values` and, if it is an array, `count`."""
        on_gpu = self._count is not None and not isinstance(self._count, int)
        return (self._rows, self._values, *[self._count] * on_gpu)

    @classmethod
    def from_dense(cls, gradient: containers.Array) -> RowGrad:
        """Take the rows of a dense gradient that have a nonzero element.

        Parameters
        ----------
        gradient : array, shape (rows, \\*row shape)
            Of any dtype that gradients may have; its rows are copied.

        Returns
        -------
        RowGrad
            With ascending rows; waits for a GPU.

        Raises
        ------
        GradientError
            Not such an array.
        """
        dense: Any = as_array("gradient", gradient)
        backend = plain_backend(dense)
        if backend is None or dense.ndim == 0 or dtype_name(dense) is None:
            raise GradientError(
                f"gradient: got {describe(dense)}, expected an array of {', '.join(DTYPES)} "
                "with rows"
            )
        with on_device(dense):
            used = (dense != 0).any(axis=tuple(range(1, dense.ndim)))
            rows = namespace(backend).flatnonzero(used)
            return cls(rows, dense[rows])

    @classmethod
    def from_scipy(cls, gradient: Any) -> RowGrad:
        """Take the rows of a SciPy or CuPy CSR matrix that have entries, as dense rows.

        Parameters
        ----------
        gradient : csr_array or csr_matrix, shape (rows, columns)

        Returns
        -------
        RowGrad
            With ascending rows; waits for a GPU.

        Raises
        ------
        GradientError
            Not a CSR matrix, or not of a dtype that gradients may have.
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
        """Merge duplicate rows; the result has ascending rows.

        Sums and means have the bits that an update uses. They are float64 if the values are,
        otherwise float32.
        """
        with on_device(self.values):
            xp = namespace(backend_of(self.rows) or "cpu")
            used = self.used
            rows, inverse = xp.unique(self.index[:used], return_inverse=True)
            values = xp.empty((len(rows), *self.row_shape), summed([self.values]))
            _overwrite(values, RowGrad(inverse, self.flat[:used], duplicates=self.duplicates))
            return RowGrad(rows, values)

    def to_dense(self, shape: int | Sequence[int]) -> Array:
        """Make the gradient of the whole table, with zeros in rows that do not occur.

        Parameters
        ----------
        shape : int or sequence of int
            The shape of the table: (rows, \\*row shape).

        Returns
        -------
        array of float32 or float64, of this shape

        Raises
        ------
        GradientError
            ``shape[1:]`` is not the row shape of the values.
        RowIndexError
            A row is out of range.
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

    __array_ufunc__ = None  # NumPy leaves array + RowGrad to `__radd__`

    @overload
    def __add__(self, other: RowGrad) -> RowGrad: ...
    @overload
    def __add__(self, other: containers.Array) -> Any: ...
    def __add__(self, other: Any) -> Any:
        if isinstance(other, RowGrad):
            return joined([self, other])
        other = as_array("gradient", other)
        if plain_backend(other) is None:
            return NotImplemented
        return total([self.to_dense(other.shape), other])

    def __radd__(self, other: Any) -> Any:
        # `sum` starts from 0.
        return self if isinstance(other, int) and other == 0 else self.__add__(other)

    @safe
    def __repr__(self) -> str:
        # A count that is an array may be on a GPU.
        used = f"{self.count}" if isinstance(self.count, int) else "as many as `count` says"
        used = "" if self.count is None else f", {used} of them in use"
        return f"RowGrad({self.rows.size:,} rows{used}, values {describe(self.values)})"


Grads: TypeAlias = (
    containers.Array
    | RowGrad
    | Mapping[str, "Grads"]
    | containers.Listed["Grads | tuple[str, Grads]"]
    | Iterator["Grads | tuple[str, Grads]"]
    | ValuesView["Grads"]
    | ItemsView[str, "Grads"]
    | None
)
"""A gradient of one parameter, or of several in the structure of the parameters, or a sum."""


def joined(gradients: Sequence[RowGrad]) -> RowGrad:
    """Add gradients of one table by concatenating their rows.

    Parameters
    ----------
    gradients : sequence of RowGrad
        At least one.

    Returns
    -------
    RowGrad
        Merges duplicates by their sum.

    Raises
    ------
    GradientError
        Their row shapes or devices differ.
    """
    first, *others = (
        gradient.coalesced() if gradient.duplicates == "mean" else gradient
        for gradient in gradients
    )
    for other in others:
        if other.row_shape != first.row_shape or not _on_same_device(other, first):
            raise GradientError(
                f"cannot add {other!r} to {first!r}: they must have the same row shape and device"
            )
    summands = [(gradient, gradient.used) for gradient in (first, *others)]
    with on_device(first.values):
        xp = namespace(backend_of(first.rows) or "cpu")
        values = [gradient.flat[:used] for gradient, used in summands]
        if len({dtype_name(array) for array in values}) > 1:
            values = [widened(array, summed(values)) for array in values]
        rows = [gradient.index[:used] for gradient, used in summands]
        if len({array.dtype for array in rows}) > 1:
            rows = [array.astype(np.int64) for array in rows]
        return RowGrad(xp.concatenate(rows), xp.concatenate(values))


def _on_same_device(a: RowGrad, b: RowGrad) -> bool:
    backend = backend_of(a.values)
    same = backend == backend_of(b.values)
    return same and (backend == "cpu" or a.values.device == b.values.device)


def prepared(update: RowUpdate, gradient: RowGrad, skip: bool, max_norm: float) -> Any:
    """Call `RowUpdate.prepare` with the arrays of a gradient.

    Parameters
    ----------
    update : RowUpdate
    gradient : RowGrad
    skip : bool
        Leave rows out that are out of range, instead of raising.
    max_norm : float
        Scale the merged gradient of each row down to this norm; infinite for none.

    Returns
    -------
    The row plan that the update takes.

    Raises
    ------
    RowIndexError
        With the row index and its position as the user gave them.
    """
    flat = gradient.values if gradient.rows.ndim == 1 else gradient.flat
    try:
        return update.prepare(
            gradient.index,
            bits_of(flat),
            gradient.duplicates,
            gradient.count,
            skip,
            max_norm,
        )
    except RowIndexError as error:
        raise as_given(error, gradient.rows) from None


@rule
def overwrite(p: Any, g: Any, h: Any) -> Any:
    """p <- g"""
    return g


def _overwrite(table: Any, gradient: RowGrad) -> None:
    """Write the merged rows of a gradient into a table of the same row shape."""
    backend = backend_of(table) or "cpu"
    dtype = dtype_name(gradient.values) or ""
    formats = uniform(overwrite, table.dtype)._replace(gradient=PLAIN[dtype])
    update = bind_rows(overwrite, backend, formats, Operand([table]))
    run(update, prepared(update, gradient, False, math.inf), FIRST, scalars(backend, ()))
