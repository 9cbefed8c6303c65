"""Exact rows: the history of steps, and how a row catches up with it.

A row without a gradient has skipped steps. It catches up by taking each with a gradient of zero and
the coefficients of that step, in one of two ways.

- *Replay*: call the rule once for each skipped step.
- *Interpolate*, if `zero_gradient_update` finds a closed form (see there), in float32 only:

      s_k     <- s_k * f_k(1) f_k(2) ... f_k(n)               f_k(t): decay factor of state k
      p       <- apply(...apply(apply(p, d_1), d_2)..., d_n)  d_t: displacement of step t

  d_t is evaluated in every `MAX_INTERVAL`-th step. Between two evaluations
  d_{t+1} = d_t r_{t+1}, with a ratio r from the history, times the correction of `PowerProduct`,
  which is interpolated linearly. The row stops where all remaining displacements are together too
  small to change the parameter.

Interpolation goes along a *segment*: consecutive steps whose displacement keeps its form, whose
scale is not zero and whose decay factors are at most 1. Any other step, such as one with a learning
rate of zero, ends the segment and is replayed. Steps are also replayed where numbers are too small
for float32, or so many displacements remain that float32 cannot follow a dense run.

The history is a ring buffer of steps: their coefficients (`HistoryLayout`), the last step of each
one's segment, and products of the factors of all later steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ..formats import PLAIN, Formats
from ..language.caching import cached_with_rule
from ..language.emit import Writer
from ..language.program import Program
from ..language.rule import STEP, Rule, from_program
from .zero_gradient import zero_gradient_update

MAX_INTERVAL = 32
"""Largest number of steps from one evaluated displacement to the next."""

MAX_REPLAY = 5
"""Number of skipped steps up to which replay is cheaper than interpolation."""

LINEAR = 2.0**-12
"""Interpolate linearly if the correction changes a displacement by at most this fraction from one
evaluation to the next. The error is a third of the square, below float32 rounding."""

NEGLIGIBLE = 2.0**-26
"""Ignore a change of the correction if its sum over the interval is below this fraction of the
parameter (divided by n^2 in the n-th interval)."""

STOP = 2.0**-24
"""Leave out all remaining displacements if their sum is below this fraction of the parameter."""

MAX_REMAINING = 14.0
"""Replay if sum(d_t...) / d_t of the remaining displacements is above this: the rounding of states
then moves a dense run's parameter away from an exact one."""

SMALLEST_NORMAL = 2.0**-126
"""The smallest normal number of float32. States below it become zero."""

MIN_PRODUCT = 2.0**-100
"""Replay if a product of factors, a scale or a displacement that matters is below this: numbers
multiplied by it may lose bits in float32."""

MAX_GROWTH = 2.0**60
"""Replay if displacements become this many times larger within an interval."""

NO_END = 2**63 - 1
"""The last step of a segment that still continues."""

MIN_LENGTH, MAX_LENGTH, ROWS_PER_STEP = 1024, 16384, 256
"""The history has one step for each ROWS_PER_STEP rows of the table, within these bounds."""


Powers = tuple[tuple[str, float], ...]
"""(state, exponent) of each factor."""


