"""The steps that a row has missed: what is remembered of them, and how they are made up for.

Rows that had no gradient have a step to come for each that was taken, with zero for the gradient
and the coefficients of that very step. A *replay* takes them one by one, by the rule itself. Where
a rule allows it (see `idle`) they are *followed* instead: states are multiplied by products of
numbers of the steps; the parameter goes through the steps by motions that are computed in some
of them and known in those between (see `motions`), until all that are left together are too little
to count. That is for float32: numbers along the steps are float64.

Steps are followed along a *stretch*, in which each goes on from the one before: the motion keeps
its form, its scale is not zero, states fade. A step that does not, such as one with a learning
rate of zero, ends the stretch and is replayed. So are the steps of a row in which numbers are
too small for their bits to be trusted, or motions too many for float32 to follow a dense run.

What is remembered of a step are its numbers (`Columns`), in a ring; the stretch's end; and products
of all steps since X"""

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
from .zero_gradient import idle_programs

SPAN = 32
"""Most steps from one motion that is computed to the next."""

FEW = 5
"""Steps that are cheaper one by one."""

STRAIGHT = 2.0**-12
"""Between two of these steps the second part of a motion goes straight from one to the other, if
the motion changes beside its first part by no more than this share; of a curve that leaves a third
of the share's square, which is less than the rounding of a motion."""

FLAT = 2.0**-26
"""What changes between two of these steps beside the first part of motions is too little to count
if all of it together is no more than this share of the parameter (a ninth of it the third time)."""

LEAST = 2.0**-24
"""What all motions to come are together of their parameter where they are left out."""

LONG = 14.0
"""All motions to come as a multiple of the next: where they are more, the rounding of states in a
dense run leads its parameter away from an exact one, and steps are taken one by one."""

TINY = 2.0**-126
"""The smallest normal number of float32: states below it become zero."""

FAINT = 2.0**-100
"""Products below it, and scales of motions, are not followed: what is multiplied by them may lose
bits in float32. Nor are motions below it that count."""

VAST = 2.0**60
"""Nor are motions that become so many times larger within a few steps."""

OPEN = 2**63 - 1
"""The end of a stretch that still goes on."""

SMALL, LARGE, EACH = 1024, 16384, 256
"""Fewest and most steps that are remembered, and for how many rows of a table it is one."""


Powers = tuple[tuple[str, float], ...]
"""To what power each state is raised."""


