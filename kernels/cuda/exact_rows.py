"""Exact rows on a GPU: a row catches up with its table's history when it is updated or read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..array_types import DeviceArray
from ..catchup.plan import CatchUpPlan, plan_for
from ..commit import Call, make
from ..formats import Formats, Operand
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.scalar_layout import FIRST
from . import compile, scalars
from . import rows as by_row
from .rows import LaunchConfig, RowPlan, Rows
from .scalars import StepNumbers
from .step_history import StepHistory

UPDATE, READ, REFRESH = 0, 1, 2
"""What rows catch up for, as in ``exact_rows.cuh``: a gradient, a copy of them, nothing else."""

CHUNK = 2**20
"""Rows of one launch of `ExactRows.refresh`."""


def source(rule: Rule, formats: Formats) -> str:
    """Write the kernel: skipped steps are taken by their closed form, or replayed without one."""
    return by_row.source(rule, formats, exact=True, catch_up=plan_for(rule, formats))


@cached_with_rule
def kernel(
    rule: Rule, formats: Formats, config: LaunchConfig, catch_up: CatchUpPlan | None
) -> Callable[..., None]:
    """Compile the kernel of `rows.source`."""
    text = by_row.source(rule, formats, config, True, catch_up)
    return compile.built(text, f"gpuadapt_{rule.name}_rows")


class ExactRows(Rows):
    """Updates rows of one table after they have caught up with its history."""

    def __init__(
        self, rule: Rule, formats: Formats, operand: Operand, history: StepHistory
    ) -> None:
        import cupy

        super().__init__(rule, formats, operand)
        self._history = history
        gradient = formats.gradient.parts[0][1]
        self._no_values: DeviceArray = cupy.zeros((0, self._width), gradient)
        self._no_numbers = scalars.numbers([0.0] * (len(rule.coefficients) + 1))
        self._no_copy: DeviceArray = cupy.zeros(1, self._arrays[0].dtype)

    def _key_type(self, n: int) -> str:
        return "uint64"  # as the keys of rows that are due: another type is another kernel

    def _compiled(self, config: LaunchConfig) -> Callable[..., None]:
        return kernel(self._rule, self._formats, config, self._history.plan)

    def _catch_up_arguments(self, mode: int, out: DeviceArray) -> tuple[Any, ...]:
        history = self._history
        return (
            history.last, history.history, history.moments, history.ends,
            np.int64(history.length - 1), history.now, np.int32(mode), out,
        )  # fmt: skip

    def calls(self, plan: RowPlan, offset: int, numbers: StepNumbers, *more: Any) -> list[Call]:
        """The calls that update; ``numbers[offset]`` is the first coefficient."""
        given = *self._catch_up_arguments(UPDATE, self._no_copy), *more
        append, due = self._history.append_call(numbers, offset)
        refresh = self._catch_up(due, 0, REFRESH, self._no_copy)
        return [*super().calls(plan, offset, numbers, *given), append, *refresh]

    def read(self, rows: DeviceArray, skip: bool) -> DeviceArray:
        """Copy rows as they are after the last step.

        Parameters
        ----------
        rows : CuPy array of int32 or int64, shape (n,)
        skip : bool
            Return zeros for rows that are out of range.

        Returns
        -------
        CuPy array of the parameter's type, shape (n, width)

        Raises
        ------
        RowIndexError
            A row is out of range, and ``skip`` is False.
        """
        import cupy

        out = cupy.zeros((rows.size, self._width), self._arrays[0].dtype)
        make(self._catch_up(*self._sorted(rows, None, skip), READ, out))
        return out

    def refresh(self, start: int, stop: int) -> None:
        """Let rows from ``start`` to ``stop`` - 1 catch up."""
        import cupy

        for begin in range(start, stop, CHUNK):
            keys = cupy.arange(begin, min(begin + CHUNK, stop), 1, np.uint64)
            make(self._catch_up(keys, 0, REFRESH, self._no_copy))

    def _catch_up(self, keys: DeviceArray, shift: int, mode: int, out: DeviceArray) -> list[Call]:
        """The launch that brings rows up to date, as a call, if there are rows."""
        config, sums = self._config(self._no_values), self._hot_sums[:0]
        compiled = compile.ready(self._compiled(config)) if keys.size and self._width else None
        plan = RowPlan(keys, shift, sums, self._no_values, False, math.inf, config, compiled)
        arguments = self._catch_up_arguments(mode, out)
        return super().calls(plan, FIRST, self._no_numbers, *arguments)
