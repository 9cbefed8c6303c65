"""The steps that a row has missed: what is remembered of them, and how they are made up for.

Rows that had no gradient have a step to come for each that was taken, with zero for the gradient
and the coefficients of that very step. A *replay* takes them one by one, by the rule itself. Where
a rule allows it (see `idle`) they are *followed* instead: states are multiplied by products of
numbers of the steps; the parameter goes through the steps by motions that are computed in some
of them and go straight between these, until no motion changes it any more. That is for float32:
numbers along the steps are float64.

What is remembered of a step are its numbers (`Columns`), in a ring, and products of all steps since
then; both are read by the number of a parameter's updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from .formats import PLAIN, Formats
from .idle import idle_programs
from .program import Program
from .rule import STEP, Rule, from_program
from .writer import Writer

SPAN = 32
"""Most steps from one motion that is computed to the next."""

FEW = 5
"""Steps that are cheaper one by one."""

STRAIGHT = 2.0**-11
"""Between two of these steps motions go from those of large states straight towards those of small
ones, if they have come no further than this share of the way; of a curve that leaves the share's
square, which is below the rounding of a motion."""

FLAT = 2.0**-26
"""What changes between two of these steps beside the motion of large states is too little to
count if all of it together is no more than this share of the parameter."""

LEAST = 2.0**-26
"""What a motion is of its parameter where it does not change it any more, and will not if it
becomes twice as large."""

SMALL, LARGE, EACH = 1024, 16384, 256
"""Fewest and most steps that are remembered, and for how many rows of a table it is one."""


class Missed(NamedTuple):
    """How the missed steps of a rule are followed."""

    motion: Rule | None
    """What moves the parameter, from the states before a step; None if nothing does."""
    move: Rule | None
    """The new parameter from the old one and the motion; None if there is no motion."""
    rest: Rule | None
    """The new parameter where there is none; None if it stays as it is."""
    measures: Rule
    names: tuple[str, ...]
    """The coefficients of `measures` that are what each state is multiplied by in a step, the
    motions of large and of small states, one step later, and now."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those with coefficients that a kernel rounds."""
        return tuple(of for of in (self.motion, self.move, self.rest) if of is not None)

    def changes(self, k: int) -> bool:
        """Whether the k-th state is not multiplied by 1."""
        return self.measures.coefficients[self.names[k]] != "1"

    def measured(self, values: Mapping[str, float], updates: int) -> list[float]:
        """What `names` are at a parameter's n-th update."""
        rule = self.measures
        try:
            found = rule.evaluate(*(values[name] for name in rule.hyperparameters), updates)
        except ArithmeticError:  # of extreme states: motions are computed in every step then
            return [float("nan")] * len(self.names)
        known = dict(zip(rule.coefficients, map(float, found), strict=True))
        return [known[name] for name in self.names]


@cache
def missed(rule: Rule) -> Missed | None:
    """How the missed steps of a rule are followed; None if they are to be replayed."""
    found = idle_programs(rule.program)
    if found is None:
        return None
    measures = (*found.fades, found.large_later, found.small_later, found.large, found.small)
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
    return Missed(motion, move, rest, measured, names)


def following(rule: Rule, formats: Formats) -> Missed | None:
    """As `missed`, of numbers in these formats: parameter and states have to be float32."""
    plain = all(form == PLAIN["float32"] for form in formats.updated)
    return missed(rule) if plain else None


@cache
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
    ratio: int
    """Of the motion of large states to that of the step before; then this ratio as a multiple of
    that of small ones."""
    start: int
    """These two motions, of states that have not faded."""
    width: int


def columns(rule: Rule, followed: Missed | None) -> Columns:
    """Of a rule's replay, or of how its steps are followed."""
    at = [len(rule.coefficients)]
    if followed is None:
        return Columns(*at, *at, *at, *at, *at, *at, *at, *at)
    for of in (followed.motion, followed.move, followed.rest):
        at.append(at[-1] + (len(of.coefficients) if of else 0))
    ratio = at[-1] + len(rule.states)
    motion, move, rest, fades = at
    return Columns(motion, motion, move, rest, fades, ratio, ratio + 2, ratio + 4)
