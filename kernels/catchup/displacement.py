"""Motions that are a product of powers, of which every step's is known from one that is computed.

With ``s`` the states and ``h`` the numbers of a step, such a motion is

    scale(h) s1^a s2^b ...  (1 + bend(h) s1^c s2^d ...)^root

Adam's, ``lr m / (sqrt(v) + eps)``, is ``lr m v^-1/2 (1 + eps v^-1/2)^-1``. States that are
multiplied by numbers of the step change its first part by a factor that is the same for all
elements; what the second part changes by lies between what it is in two steps.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ..language.program import host_only

Powers = Mapping[str, Fraction]

MOST_CHOICES = 2
"""Choices by numbers of the step in one motion; each doubles the forms that it may have."""


@dataclass(frozen=True)
class Form:
    """A product of powers; see this module."""

    scale: ast.expr
    powers: Powers = field(default_factory=dict)
    bend: ast.expr = field(default_factory=lambda: ast.Constant(0))
    bends: Powers = field(default_factory=dict)
    root: Fraction = Fraction(0)
    """0 where there is no second part."""
    positive: bool = True
    """Whether the powers of states cannot be negative."""


def forms_of(motion: ast.expr, states: tuple[str, ...], h: str) -> tuple[list[Form], ast.expr]:
    """The forms that a motion has, and the number of the step that says which of them.

    A rule may choose by numbers of the step, as RAdam does: each choice gives a form. There are
    none if the motion is something else, or if its second part may grow while states fade.
    """
    motions = [motion]
    kind: ast.expr = ast.Constant(0)
    for number in range(MOST_CHOICES + 1):
        choice = _choice(motions[0], h)
        if choice is None:
            break
        if number == MOST_CHOICES:
            return [], kind
        motions = [_chosen(one, choice, k) for k in (1, 2) for one in motions]
        share = _call("where", choice, ast.Constant(0), ast.Constant(2**number))
        kind = ast.BinOp(kind, ast.Add(), share)
    found = [_form(one, states, h) for one in motions]
    forms = [form for form in found if form is not None and form.root <= 0]
    return (forms if len(forms) == len(found) else []), kind


def _choice(node: ast.expr, h: str) -> ast.expr | None:
    """The first condition of the step alone that decides between expressions of states."""
    for one in ast.walk(node):
        match one:
            case ast.Call(func=ast.Name(id="where"), args=[condition, *_]) if not host_only(one, h):
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


def _form(node: ast.expr, states: tuple[str, ...], h: str, inside: bool = False) -> Form | None:
    """The form of an expression; ``inside`` a square root states are not negative."""

    def read(one: ast.expr, inside: bool = inside) -> Form | None:
        return _form(one, states, h, inside)

    if host_only(node, h):
        return Form(node)
    match node:
        case ast.Name(id=name) if name in states:
            return Form(ast.Constant(1), {name: Fraction(1)}, positive=inside)
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


def _power(one: Form, scale: ast.expr, power: Fraction) -> Form:
    powers = {name: of * power for name, of in one.powers.items()}
    return replace(one, scale=scale, powers=powers, root=one.root * power, positive=True)


def _product(a: Form | None, op: ast.operator, b: Form | None) -> Form | None:
    if a is None or b is None or (a.root and b.root):
        return None
    sign = -1 if isinstance(op, ast.Div) else 1
    names = {*a.powers, *b.powers}
    powers = {n: a.powers.get(n, Fraction(0)) + sign * b.powers.get(n, Fraction(0)) for n in names}
    bent = a if a.root else b
    root = a.root if a.root else sign * b.root
    scale = ast.BinOp(a.scale, op, b.scale)
    return Form(scale, powers, bent.bend, bent.bends, root, a.positive and b.positive)


def _sum(a: Form | None, op: ast.operator, b: Form | None) -> Form | None:
    """Of products without a second part, a number of the step added to one that has states."""
    if a is None or b is None or a.root or b.root:
        return None
    if a.powers == b.powers:
        return replace(a, scale=ast.BinOp(a.scale, op, b.scale), positive=a.positive and b.positive)
    if b.powers:
        if a.powers:
            return None
        second = b if isinstance(op, ast.Add) else _product(Form(ast.Constant(-1)), ast.Mult(), b)
        assert second is not None
        return _sum(second, ast.Add(), a)
    if not a.positive:
        return None
    bend: ast.expr = ast.BinOp(b.scale, ast.Div(), a.scale)
    if isinstance(op, ast.Sub):
        bend = ast.UnaryOp(ast.USub(), bend)
    bends = {name: -power for name, power in a.powers.items()}
    return Form(a.scale, a.powers, bend, bends, Fraction(1))
