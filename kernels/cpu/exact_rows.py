"""Exact rows on the CPU: a row is brought up to date when it is updated or read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..array_types import HostArray
from ..catchup.plan import CatchUpPlan, plan_for
from ..commit import Call, make
from ..formats import Formats, Operand
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from . import calling, compile, generate
from .calling import Threads
from .rows import ALONE, NOWHERE, Plan, Rows
from .step_history import StepHistory

CHUNK = 65536
"""Rows that are brought up to date in one call."""


def source(rule: Rule, formats: Formats) -> str:
    """Return the text of the update of rows that catch up with their table's history."""
    return generate.rows(rule, formats, True, plan_for(rule, formats))


@cached_with_rule
def kernel(rule: Rule, formats: Formats, plan: CatchUpPlan | None) -> Callable[..., None]:
    """Return the compiled ``rows`` of `loops/rows.py`."""
    text = generate.rows(rule, formats, True, plan)
    return compile.kernel(f"{rule.name}_exact", text, "rows")


class ExactRows(Rows):
    """Updates rows of one table after they have caught up with its history."""

    def __init__(
        self,
        rule: Rule,
        formats: Formats,
        operand: Operand,
        history: StepHistory,
        threads: Threads = None,
    ) -> None:
        super().__init__(rule, formats, operand, threads)
        self._kernel = kernel(rule, formats, history.plan)
        self._history = history
        self._given = history.last, history.history, history.moments, history.ends
        self._no_gradient = _zeros(self._width, formats.wide)
        ((_, kept),) = formats.gradient.parts
        self._no_values = _zeros(self._width, kept)
        self._nowhere = np.empty((0, self._width), self._arrays[0].dtype)
        self._no_hot_rows = np.empty((0, 2), np.int64)

    def calls(self, plan: Plan, first: int, numbers: HostArray, *more: Any) -> list[Call]:
        """The calls that update; ``numbers[first]`` is the first coefficient."""
        history, now = self._history, self._history.now
        given = *self._given, now, self._no_gradient, False, self._nowhere
        calls = super().calls(plan, first, numbers, *given, *more)
        calls += history.append_calls(numbers, first)
        due = np.arange(*history.due(now + 1), dtype=np.uint64)
        return calls + self._catch_up(due, now + 1, self._nowhere)

    def read(self, rows: HostArray, skip: bool) -> HostArray:
        """Rows as they are after the last step, in a new array; zeros for those out of range.

        Raises
        ------
        RowIndexError
            A row is out of range, and they are not to be skipped.
        """
        parts = calling.share(rows.size * self._width, ALONE, self._threads)
        self._sorted.load(rows, len(self._arrays[0]), skip, parts)
        out = np.empty((rows.size, self._width), self._arrays[0].dtype)
        if self._sorted.out_of_range:
            out[:] = 0
        found = self._sorted
        make(self._catch_up(found.keys, self._history.now, out, found.shift))
        return out

    def refresh(self, start: int, stop: int) -> None:
        """Bring rows from ``start`` to ``stop`` up to date."""
        for begin in range(start, stop, CHUNK):
            keys = np.arange(begin, min(begin + CHUNK, stop), dtype=np.uint64)
            make(self._catch_up(keys, self._history.now, self._nowhere))

    def _catch_up(self, keys: HostArray, now: int, out: HostArray, shift: int = 0) -> list[Call]:
        """The calls that bring rows up to date with step ``now``, and copy them to ``out``."""
        parts = calling.share(keys.size * self._width, ALONE, self._threads)
        self._reserve(parts, 0)
        plan = Plan(
            keys, self._arrays, None, self._no_values, False, math.inf, parts,
            shift, self._no_hot_rows, len(keys), 0,
        )  # fmt: skip
        updated = self._rows
        coefficients = [0.0] * (self._coefficients + len(self._wide))
        random = [self._key, 0.0, NOWHERE] if self._random else []
        return self._bound(
            self._kernel, plan, math.inf,
            (*updated, *coefficients, *random, *self._given, now, self._no_gradient, True, out),
        )  # fmt: skip


def _zeros(width: int, dtype: str) -> HostArray:
    """One row of zeros, read-only as gradients are."""
    made = np.zeros((1, width), dtype)
    made.flags.writeable = False
    return made
