"""Interval arithmetic: the interval in which the value of an expression lies."""

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
    """Return the interval of an expression.

    Parameters
    ----------
    node : ast.expr
    known, ranges : mapping of str to (float, float)
        The intervals of variables and of hyperparameters; `ANYTHING` for those left out.
    """

    def read(inner: ast.expr) -> Interval:
        return interval(inner, known, ranges)

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
            numbers = [node for node in arguments if not isinstance(node, ast.Compare)]
            return _call(name, list(map(read, numbers)))
    return ANYTHING


def _product(node: ast.expr, read: Callable[[ast.expr], Interval]) -> Interval:
    """Return the interval of a product; a factor that occurs twice is a square."""
    single: dict[str, ast.expr] = {}
    result = (1.0, 1.0)
    remaining = [node]
    while remaining:
        factor = remaining.pop()
        if isinstance(factor, ast.BinOp) and isinstance(factor.op, ast.Mult):
            remaining += [factor.left, factor.right]
        elif single.pop(ast.dump(factor), None) is not None:
            result = multiplied(result, NONNEGATIVE)
        else:
            single[ast.dump(factor)] = factor
    for factor in single.values():
        result = multiplied(result, read(factor))
    return result


def multiplied(a: Interval, b: Interval) -> Interval:
    """Return the interval of a product; zero times infinity is zero."""
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


def _call(name: str, arguments: list[Interval]) -> Interval:
    match name:
        case "sqrt" | "sq" | "abs":
            return NONNEGATIVE
        case "maximum":
            return max(x[0] for x in arguments), max(x[1] for x in arguments)
        case "minimum":
            return min(x[0] for x in arguments), min(x[1] for x in arguments)
        case "where":
            return min(x[0] for x in arguments), max(x[1] for x in arguments)
    return ANYTHING