class CatchUpPlan(NamedTuple):
    """The rules and powers by which skipped steps are interpolated."""

    displacement: Rule | None
    """The displacement, from the states before a step; None if it is always zero."""
    apply: Rule | None
    """The new parameter from the old one and the displacement; None if there is none."""
    decay_only: Rule | None
    """The new parameter for a displacement of zero; None if it stays the same."""
    history: Rule
    """Its coefficients are decay factors, form, coefficient, and (scale, correction) per form."""
    names: tuple[str, ...]
    """The names of these coefficients, in this order."""
    powers: tuple[tuple[Powers, Powers], ...]
    """For each form the powers of the states in the product and in its correction."""
    states: tuple[str, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules whose coefficients are in the history, in the order of `HistoryLayout`."""
        rules = (self.displacement, self.apply, self.decay_only)
        return tuple(rule for rule in rules if rule is not None)

    def decays(self, k: int) -> bool:
        """True if the k-th state's decay factor is not always 1."""
        return self.history.coefficients[self.names[k]] != "1"

    def history_scalars(self, values: Mapping[str, float], updates: int) -> list[float]:
        """Compute the part of a step's history that does not depend on rounding.

        Parameters
        ----------
        values : mapping of str to float
            The hyperparameters at the step.
        updates : int
            Number of the update, from 1.

        Returns
        -------
        list of float
            The columns of `HistoryLayout` from ``decay`` on. The form is NaN for a step that cannot
            be in a segment.
        """
        rule, count = self.history, len(self.states)
        try:
            results = rule.evaluate(*(values[name] for name in rule.hyperparameters), updates)
            known = dict(zip(rule.coefficients, map(float, results), strict=True))
            scalars = [known[name] for name in self.names]
            # Kernels multiply states by rounded factors.
            decay = [float(np.float32(factor)) for factor in scalars[:count]]
            form, coefficient = scalars[count : count + 2]
            scale, correction = scalars[count + 2 + 2 * int(form) :][:2]
            in_bounds = all(0 <= f <= 1 for f in decay) and abs(coefficient) <= 1
            if not (in_bounds and correction >= 0):
                return self._outside_segments()
            factors = dict(zip(self.states, decay, strict=True))
            later = [
                math.prod(factors[state] ** n for state, n in powers)
                for powers in self.powers[int(form)]
            ]
        except (ArithmeticError, ValueError, TypeError):  # the rule itself may still be right
            return self._outside_segments()
        return [*decay, *later, scale, correction, form]

    def _outside_segments(self) -> list[float]:
        return [1.0] * (len(self.states) + 4) + [math.nan]


@cached_with_rule
def catch_up_plan(rule: Rule) -> CatchUpPlan | None:
    """Return how skipped steps of a rule are interpolated; None if they have to be replayed."""
    update = zero_gradient_update(rule.program)
    if update is None:
        return None
    results = (*update.decay, update.form, update.coefficient)
    results += tuple(node for form in update.forms for node in (form.scale, form.correction))
    writer = Writer(rule.program.h)
    names = tuple(writer.hoist(node) for node in results)
    program = Program(
        f"{rule.name}_history", "", (), rule.program.h, (), results, {}, rule.program.prepare
    )
    hyperparameters = tuple(name for name in writer.read if name != STEP)
    displacement, apply, decay_only = (
        None if program is None else from_program(program)
        for program in (update.displacement, update.apply, update.decay_only)
    )
    history = Rule(program, hyperparameters, writer.coefficients(), (), names, ())
    powers = tuple((_powers(f.powers), _powers(f.correction_powers)) for f in update.forms)
    return CatchUpPlan(displacement, apply, decay_only, history, names, powers, rule.states)


def _powers(powers: Mapping[str, Fraction]) -> Powers:
    return tuple((state, float(power)) for state, power in powers.items())


def plan_for(rule: Rule, formats: Formats) -> CatchUpPlan | None:
    """Return `catch_up_plan` if parameter and states are float32; None for replay."""
    plain = all(format_ == PLAIN["float32"] for format_ in formats.updated)
    return catch_up_plan(rule) if plain else None


@cached_with_rule
def ignores_zero_gradients(rule: Rule) -> bool:
    """True if a zero gradient changes neither the parameter nor a state."""
    plan = catch_up_plan(rule)
    return (
        plan is not None
        and not plan.rules
        and not any(plan.decays(k) for k in range(len(rule.states)))
    )


def history_length(rows: int) -> int:
    """Return for how many steps a table has a history: a power of two."""
    length = max(MIN_LENGTH, min(rows // ROWS_PER_STEP, MAX_LENGTH))
    return 1 << (length - 1).bit_length()


def refresh_period(rows: int, length: int) -> tuple[int, int]:
    """Return (period, rows per step): step t refreshes rows [k n, (k + 1) n), k = t mod period.

    The period is shorter than the history, so that every row has a step before it is overwritten.
    """
    period = length * 7 // 8
    return period, -(-rows // period)


class HistoryLayout(NamedTuple):
    """The offsets of a step's scalars in its row of the history."""

    displacement: int
    """First coefficient of the displacement; the rule's own coefficients come before it."""
    apply: int
    decay_only: int
    """First coefficients of these rules."""
    decay: int
    """The first state's decay factor."""
    later: int
    """Two factors of the next displacement because of the states' decay: product, correction."""
    scale: int
    """The scale of the displacement, then its correction, without the states' powers."""
    form: int
    """The index of the form of the displacement; NaN outside segments."""
    width: int


def history_layout(rule: Rule, plan: CatchUpPlan | None) -> HistoryLayout:
    """Return the layout for replay (None) or for interpolation by a plan."""
    offsets = [len(rule.coefficients)]
    if plan is None:
        return HistoryLayout(*offsets * 8)
    for part in (plan.displacement, plan.apply, plan.decay_only):
        offsets.append(offsets[-1] + (len(part.coefficients) if part else 0))
    displacement, apply, decay_only, decay = offsets
    later = decay + len(rule.states)
    return HistoryLayout(
        displacement, apply, decay_only, decay, later, later + 2, later + 4, later + 5
    )
