"""Gradients of a wider type than the arithmetic: scaled and clipped before they are rounded.

What a step asks for, to unscale and to clip, are the first lines of the rule that it runs. Where
gradients are wider they are a function of their own, of the gradients' type, with coefficients of
that type; the rule gets its result, rounded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .caching import cached_with_rule
from .rule import Rule


class Scaling(NamedTuple):
    """The function of a wider type, and what it leaves of a rule."""

    symbol: str
    gradient: str
    """Its first argument."""
    lines: tuple[tuple[str, str], ...]
    result: str
    coefficients: tuple[str, ...]
    """Those of the rule that it reads, by the names that they have there."""
    places: dict[str, int]
    """What kernels call them in the wider type, and their numbers among the rule's."""
    rest: tuple[tuple[str, str], ...]
    """The rule's lines without it."""

    def of(self, gradient: str) -> str:
        """A call."""
        return f"{self.symbol}({', '.join([gradient, *self.places])})"


@cached_with_rule
def scaling(rule: Rule) -> Scaling | None:
    """Return what a rule does to gradients before they are rounded, if it does anything."""
    count = rule.program.scaling
    if not count:
        return None
    lines, rest = rule.lines[:count], rule.lines[count:]
    result, gradient = lines[-1][0], rule.gradient
    read = {word for _, expression in lines for word in re.findall(r"\w+", expression)}
    used = [(k, name) for k, name in enumerate(rule.coefficients) if name in read]
    return Scaling(
        f"scaled__{rule.name}",
        gradient,
        lines,
        result,
        tuple(name for _, name in used),
        {f"{name}_wide": k for k, name in used},
        rest if result == gradient else ((result, gradient), *rest),
    )


def scaled(rule: Rule) -> frozenset[int]:
    """The numbers of the coefficients that scale and clip: any type of gradients may hold them."""
    found = scaling(rule)
    return frozenset(found.places.values()) if found else frozenset()
