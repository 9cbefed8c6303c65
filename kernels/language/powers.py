"""Whether a rule squares something that depends on the gradient, found in its lines.

Each expression grows with the gradient by some power of it at most, and at least: a product by the
sum of its factors' powers, a quotient by the difference. A power above 1 is taken for a square.
States have the power that their new values have, so that what is squared a step later counts.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from .caching import cached_with_rule
from .program import Program
from .rule import Rule

Powers = tuple[float, float]
"""The least and the greatest power."""

NONE: Powers = (0.0, 0.0)

ROUNDS = 16
"""After so many a rule whose states still grow is taken for one that squares."""


@cached_with_rule
def squares(rule: Rule) -> bool:
    """Whether a rule squares what depends on the gradient, or cannot be shown not to."""
    return _squares(rule.program)


def _squares(program: Program) -> bool:
    if program.squared is not None:
        return True
    _, gradient, *states = program.arguments
    held = dict.fromkeys(states, NONE)
    for _ in range(ROUNDS):
        known = dict.fromkeys(program.arguments, NONE) | held | {gradient: (0.0, 1.0)}
        largest = [1.0]
        for target, expression in program.lines:
            known[target] = _powers(expression, known, largest)
        _, *results = (_powers(result, known, largest) for result in program.results)
        if max(largest) > 1:
            return True
        grown = {
            state: (min(held[state][0], low), max(held[state][1], high))
            for state, (low, high) in zip(states, results, strict=True)
        }
        if grown == held:
            return False
        held = grown
    return True


def _powers(node: ast.expr, known: Mapping[str, Powers], largest: list[float]) -> Powers:
    """Of an expression; the greatest of any in it is added to ``largest``."""

    def read(one: ast.expr) -> Powers:
        return _powers(one, known, largest)

    found = NONE
    match node:
        case ast.Name(id=name):
            found = known[name]
        case ast.UnaryOp(operand=operand):
            found = read(operand)
        case ast.BinOp(left=left, op=op, right=right):
            found = _operation(op, read(left), read(right))
        case ast.Call(func=ast.Name(id=name), args=[*arguments]):
            if isinstance(compared := arguments[0], ast.Compare):  # of where
                arguments = arguments[1:]
                read(compared.left)
                read(compared.comparators[0])
            found = _call(name, list(map(read, arguments)))
    largest.append(found[1])
    return found


def _operation(op: ast.operator, a: Powers, b: Powers) -> Powers:
    match op:
        case ast.Mult():
            return a[0] + b[0], a[1] + b[1]
        case ast.Div():
            return a[0] - b[1], a[1] - b[0]
    return min(a[0], b[0]), max(a[1], b[1])


def _call(name: str, given: list[Powers]) -> Powers:
    match name:
        case "sign":
            return NONE
        case "sqrt":
            return given[0][0] / 2, given[0][1] / 2
        case "sq":
            return 2 * given[0][0], 2 * given[0][1]
    return min(low for low, _ in given), max(high for _, high in given)
