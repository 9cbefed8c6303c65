"""The powers of the gradient's magnitude by which the values in a rule grow, found in its lines.

Each expression has an interval [a, b]: it grows with the gradient's magnitude g at least as g^a and
at most as g^b. With [c, d] of a second operand:

    product             [a + c, b + d]        quotient    [a - d, b - c]
    sqrt                [a / 2, b / 2]        sq          [2 a, 2 b]
    sum, maximum, ...   [min(a, c), max(b, d)]

The interval is [0, 0] for a hyperparameter and None for zero.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from .caching import cached_with_rule
from .program import Program, assigned_once, host_only
from .rule import Rule

Powers = tuple[float, float]
Known = Mapping[str, Powers | None]

CONSTANT: Powers = (0.0, 0.0)

ROUNDS = 16
"""After so many a rule whose states still grow is taken for one that squares."""


@cached_with_rule
def squares(rule: Rule) -> bool:
    """Return whether a rule squares what depends on the gradient, or cannot be shown not to.

    A power above 1 is taken for a square. States have the powers of their new values, so that what
    is squared a step later counts.
    """
    program = rule.program
    if program.squared is not None:
        return True
    parameter, gradient, *states = program.arguments
    held: dict[str, Powers | None] = dict.fromkeys(states, CONSTANT)
    for _ in range(ROUNDS):
        seen: list[float] = []
        known = {parameter: CONSTANT, gradient: (0.0, 1.0), **held}
        for target, node in program.lines:
            known[target] = powers(node, known, program.h, seen)
        _, *new = (powers(node, known, program.h, seen) for node in program.results)
        if max(seen, default=0) > 1:
            return True
        grown = {state: _hull([held[state], size]) for state, size in zip(states, new, strict=True)}
        if grown == held:
            return False
        held = grown
    return True


def not_of_gradients_size(program: Program) -> frozenset[str]:
    """Return the states that are not shown to be of the gradient's size, or a quotient of such.

    Squares are not, and float16 holds 6e-8 to 65504. Nonnegative states are not either: rules
    divide by them, so that none of them may become zero.
    """
    lines, results = assigned_once(program)
    parameter, gradient, *states = program.arguments[: 1 + len(program.results)]
    sizes: dict[str, Powers | None] = dict.fromkeys(states)
    before: dict[str, Powers | None] = {}
    for _ in range(2 + len(states)):
        before = dict(sizes)
        known = sizes | {parameter: (0.0, 1.0), gradient: (1.0, 1.0)}
        for target, node in lines:
            known[target] = powers(node, known, program.h, [])
        for state, node in zip(states, results[1:], strict=True):
            sizes[state] = powers(node, known, program.h, [])
    fits = {
        state
        for state, size in sizes.items()
        if size == before[state] and (size is None or (size[0] >= 0 and size[1] <= 1))
    }
    return frozenset(set(states) - fits) | set(program.nonnegative)


def powers(node: ast.expr, known: Known, h: str, seen: list[float]) -> Powers | None:
    """Return the interval of an expression.

    Parameters
    ----------
    node : ast.expr
    known : mapping of str to (float, float) or None
        The intervals of variables.
    h : str
        The name of the hyperparameters.
    seen : list of float
        The upper end of each expression in ``node`` is appended to it.
    """

    def read(inner: ast.expr) -> Powers | None:
        return powers(inner, known, h, seen)

    if host_only(node, h):
        return None if isinstance(node, ast.Constant) and node.value == 0 else CONSTANT
    found: Powers | None = CONSTANT
    match node:
        case ast.Name(id=name):
            found = known[name]
        case ast.UnaryOp(operand=operand):
            found = read(operand)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            a, b = read(left), read(right)
            if a is None or b is None:
                found = None
            elif isinstance(op, ast.Mult):
                found = a[0] + b[0], a[1] + b[1]
            else:
                found = a[0] - b[1], a[1] - b[0]
        case ast.BinOp(left=left, right=right):
            found = _hull([read(left), read(right)])
        case ast.Call(func=ast.Name(id=name), args=[*arguments]):
            if isinstance(compared := arguments[0], ast.Compare):  # of where
                arguments = arguments[1:]
                read(compared.left), read(compared.comparators[0])
            size = _hull(map(read, arguments))
            factor = {"sqrt": 0.5, "sq": 2.0}.get(name, 1.0)
            found = None if size is None else (factor * size[0], factor * size[1])
            found = CONSTANT if name == "sign" else found
    seen += [found[1]] if found else []
    return found


def _hull(sizes: Iterable[Powers | None]) -> Powers | None:
    some = [size for size in sizes if size is not None]
    return (min(a for a, _ in some), max(b for _, b in some)) if some else None