class Missed(NamedTuple):
    """How the missed steps of a rule are followed."""

    motion: Rule | None
    """What moves the parameter, from the states before a step; None if nothing does."""
    move: Rule | None
    """The new parameter from the old one and the motion; None if there is no motion."""
    rest: Rule | None
    """The new parameter where there is none; None if it stays as it is."""
    measures: Rule
    """Its coefficients are what each state is multiplied by in a step, the kind of the motion, what
    it is multiplied by, and scale and bend of each of its forms, by `names`."""
    names: tuple[str, ...]
    forms: tuple[tuple[Powers, Powers], ...]
    """The powers of the states in both parts of each form; see `motions`."""
    states: tuple[str, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those with coefficients that a kernel rounds."""
        return tuple(of for of in (self.motion, self.move, self.rest) if of is not None)

    def changes(self, k: int) -> bool:
        """Whether the k-th state is not multiplied by 1."""
        return self.measures.coefficients[self.names[k]] != "1"

    def measured(self, values: Mapping[str, float], updates: int) -> list[float]:
        """What is remembered of a parameter's n-th update, see `Columns` from ``fades`` on.

        The kind is NaN for a step that does not go on from another.
        """
        rule, count = self.measures, len(self.states)
        try:
            found = rule.evaluate(*(values[name] for name in rule.hyperparameters), updates)
            known = dict(zip(rule.coefficients, map(float, found), strict=True))
            numbers = [known[name] for name in self.names]
            # Kernels multiply states by rounded numbers.
            fades = [float(np.float32(fade)) for fade in numbers[:count]]
            kind, effect = numbers[count : count + 2]
            scale, bend = numbers[count + 2 + 2 * int(kind) :][:2]
            powers = self.forms[int(kind)]
            if not (all(0 <= fade <= 1 for fade in fades) and abs(effect) <= 1 and bend >= 0):
                return self._alone()
            faded = dict(zip(self.states, fades, strict=True))
            later = [math.prod(faded[of] ** n for of, n in one) for one in powers]
        except (ArithmeticError, ValueError, TypeError):  # the rule itself may still be right
            return self._alone()
        return [*fades, *later, scale, bend, kind]

    def _alone(self) -> list[float]:
        return [1.0] * (len(self.states) + 4) + [math.nan]


@cached_with_rule
def missed(rule: Rule) -> Missed | None:
    """How the missed steps of a rule are followed; None if they are to be replayed."""
    found = idle_programs(rule.program)
    if found is None:
        return None
    measures = (*found.fades, found.kind, found.effect)
    measures += tuple(node for form in found.forms for node in (form.scale, form.bend))
    writer = Writer(rule.program.h)
    names = tuple(writer.hoist(node) for node in measures)
    program = Program(
        f"{rule.name}_measures", "", (), rule.program.h, (), measures, {}, rule.program.prepare
    )
    read = tuple(name for name in writer.read if name != STEP)
    motion, move, rest = (
        None if of is None else from_program(of) for of in (found.motion, found.move, found.rest)
    )
    measured = Rule(program, read, writer.coefficients(), (), names, ())
    forms = tuple((_powers(form.powers), _powers(form.bends)) for form in found.forms)
    return Missed(motion, move, rest, measured, names, forms, rule.states)


def _powers(powers: Mapping[str, Fraction]) -> Powers:
    return tuple((state, float(power)) for state, power in powers.items())


def following(rule: Rule, formats: Formats) -> Missed | None:
    """As `missed`, of numbers in these formats: parameter and states have to be float32."""
    plain = all(form == PLAIN["float32"] for form in formats.updated)
    return missed(rule) if plain else None


@cached_with_rule
def unchanged(rule: Rule) -> bool:
    """Whether a zero gradient changes nothing, neither the parameter nor a state."""
    found = missed(rule)
    return (
        found is not None
        and not found.rules
        and not any(map(found.changes, range(len(rule.states))))
    )


def remembered(rows: int) -> int:
    """How many steps are remembered for a table: a power of two."""
    wanted = max(SMALL, min(rows // EACH, LARGE))
    return 1 << (wanted - 1).bit_length()


def turns(rows: int, size: int) -> tuple[int, int]:
    """In how many steps all rows are brought up to date, and how many with each of them.

    Before a step is forgotten, every row has had it: the turn is shorter than the steps that are
    remembered, and a step brings up to date those of its number modulo the turn.
    """
    turn = size * 7 // 8
    return turn, -(-rows // turn)


class Columns(NamedTuple):
    """Where the numbers of a step are in its row of the ring."""

    rule: int
    """How many coefficients the rule has, which come first."""
    motion: int
    move: int
    rest: int
    """The first coefficients of these."""
    fades: int
    """The first state's."""
    later: int
    """What the two parts of the next motion are multiplied by because states have faded."""
    scale: int
    """The scale of the motion, then its bend, of states that have not faded."""
    kind: int
    """Which form the motion has; NaN for a step that does not go on from another."""
    width: int


def columns(rule: Rule, followed: Missed | None) -> Columns:
    """Of a rule's replay, or of how its steps are followed."""
    at = [len(rule.coefficients)]
    if followed is None:
        return Columns(*at, *at, *at, *at, *at, *at, *at, *at, *at)
    for of in (followed.motion, followed.move, followed.rest):
        at.append(at[-1] + (len(of.coefficients) if of else 0))
    later = at[-1] + len(rule.states)
    motion, move, rest, fades = at
    return Columns(motion, motion, move, rest, fades, later, later + 2, later + 4, later + 5)
