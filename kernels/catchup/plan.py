"""Exact rows: the history of steps, and how a row catches up with it.

A row without a gradient has skipped steps. It catches up by taking each with a gradient of zero and
the coefficients of that step, in one of two ways.

- *Replay*: call the rule once for each skipped step.
- The *closed form* of all of them, if `zero_gradient_update` finds one, in float32 only.

The update of step t without a gradient is

    s_k <- f_k(t) s_k                              for each state
    p   <- a(t) p + b(t) d_t
    d_t  = S_t s1^a s2^b ... (1 + C_t s1^c ...)^e  with the states before the step, and e <= 0

Over the steps 1 to n, states are multiplied by products F_k of their factors. All elements share
the ratio of the products of powers of d_t and d_1, and that of their corrections, 1 + y_t:

    d_t = d_1 w_t (1 + u y_t)^e,  u = C_1 s1^c .../(1 + C_1 s1^c ...)

with u in [0, 1]. Expanding the bracket, with A_t = a(t+1) ... a(n), gives

    p_n = A_0 p + d_1 (M_0 + M_1 u + M_2 u^2 + ...),  M_j = binomial(e, j) sum_t A_t b(t) w_t y_t^j

of which `TERMS` are taken. y_t is not negative, so the first one left out bounds the error; a y_t
above `MAX_RATIO` counts as that, and its whole step as an error. F, A_0 and M depend on the steps
alone. Each step updates them for every step of the history that a row could begin with: then a row
needs one displacement for each element, however many steps it has skipped.

This holds along a *segment*: consecutive steps whose displacement keeps its form, whose scale S is
not zero, whose factors f are at most 1 and whose y does not fall. Any other step, such as one with
a learning rate of zero, ends the segment and is replayed. So are steps where an element of the row
needs more terms, or has numbers too small or large for float32.

The history is a ring buffer of steps: their coefficients (`HistoryLayout`), the last step of the
segment that begins with each one, and the segment's moments: F, A_0 and M.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from ..formats import PLAIN, Formats
from ..language.caching import cached_with_rule
from ..language.emit import Writer
from ..language.program import Program
from ..language.rule import STEP, Rule, from_program
from .zero_gradient import zero_gradient_update

TERMS = 6
"""Number of terms of the expansion in u. With Adam's defaults the next one is 2^-36 of the first
late in a run and 2^-17 after 100 steps, even for u = 1."""

ERROR = 2.0**-27
"""Replay if what is left out is above this fraction of the parameter."""

NEGLIGIBLE = 2.0**-132
"""A step whose weight is below this fraction of M_0 changes no moment: times `MAX_RATIO` to the
power of `TERMS` it is 2^-60 of M_0."""

LEAST_U, LEAST_LEFT_OUT = 2.0**-14, 2.0**-40
"""Smaller numbers count as these in the bound of the error: subnormal products are slow."""

MAX_REPLAY = 1
"""Number of skipped steps up to which replay is cheaper than the closed form."""

REPLAYED = 32
"""Number of steps that are replayed before the closed form is tried again."""

SMALLEST_NORMAL = 2.0**-126
"""The smallest normal number of float32. States below it become zero."""

MIN_SIZE = 2.0**-100
"""Replay if a scale or a displacement that matters is below this: it may have lost bits in
float32."""

MAX_GROWTH = 2.0**60
"""Replay if a sum of displacements is this many times the first one."""

MAX_RATIO = 2.0**12
"""Largest ratio of corrections that is used; steps with a larger one are small in general."""

NO_END = 2**63 - 1
"""The last step of a segment that still continues."""

SHRINK, CORRECTION, WEIGHT, RELATIVE, LEFT_OUT, FIRST_SUM = range(6)
"""Columns of the moments of a segment, after the products of the states' decay factors: A_0; the
correction of the first step, without the states' powers; b w and 1 + y of the last step; the sum of
A b w over steps whose y is too large; M_0, before M_1 to M_TERMS."""

MIN_LENGTH, MAX_LENGTH, ROWS_PER_STEP = 1024, 16384, 256
"""The history has one step for each ROWS_PER_STEP rows of the table, within these bounds."""


COLUMNS = "SHRINK", "CORRECTION", "WEIGHT", "RELATIVE", "LEFT_OUT", "FIRST_SUM", "TERMS"
OF_HISTORY = *COLUMNS, "MAX_RATIO", "MIN_SIZE", "NEGLIGIBLE", "NO_END"
OF_ROWS = (
    *COLUMNS, "ERROR", "LEAST_LEFT_OUT", "LEAST_U", "MAX_GROWTH", "MAX_REPLAY", "MIN_SIZE",
    "REPLAYED", "SMALLEST_NORMAL",
)  # fmt: skip
"""What kernels of both backends read of these: those that append to the history, those of rows."""

Powers = tuple[tuple[str, float], ...]
"""(state, exponent) of each factor."""


class CatchUpPlan(NamedTuple):
    """The rules and powers of the closed form of skipped steps."""

    displacement: Rule | None
    """The displacement, from the states before a step; None if it is always zero."""
    inverse: Rule | None
    """One divided by the powers of the states in the correction; None without one."""
    history: Rule
    """Its coefficients are decay factors, a, b, form, and (scale, correction) of each form."""
    names: tuple[str, ...]
    """The names of these coefficients, in this order."""
    powers: tuple[tuple[Powers, Powers], ...]
    """For each form the powers of the states in the product and in its correction."""
    exponents: tuple[float, ...]
    """For each form the exponent of its correction, at most 0."""
    states: tuple[str, ...]

    def decays(self, k: int) -> bool:
        """True if the k-th state's decay factor is not always 1."""
        return self.history.coefficients[self.names[k]] != "1"

    @property
    def shrinks(self) -> bool:
        """True if steps multiply the parameter by a factor that is not always 1."""
        return self.history.coefficients[self.names[len(self.states)]] != "1"

    @property
    def moment_columns(self) -> int:
        """The number of columns of a segment's moments: decay factors and `SHRINK` to M_TERMS."""
        return len(self.states) + FIRST_SUM + TERMS + 1

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
            decay = scalars[:count]
            shrink, coefficient, form = scalars[count : count + 3]
            scale, correction = scalars[count + 3 + 2 * int(form) :][:2]
            scale *= coefficient if self.displacement else 1.0
            in_bounds = all(0 <= f <= 1 for f in decay) and shrink >= 0 and correction >= 0
            if not (in_bounds and math.isfinite(shrink + coefficient + scale + correction)):
                return self._outside_segments()
            factors = dict(zip(self.states, decay, strict=True))
            later = [
                math.prod(factors[state] ** n for state, n in powers)
                for powers in self.powers[int(form)]
            ]
        except (ArithmeticError, ValueError, TypeError):  # the rule itself may still be right
            return self._outside_segments()
        exponent = self.exponents[int(form)]
        return [*decay, shrink, coefficient, *later, scale, correction, exponent, form]

    def _outside_segments(self) -> list[float]:
        return [1.0] * (len(self.states) + 7) + [math.nan]


