"""Parameters that are updated by rows: tables with sparse gradients, or with limits for rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpuadapt.kernels.catchup.plan import ignores_zero_gradients
from gpuadapt.kernels.formats import NARROW, Formats, Operand, block_width

from .. import launch
from ..errors import GradientError, ParameterError
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

    Raises
    ------
    GradientError, ParameterError
        The parameter cannot be updated by rows.
    """

    def __init__(
        self, slot: Slot, formats: Formats, limit: float, exact: bool, threads: Threads
    ) -> None:
        parameter, rule = slot.parameter, slot.storage.rule
        shape = real_view(parameter).shape or (1,)
        if formats.block and block_width(tuple(shape)) != math.prod(shape[1:]):
            raise GradientError(
                f"rows of {math.prod(shape[1:])} elements share scales with others where states "
                f"have 8 bits: that takes rows of {NARROW}, or another state_dtype"
            )
        self.slot, self._limit = slot, limit
        self.exact = exact and not ignores_zero_gradients(rule)
        self.parameter, self.place = parameter, place_of(parameter)
        self._kind, self._threads = (rule, self.place.type, formats), threads
        arrays = [_as_rows(array_view(real_view(tensor))) for tensor in slot.operand_tensors]
        self._count = shape[0]
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
            A COO tensor with one sparse dimension, or a dense one that has every row.

        Raises
        ------
        RowIndexError
        """
        if gradient.is_sparse:
            rows, values = gradient._indices()[0], gradient._values()
        else:
            rows = torch.arange(self._count, device=gradient.device)
            values = gradient
        values = _as_rows(array_view(real_view(resolved(values))))
        return self.update.prepare(array_view(rows), values, "sum", None, False, self._limit)

    def flush(self) -> None:
        """Let all rows catch up with the last step."""
        if self.history is not None:
            with entered(self.place):
                self.update.refresh(0, self._count)

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


def _as_rows(array: Any) -> Any:
    """An array without dimensions as one of one row."""
    return array if array.ndim else array.reshape(1)
