"""The history of the steps of a table with exact rows, on the CPU; see `catchup.plan`."""

from __future__ import annotations

import numpy as np

from ..array_types import HostArray
from ..catchup.plan import (
    MAX_INTERVAL,
    MIN_PRODUCT,
    NO_END,
    CatchUpPlan,
    history_layout,
    history_length,
    refresh_period,
)
from ..formats import Formats
from ..language.rule import Rule


class StepHistory:
    """A ring buffer of the steps of a table; step t is at t modulo its length.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    plan : CatchUpPlan or None
        How skipped steps are interpolated; None for replay.
    rows : int
        Number of rows of the table.
    updates : int
        Number of steps that the table has had.

    Attributes
    ----------
    now : int
        Number of steps so far.
    last : ndarray of int32, shape (rows,)
        The last step that each row has taken.
    history : ndarray of the compute type, shape (length, k)
        The coefficients of each step, up to `HistoryLayout.decay`.
    factors : ndarray of float64, shape (states + 2, length + MAX_INTERVAL)
        For each step: the states' decay factors; the ratio of its displacement to that of the step
        before, for the product of powers and for the correction. The first MAX_INTERVAL columns are
        repeated at the end, so that an interval never wraps.
    products : ndarray of float64, shape (states + 2, length)
        For each step of the current segment: products of the factors of all later steps, for the
        states and the displacement; the sum of the displacements from this step on, in units of
        its own.
    ends : ndarray of int64, shape (length,)
        The last step of each step's segment.
    """

    def __init__(
        self, rule: Rule, formats: Formats, plan: CatchUpPlan | None, rows: int, updates: int
    ) -> None:
        self.rule, self.plan = rule, plan
        self._layout = history_layout(rule, plan)
        length, width = history_length(rows), len(rule.states) + 2 if plan else 0
        self.last: HostArray = np.full(rows, updates, np.int32)
        self.history: HostArray = np.zeros((length, self._layout.decay), formats.compute)
        self.factors: HostArray = np.zeros((width, length + MAX_INTERVAL))
        self.products: HostArray = np.ones((width, length))
        self.ends: HostArray = np.full(length, NO_END)
        self._previous: HostArray | None = None
        """The scalars of the last step from `HistoryLayout.decay` on."""
        self._segment = self.now = updates
        """The first step of the current segment."""

    def append(self, numbers: HostArray, offset: int) -> None:
        """Append a step that was taken; ``numbers[offset]`` is its first coefficient."""
        layout, length = self._layout, len(self.history)
        count = layout.displacement
        self.now += 1
        here = self.now & (length - 1)
        with np.errstate(over="ignore"):  # a scale of wider gradients; it divides zero here
            self.history[here, :count] = numbers[offset : offset + count]
        if self.plan is None:
            return
        # The number of the step is between the coefficients and the other scalars.
        scalars = numbers[offset + 1 + count : offset + 1 + layout.width]
        self.history[here, count:] = scalars[: layout.decay - count]
        scalars = scalars[layout.decay - count :].copy()
        factors, continues = _factors(scalars, self._previous)
        self._previous = scalars
        if continues:
            with np.errstate(all="ignore"):
                for part in _ring_slices(self._segment, self.now, length):
                    self.products[:-1, part] *= factors[:-1, None]
                    self.products[-1, part] += self.products[-2, part]
        else:
            for part in _ring_slices(self._segment, self.now, length):
                self.ends[part] = self.now - 1
            self._segment = self.now
        self.products[:, here], self.ends[here] = 1, NO_END
        self.factors[:, here] = factors
        if here < MAX_INTERVAL:
            self.factors[:, length + here] = factors

    def rows_due(self) -> tuple[int, int]:
        """Return (first, stop) of the rows that this step refreshes; see `refresh_period`."""
        rows = len(self.last)
        period, count = refresh_period(rows, len(self.history))
        start = self.now % period * count
        return min(start, rows), min(start + count, rows)


def _factors(scalars: HostArray, previous: HostArray | None) -> tuple[HostArray, bool]:
    """Return a step's `StepHistory.factors`, and whether it continues the previous step's segment.

    Both arguments are scalars from `HistoryLayout.decay` on.
    """
    scale, correction, form = scalars[-3:]
    factors = scalars[:-3].copy()
    factors[-2:] = 1
    if previous is None:
        return factors, bool(form == form and abs(scale) >= MIN_PRODUCT)
    later, correction_later, old_scale, old_correction, old_form = previous[-5:]
    with np.errstate(all="ignore"):
        factors[-2] = scale / old_scale * later
        if correction != 0 or old_correction != 0:
            factors[-1] = correction / old_correction * correction_later
    continues = bool(
        form == old_form
        and abs(scale) >= MIN_PRODUCT
        and 0 <= factors[-2] < np.inf
        and 1 <= factors[-1] < np.inf
    )
    return factors, continues


def _ring_slices(start: int, stop: int, length: int) -> list[slice]:
    """Return the slices of a ring buffer with steps [start, stop), at most its length."""
    start = max(start, stop - length)
    first, count = start & (length - 1), stop - start
    slices = [slice(first, min(first + count, length)), slice(0, max(0, first + count - length))]
    return [part for part in slices if part.stop > part.start]