@cached_with_rule
def catch_up_plan(rule: Rule) -> CatchUpPlan | None:
    """Return the closed form of the skipped steps of a rule; None if they have to be replayed."""
    update = zero_gradient_update(rule.program)
    if update is None:
        return None
    results = (*update.decay, update.shrink, update.coefficient, update.form)
    results += tuple(node for form in update.forms for node in (form.scale, form.correction))
    writer = Writer(rule.program.h)
    names = tuple(writer.hoist(node) for node in results)
    program = Program(
        f"{rule.name}_history", "", (), rule.program.h, (), results, {}, rule.program.prepare
    )
    hyperparameters = tuple(name for name in writer.read if name != STEP)
    displacement, inverse = (
        None if program is None else from_program(program)
        for program in (update.displacement, update.inverse)
    )
    history = Rule(program, hyperparameters, writer.coefficients(), (), names, ())
    powers = tuple((_powers(f.powers), _powers(f.correction_powers)) for f in update.forms)
    exponents = tuple(float(form.exponent) for form in update.forms)
    return CatchUpPlan(displacement, inverse, history, names, powers, exponents, rule.states)


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
        and plan.displacement is None
        and not plan.shrinks
        and not any(plan.decays(k) for k in range(len(rule.states)))
    )


def needs_no_history(rule: Rule, formats: Formats, approximate: bool) -> bool:
    """True if rows that skip steps without a gradient need not catch up.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    approximate : bool
        Whether the numbers alone have to be those of the dense run, not their bits.
    """
    return ignores_zero_gradients(rule) and (approximate or formats.canonical)


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
    decay: int
    """The first state's decay factor."""
    shrink: int
    """The factor a of the parameter, then the factor b of the displacement."""
    later: int
    """Two factors of the next displacement because of the states' decay: product, correction."""
    scale: int
    """The scale of b d, then the correction, without the states' powers, and its exponent."""
    form: int
    """The index of the form of the displacement; NaN outside segments."""
    width: int


def history_layout(rule: Rule, plan: CatchUpPlan | None) -> HistoryLayout:
    """Return the layout for replay (None) or for a closed form."""
    count = len(rule.coefficients)
    if plan is None:
        return HistoryLayout(*[count] * 7)
    decay = count + (len(plan.displacement.coefficients) if plan.displacement else 0)
    shrink = decay + len(rule.states)
    return HistoryLayout(count, decay, shrink, shrink + 2, shrink + 4, shrink + 7, shrink + 8)
