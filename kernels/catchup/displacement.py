"""Displacements that are products of powers of the states.

With states s and hyperparameters h of a step, such a displacement is

    d = scale(h) s1^a s2^b ... (1 + correction(h) s1^c s2^e ...)^exponent

Adam's, ``lr m / (sqrt(v) + eps)``, is ``lr m v^-1/2 (1 + eps v^-1/2)^-1``. If states are multiplied
by decay factors of the step, the first product changes by one known factor for all elements; only
the bracket differs between elements.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ..language.program import host_only

Powers = Mapping[str, Fraction]

MAX_CONDITIONS = 2
"""Largest number of conditions on hyperparameters in one displacement; each doubles the forms."""


@dataclass(frozen=True)
class PowerProduct:
    """A product of powers of the states, times a correction; see this module."""

    scale: ast.expr
    powers: Powers = field(default_factory=dict)
    correction: ast.expr = field(default_factory=lambda: ast.Constant(0))
    correction_powers: Powers = field(default_factory=dict)
    exponent: Fraction = Fraction(0)
    """0 without a correction."""
    nonnegative: bool = True
    """True if the product of powers of states cannot be negative."""


def power_products(
    displacement: ast.expr, states: tuple[str, ...], h: str
) -> tuple[list[PowerProduct], ast.expr]:
    """Return the forms of a displacement, and an expression for the index of a step's form.

    A rule may choose by hyperparameters, as RAdam does: each choice gives a form.

    Parameters
    ----------
    displacement : ast.expr
    states : tuple of str
    h : str
        Name of the hyperparameters.

    Returns
    -------
    forms : list of PowerProduct
        Empty if the displacement is something else, or a correction may grow while states decay.
    form : ast.expr
        From hyperparameters.
    """
    variants = [displacement]
    form: ast.expr = ast.Constant(0)
    for number in range(MAX_CONDITIONS + 1):
        condition = _condition(variants[0], h)
        if condition is None:
            break
        if number == MAX_CONDITIONS:
            return [], form
        variants = [_chosen(node, condition, k) for k in (1, 2) for node in variants]
        bit = _call("where", condition, ast.Constant(0), ast.Constant(2**number))
        form = ast.BinOp(form, ast.Add(), bit)
    found = [_product_of_powers(node, states, h) for node in variants]
    forms = [one for one in found if one is not None and one.exponent <= 0]
    return (forms if len(forms) == len(found) else []), form


def _condition(node: ast.expr, h: str) -> ast.expr | None:
    """Return the first condition on hyperparameters between expressions of states."""
    for call in ast.walk(node):
        match call:
            case ast.Call(func=ast.Name(id="where"), args=[condition, *_]) if not host_only(
                call, h
            ):
                if host_only(condition, h):
                    return condition
    return None


def _chosen(node: ast.expr, condition: ast.expr, branch: int) -> ast.expr:
    result: ast.expr = _Choose(ast.dump(condition), branch).visit(copy.deepcopy(node))
    return result


class _Choose(ast.NodeTransformer):
    def __init__(self, condition: str, branch: int) -> None:
        self.condition, self.branch = condition, branch

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id="where"), args=[condition, *_]):
                if ast.dump(condition) == self.condition:
                    return node.args[self.branch]
        return node


def _product_of_powers(
    node: ast.expr, states: tuple[str, ...], h: str, inside: bool = False
) -> PowerProduct | None:
    """Return an expression as a product of powers; states ``inside`` a root are not negative."""

    def read(node: ast.expr, inside: bool = inside) -> PowerProduct | None:
        return _product_of_powers(node, states, h, inside)

    if host_only(node, h):
        return PowerProduct(node)
    match node:
        case ast.Name(id=name) if name in states:
            return PowerProduct(ast.Constant(1), {name: Fraction(1)}, nonnegative=inside)
        case ast.UnaryOp(operand=operand):
            one = read(operand)
            return one and replace(one, scale=ast.UnaryOp(ast.USub(), one.scale))
        case ast.Call(func=ast.Name(id="sqrt"), args=[operand]):
            one = read(operand, True)
            return one and _power(one, _call("sqrt", one.scale), Fraction(1, 2))
        case ast.Call(func=ast.Name(id="sq"), args=[operand]):
            one = read(operand)
            return one and _power(one, ast.BinOp(one.scale, ast.Mult(), one.scale), Fraction(2))
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            return _product(read(left), op, read(right))
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            return _sum(read(left), op, read(right))
    return None


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name), list(arguments), [])


def _power(one: PowerProduct, scale: ast.expr, power: Fraction) -> PowerProduct:
    powers = {name: n * power for name, n in one.powers.items()}
    return replace(one, scale=scale, powers=powers, exponent=one.exponent * power, nonnegative=True)


def _product(
    a: PowerProduct | None, op: ast.operator, b: PowerProduct | None
) -> PowerProduct | None:
    if a is None or b is None or (a.exponent and b.exponent):
        return None
    sign = -1 if isinstance(op, ast.Div) else 1
    names = {*a.powers, *b.powers}
    powers = {n: a.powers.get(n, Fraction(0)) + sign * b.powers.get(n, Fraction(0)) for n in names}
    corrected = a if a.exponent else b
    exponent = a.exponent if a.exponent else sign * b.exponent
    scale = ast.BinOp(a.scale, op, b.scale)
    return PowerProduct(
        scale,
        powers,
        corrected.correction,
        corrected.correction_powers,
        exponent,
        a.nonnegative and b.nonnegative,
    )


def _sum(a: PowerProduct | None, op: ast.operator, b: PowerProduct | None) -> PowerProduct | None:
    """Return the sum of products without corrections, of which one has no states."""
    if a is None or b is None or a.exponent or b.exponent:
        return None
    if a.powers == b.powers:
        return replace(
            a, scale=ast.BinOp(a.scale, op, b.scale), nonnegative=a.nonnegative and b.nonnegative
        )
    if b.powers:
        if a.powers:
            return None
        second = (
            b
            if isinstance(op, ast.Add)
            else _product(PowerProduct(ast.Constant(-1)), ast.Mult(), b)
        )
        assert second is not None
        return _sum(second, ast.Add(), a)
    if not a.nonnegative:
        return None
    correction: ast.expr = ast.BinOp(b.scale, ast.Div(), a.scale)
    if isinstance(op, ast.Sub):
        correction = ast.UnaryOp(ast.USub(), correction)
    inverse = {name: -power for name, power in a.powers.items()}
    return PowerProduct(a.scale, a.powers, correction, inverse, Fraction(1))
