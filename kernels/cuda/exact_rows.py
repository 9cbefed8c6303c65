"""Exact rows on a GPU: a row is brought up to date when it is updated or read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..catchup.plan import CatchUpPlan, plan_for
from ..formats import Formats, Operand
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.scalar_layout import FIRST
from . import compile, rows
from .rows import LaunchConfig, RowPlan, Rows
from .step_history import StepHistory

UPDATE, READ, REFRESH = 0, 1, 2
"""What rows are brought up to date for: a gradient, a copy, nothing else."""

CHUNK = 2**20
"""Rows that are brought up to date in one launch."""


def source(rule: Rule, formats: Formats) -> str:
    """Return the text of the update of rows that catch up with their table's history."""
    return rows.source(rule, formats, exact=True, catch_up=plan_for(rule, formats))


@cached_with_rule
def kernel(
    rule: Rule, formats: Formats, config: LaunchConfig, catch_up: CatchUpPlan | None
) -> Callable[..., None]:
    """Compile the kernel of `rows.source`."""
    return compile.built(
        rows.source(rule, formats, config, True, catch_up), f"gpuadapt_{rule.name}_rows"
    )


class ExactRows(Rows):
    """Updates rows of one table after they have caught up with its history."""

    def __init__(
        self, rule: Rule, formats: Formats, operand: Operand, history: StepHistory
    ) -> None:
        import cupy

        super().__init__(rule, formats, operand)
        self._history = history
        gradient = formats.gradient.parts[0][1]
        self._no_values = cupy.zeros((0, self._width), gradient)
        self._no_numbers = cupy.zeros(FIRST + len(rule.coefficients) + 1, np.float64)
        self._nowhere = cupy.zeros(1, self._arrays[0].dtype)

    def _compiled(self, config: LaunchConfig) -> Callable[..., None]:
        return kernel(self._rule, self._formats, config, self._history.plan)

    def _more(self, reading: int, out: Any) -> tuple[Any, ...]:
        history = self._history
        return (
            history.last, history.history, history.products, history.ends,
            np.int64(history.size - 1), history.now, np.int32(reading), out,
        )  # fmt: skip

    def __call__(self, plan: RowPlan, first: int, numbers: Any) -> None:
        """Update; ``numbers[first]`` is the first coefficient."""
        self._launch(plan, first, numbers, *self._more(UPDATE, self._nowhere))
        self._history.append(numbers, first)
        self._catch_up(self._history.rows_due(), 0, REFRESH, self._nowhere)

    def read(self, rows: Any, skip: bool) -> Any:
        """Rows as they are after the last step, in a new array; zeros for those out of range.

        Raises
        ------
        RowIndexError
            A row is out of range, and they are not to be skipped.
        """
        import cupy

        out = cupy.zeros((rows.size, self._width), self._arrays[0].dtype)
        self._catch_up(*self._sorted(rows, None, skip), READ, out)
        return out

    def refresh(self, start: int, stop: int) -> None:
        """Bring rows from ``start`` to ``stop`` up to date."""
        import cupy

        for begin in range(start, stop, CHUNK):
            keys = cupy.arange(begin, min(begin + CHUNK, stop), 1, np.uint64)
            self._catch_up(keys, 0, REFRESH, self._nowhere)

    def _catch_up(self, keys: Any, shift: int, reading: int, out: Any) -> None:
        config = self._config(self._no_values)
        run = self._compiled(config) if keys.size and self._width else None
        plan = RowPlan(
            keys, shift, self._hot_sums[:0], self._no_values, False, math.inf, config, run
        )
        self._launch(plan, FIRST, self._no_numbers, *self._more(reading, out))
