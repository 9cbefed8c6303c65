"""Which states of a rule are never negative: 8 bits of them need no sign."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping

from .program import Program
from .rowwise import MEAN

Interval = tuple[float, float]

ANYTHING: Interval = (-math.inf, math.inf)
NOT_NEGATIVE: Interval = (0.0, math.inf)


def not_negative(program: Program, ranges: Mapping[str, Interval]) -> frozenset[str]:
    """The states that stay at 0 or above if all of them begin there.

    Parameters
    ----------
    program : Program
    ranges : mapping of str to (float, float)
        Between what hyperparameters are; those that are not in it may be anything.
    """
    _, _, *states = program.arguments[: 1 + len(program.results)]
    kept = set(states)
    while True:
        known = dict.fromkeys(program.arguments, ANYTHING) | dict.fromkeys(kept, NOT_NEGATIVE)
        known |= {MEAN: NOT_NEGATIVE}
        for target, expression in program.lines:
            known[target] = interval(expression, known, ranges)
        left = {
            state
            for state, result in zip(states, program.results[1:], strict=True)
            if state in kept and interval(result, known, ranges)[0] >= 0
        }
        if left == kept:
            return frozenset(kept)
        kept = left


def interval(
    node: ast.expr, known: Mapping[str, Interval], ranges: Mapping[str, Interval]
) -> Interval:
    """Between what an expression is, by what variables and hyperparameters are."""

    def read(one: ast.expr) -> Interval:
        return interval(one, known, ranges)

    match node:
        case ast.Constant(value=value):
            return float(value), float(value)  # type: ignore[arg-type]
        case ast.Name(id=name):
            return known.get(name, ANYTHING)
        case ast.Attribute(attr="t"):  # the number of the step
            return 1.0, math.inf
        case ast.Attribute(attr=name):
            return ranges.get(name, ANYTHING)
        case ast.UnaryOp(operand=operand):
            low, high = read(operand)
            return -high, -low
        case ast.BinOp(op=ast.Mult()):
            return _product(node, read)
        case ast.BinOp(left=left, op=op, right=right):
            return _operation(op, read(left), read(right))
        case ast.Call(func=ast.Name(id=name), args=[*arguments]):
            numbers = [one for one in arguments if not isinstance(one, ast.Compare)]
            return _call(name, list(map(read, numbers)))
    return ANYTHING


def _product(node: ast.expr, read: Callable[[ast.expr], Interval]) -> Interval:
    """Of a product; what is in it twice is a square."""
    once: dict[str, ast.expr] = {}
    between = (1.0, 1.0)
    left = [node]
    while left:
        one = left.pop()
        if isinstance(one, ast.BinOp) and isinstance(one.op, ast.Mult):
            left += [one.left, one.right]
        elif once.pop(ast.dump(one), None) is not None:
            between = multiplied(between, NOT_NEGATIVE)
        else:
            once[ast.dump(one)] = one
    for one in once.values():
        between = multiplied(between, read(one))
    return between


def multiplied(a: Interval, b: Interval) -> Interval:
    """Between what a product is; zero times infinity is zero."""
    products = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(products), max(products)


def _operation(op: ast.operator, a: Interval, b: Interval) -> Interval:
    match op:
        case ast.Add():
            return a[0] + b[0], a[1] + b[1]
        case ast.Sub():
            return a[0] - b[1], a[1] - b[0]
        case ast.Mult():
            return multiplied(a, b)
        case ast.Div() if a[0] >= 0 and b[0] >= 0:
            return NOT_NEGATIVE
        case ast.Pow() if a[0] >= 0:
            return 0.0, 1.0 if a[1] <= 1 and b[0] >= 0 else math.inf
    return ANYTHING


def _call(name: str, given: list[Interval]) -> Interval:
    match name:
        case "sqrt" | "sq" | "abs":
            return NOT_NEGATIVE
        case "maximum":
            return max(x[0] for x in given), max(x[1] for x in given)
        case "minimum":
            return min(x[0] for x in given), min(x[1] for x in given)
        case "where":
            return min(x[0] for x in given), max(x[1] for x in given)
    return ANYTHING
