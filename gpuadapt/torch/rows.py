"""Parameters that are updated by rows: tables with sparse gradients, or with limits for rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpuadapt.kernels.catchup.plan import needs_no_history
from gpuadapt.kernels.formats import NARROW, Formats, Operand, block_width

from .. import launch
from ..arrays import to_host
from ..errors import GradientError, ParameterError, RowIndexError
from ..launch import Threads
from .places import array_view, entered, place_of
from .slots import Slot
from .tensors import real_view, resolved


class RowTable:
    """The update of one parameter by rows.

    Parameters
    ----------
    slot : Slot
    formats : Formats
        With the gradient's element type.
    limit : float
        Largest norm of a row's gradient.
    exact : bool
        Rows without a gradient catch up with the steps they were not in.
    threads
        See `gpuadapt.kernels.cpu.calling.Threads`.
    dims : int
        Dimensions that number the rows: the sparse ones of a gradient.

    Raises
    ------
    GradientError, ParameterError
        The parameter cannot be updated by rows.
    """

    def __init__(
        self,
        slot: Slot,
        formats: Formats,
        limit: float,
        exact: bool,
        threads: Threads,
        dims: int = 1,
    ) -> None:
        parameter, rule = slot.parameter, slot.storage.rule
        shape = real_view(parameter).shape or (1,)
        if formats.block and block_width(tuple(shape)) != math.prod(shape[dims:]):
            raise GradientError(
                f"rows of {math.prod(shape[dims:])} elements share scales with others where states "
                f"have 8 bits: that takes rows of {NARROW}, or another state_dtype"
            )
        if dims != 1 and (limit < math.inf or any(kept.by_row for kept in slot.storage.kept)):
            raise GradientError(
                f"a sparse gradient has {dims} sparse dimensions: max_row_norm and rowwise take "
                "those whose rows are numbered by the first dimension alone"
            )
        self.slot, self._limit = slot, limit
        self.exact = exact and not needs_no_history(rule, formats, approximate=True)
        self.parameter, self.place = parameter, place_of(parameter)
        self._kind, self._threads = (rule, self.place.type, formats), threads
        self._dims, self._count = dims, math.prod(shape[:dims])
        arrays = [array_view(self._as_rows(real_view(each))) for each in slot.operand_tensors]
        self._operand = Operand(arrays, slot.random_key, block_width(tuple(shape)))
        self.history: Any = None
        self.updates = -1
        """Number of updates that the history of an exact table has."""
        self.update: Any = None
        if not self.exact:
            self.update = launch.bind_rows(*self._kind, self._operand, threads=threads)
        elif not all(array.flags.c_contiguous for array in arrays):
            raise ParameterError("sparse='exact' takes tables whose rows lie one behind the other")

    def begin(self, updates: int) -> None:
        """Let the history of an exact table begin after so many updates, if it does not go on."""
        if not self.exact or self.updates == updates:
            return
        self.flush()
        self.updates = updates
        rule, backend, formats = self._kind
        rows = self._count
        self.history = launch.step_history(rule, backend, formats, True, rows, updates)
        self.update = launch.bind_rows(*self._kind, self._operand, self.history, self._threads)

    def prepared(self, gradient: Tensor) -> Any:
        """Check and sort the rows of a gradient; nothing is written yet.

        Parameters
        ----------
        gradient : Tensor
            A COO tensor with so many sparse dimensions, or a dense one that has every row.

        Raises
        ------
        RowIndexError
        """
        if gradient.is_sparse:
            rows, values = self._numbered(gradient), gradient._values()
        else:
            rows = torch.arange(self._count, device=gradient.device)
            values = gradient
        values = array_view(real_view(resolved(values)))
        values = values if values.ndim else values.reshape(1)
        return self.update.prepare(array_view(rows), values, "sum", None, False, self._limit)

    def _numbered(self, gradient: Tensor) -> Tensor:
        """The rows of a gradient, numbered through all of its sparse dimensions."""
        indices = gradient._indices()
        if self._dims == 1:
            return indices[0]
        sizes = torch.tensor(gradient.shape[: self._dims], device=indices.device)
        if bool(((indices < 0) | (indices >= sizes[:, None])).any()):
            raise RowIndexError(
                f"a sparse gradient has indices out of range of its shape {tuple(gradient.shape)}"
            )
        steps = [math.prod(gradient.shape[k + 1 : self._dims]) for k in range(self._dims)]
        return (indices * torch.tensor(steps, device=indices.device)[:, None]).sum(0)

    def _as_rows(self, tensor: Tensor) -> Tensor:
        """A view with rows along one axis; a tensor without dimensions is one row."""
        if self._dims == 1:
            return tensor if tensor.ndim else tensor.reshape(1)
        try:
            return tensor.view(self._count, *tensor.shape[self._dims :])
        except RuntimeError as error:
            raise ParameterError(
                f"a sparse gradient has {self._dims} sparse dimensions, and the parameter or a "
                "state has gaps between its rows: make it contiguous"
            ) from error

    def flush(self) -> None:
        """Let all rows catch up with the last step."""
        if self.history is not None:
            with entered(self.place):
                self.update.refresh(0, self._count)

    def caught_up(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Let all rows catch up; (parameter, mask of the rows that had to, their numbers)."""
        if self.history is None:
            return []
        behind = to_host(self.history.last) != to_host(self.history.now)
        self.flush()
        table = self.parameter.detach()
        mask = torch.from_numpy(behind).to(table.device).reshape(table.shape[: self._dims])
        return [(self.parameter, mask, table[mask])] if behind.any() else []

    def catch_up(self, rows: Tensor) -> None:
        """Let these rows catch up with the last step.

        Raises
        ------
        RowIndexError
        """
        if self.history is not None:
            indices = rows.detach().reshape(-1).to(self.parameter.device, torch.int64)
            with entered(self.place):
                self.update.read(array_view(indices), False)
