"""Split a rule for gradients of a wider type than its arithmetic.

The first lines of a composed rule unscale and clip the gradient. They become a function in the
gradient's type, with coefficients of that type. The rule gets its result, rounded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .caching import cached_with_rule
from .rule import Rule


class Scaling(NamedTuple):
    """The function in the wider type, and the rule without it."""

    symbol: str
    gradient: str
    """Its first argument."""
    lines: tuple[tuple[str, str], ...]
    result: str
    coefficients: tuple[str, ...]
    """The rule's coefficients that it reads, by their names in the rule."""
    positions: dict[str, int]
    """By their names in the wider type, their positions among the rule's coefficients."""
    remaining: tuple[tuple[str, str], ...]
    """The lines of the rule after it."""

    def call(self, gradient: str) -> str:
        """Return a call of the function."""
        return f"{self.symbol}({', '.join([gradient, *self.positions])})"


@cached_with_rule
def scaling(rule: Rule) -> Scaling | None:
    """Return the split of a rule; None if it neither unscales nor clips."""
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
    """Return the positions of the coefficients that unscale and clip, held in the wider type."""
    found = scaling(rule)
    return frozenset(found.positions.values()) if found else frozenset()
