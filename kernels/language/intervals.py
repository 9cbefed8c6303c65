"""The interval in which the value of an expression lies."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping

Interval = tuple[float, float]

ANYTHING: Interval = (-math.inf, math.inf)
NONNEGATIVE: Interval = (0.0, math.inf)


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
            between = multiplied(between, NONNEGATIVE)
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
            return NONNEGATIVE
        case ast.Pow() if a[0] >= 0:
            return 0.0, 1.0 if a[1] <= 1 and b[0] >= 0 else math.inf
    return ANYTHING


def _call(name: str, given: list[Interval]) -> Interval:
    match name:
        case "sqrt" | "sq" | "abs":
            return NONNEGATIVE
        case "maximum":
            return max(x[0] for x in given), max(x[1] for x in given)
        case "minimum":
            return min(x[0] for x in given), min(x[1] for x in given)
        case "where":
            return min(x[0] for x in given), max(x[1] for x in given)
    return ANYTHING
