"""Derive a rule's update for a zero gradient from its syntax tree.

With zero for the gradient most of a rule falls away. The rest has a closed form if

    s_k <- f_k(h) s_k                  for every state
    p   <- a(h) p + b(h) d(s, h)       with one displacement d of the states before the step

and d is a product of powers of the states (see `PowerProduct`), of which no two forms have
different powers in the correction.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ..language.inline import Substitute
from ..language.program import Program, assigned_once, host_only, inlined, names
from ..language.rowwise import MEAN
from .displacement import PowerProduct, power_products

DISPLACEMENT = "_displacement"
"""The variable of the displacement; variables of rules cannot begin with an underscore."""

Lines = list[tuple[str, ast.expr]]


class ZeroGradientUpdate(NamedTuple):
    """The programs and expressions of an update with a zero gradient."""

    displacement: Program | None
    """d, from the states before the step; None if it is always zero."""
    inverse: Program | None
    """1 / (s1^c s2^e ...), the powers of the states in a correction; None without one."""
    decay: tuple[ast.expr, ...]
    """f_k, from hyperparameters."""
    forms: list[PowerProduct]
    """The forms of the displacement."""
    form: ast.expr
    """The index of a step's form, from hyperparameters."""
    shrink: ast.expr
    """a, from hyperparameters."""
    coefficient: ast.expr
    """b, from hyperparameters."""


def zero_gradient_update(program: Program) -> ZeroGradientUpdate | None:
    """Return the update of a program for a zero gradient; None if it has no closed form."""
    parameter, gradient, *_ = program.arguments
    states = program.arguments[2 : 1 + len(program.results)]
    zero = {gradient}
    if program.squared is not None:
        (squared,) = _without(program.squared, zero)[1]
        if not _is(squared, 0):
            return None
        zero.add(MEAN)
    lines, (new, *new_states) = _without(program, zero)
    assigned = dict(lines)
    decay = [_factor(inlined(node, assigned), state, program.h) for node, state in
             zip(new_states, states, strict=True)]  # fmt: skip
    varying = {parameter}
    varying |= {target for target, node in lines if _reads(node, assigned, parameter)}
    separate = _Separate(varying, program.h)
    new = _separated(
        separate, inlined(new, {name: assigned[name] for name in varying & set(assigned)})
    )
    displacements = {ast.dump(node): node for node in separate.found}
    if None in decay or len(displacements) > 1 or not _linear(new, parameter, program.h):
        return None
    (displacement,) = displacements.values() or (ast.Constant(1),)
    forms, form = power_products(inlined(displacement, assigned), states, program.h)
    if not forms or len({frozenset(f.correction_powers.items()) for f in forms if f.exponent}) > 1:
        return None

    def new_with(**values: int) -> ast.expr:
        known = {name: ast.Constant(value) for name, value in values.items()}
        return _simplified(Substitute(known).visit(copy.deepcopy(new)))

    moved = bool(displacements)
    inverse = _inverse(forms)
    return ZeroGradientUpdate(
        _program(program, "displacement", (DISPLACEMENT, *states), lines, displacement)
        if moved
        else None,
        _program(program, "inverse", (DISPLACEMENT, *states), [], inverse) if inverse else None,
        tuple(factor for factor in decay if factor is not None),
        forms,
        form,
        new_with(**{parameter: 1, DISPLACEMENT: 0}),
        new_with(**{parameter: 0, DISPLACEMENT: 1}) if moved else ast.Constant(0),
    )


def _without(program: Program, zero: set[str]) -> tuple[Lines, list[ast.expr]]:
    """Return lines and results with zero for some arguments, simplified."""
    lines, results = assigned_once(program)
    known: dict[str, ast.expr] = {name: ast.Constant(0) for name in zero}

    def reduced(node: ast.expr) -> ast.expr:
        return _simplified(Substitute(known).visit(copy.deepcopy(node)))

    remaining = []
    for k, (target, expression) in enumerate(lines):
        # Unscaling and clipping leave a gradient of zero at zero.
        node = ast.Constant(0) if k < program.scaling else reduced(expression)
        if isinstance(node, ast.Name) or host_only(node, program.h):
            known[target] = node
        else:
            remaining.append((target, node))
    return remaining, [reduced(node) for node in results]


def _inverse(forms: list[PowerProduct]) -> ast.expr | None:
    """Return one divided by the powers of states in the correction that some forms have."""
    powers = next((form.correction_powers for form in forms if form.exponent), None)
    if powers is None:
        return None
    result: ast.expr = ast.Constant(1)
    for name, power in powers.items():
        root: ast.expr = ast.Name(name)
        for _ in range(power.denominator.bit_length() - 1):  # a rule has square roots alone
            root = ast.Call(ast.Name("sqrt"), [root], [])
        for _ in range(abs(power.numerator)):
            result = ast.BinOp(result, ast.Mult() if power < 0 else ast.Div(), root)
    return _simplified(result)


def _program(
    program: Program, name: str, arguments: tuple[str, ...], lines: Lines, result: ast.expr
) -> Program:
    needed, used = names(result), []
    for target, expression in reversed(lines):
        if target in needed:
            used.append((target, expression))
            needed |= names(expression)
    return replace(
        program,
        name=f"{program.name}_{name}",
        doc=f"The {name} of {program.name} without a gradient.",
        arguments=arguments,
        lines=tuple(reversed(used)),
        results=(result,),
        scaling=0,
        row_states=(),
        squared=None,
    )


def _reads(node: ast.expr, lines: Mapping[str, ast.expr], name: str) -> bool:
    return name in names(inlined(node, lines))


def _is(node: ast.expr, value: float) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _names(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _factor(node: ast.expr, state: str, h: str) -> ast.expr | None:
    """Return f if an expression is f * state, with f from hyperparameters; else None."""
    if _names(node, state):
        return ast.Constant(1)
    match node:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            if host_only(right, h):
                left, right = right, left
            factor = _factor(right, state, h) if host_only(left, h) else None
            return factor and _simplified(ast.BinOp(factor, ast.Mult(), left))
        case ast.BinOp(left=left, op=ast.Div() as over, right=right) if host_only(right, h):
            factor = _factor(left, state, h)
            return factor and ast.BinOp(factor, over, right)
        case ast.BinOp(left=left, op=(ast.Add() | ast.Sub()) as sign, right=right):
            one, other = _factor(left, state, h), _factor(right, state, h)
            return one and other and ast.BinOp(one, sign, other)
        case ast.UnaryOp(op=ast.USub() as sign, operand=operand):
            factor = _factor(operand, state, h)
            return factor and ast.UnaryOp(sign, factor)
    return None


def _linear(node: ast.expr, parameter: str, h: str) -> bool:
    """True if an expression is a p + b d, with a and b from hyperparameters."""

    def linear(part: ast.expr) -> bool:
        return _linear(part, parameter, h)

    match node:
        case ast.Name(id=name):
            return name in (parameter, DISPLACEMENT)
        case ast.UnaryOp(operand=operand):
            return linear(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return linear(left) and linear(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return (host_only(left, h) and linear(right)) or (linear(left) and host_only(right, h))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return linear(left) and host_only(right, h)
    return False


def _separated(separate: _Separate, node: ast.expr) -> ast.expr:
    result = separate.visit(node)
    assert isinstance(result, ast.expr)
    return result


class _Separate(ast.NodeTransformer):
    """Replaces the largest expressions without varying names by the displacement."""

    def __init__(self, varying: set[str], h: str) -> None:
        self.varying, self.h = varying, h
        self.found: list[ast.expr] = []

    def visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, ast.expr) or host_only(node, self.h):
            return node
        if names(node) & self.varying:
            return self.generic_visit(node)
        self.found.append(node)
        return ast.Name(DISPLACEMENT)


def _simplified(node: ast.expr) -> ast.expr:
    result: ast.expr = _Zeros().visit(node)
    return result


class _Zeros(ast.NodeTransformer):
    """Simplifies 0 * x, 0 / x, x + 0, 1 * x and functions of zeros; other numbers are finite."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return node.operand if _is(node.operand, 0) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        match node.op:
            case ast.Mult() if _is(node.left, 0) or _is(node.right, 0):
                return ast.Constant(0)
            case ast.Mult() if _is(node.left, 1):
                return node.right
            case ast.Div() if _is(node.left, 0):
                return node.left
            case ast.Add() if _is(node.left, 0):
                return node.right
            case ast.Sub() if _is(node.left, 0):
                return _Zeros().visit(ast.UnaryOp(ast.USub(), node.right))  # type: ignore[no-any-return]
            case ast.Add() | ast.Sub() if _is(node.right, 0):
                return node.left
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        choices = [arg for arg in node.args if not isinstance(arg, ast.Compare)]
        # Every function of the language maps zeros to zero, whatever its condition is.
        return ast.Constant(0) if choices and all(_is(arg, 0) for arg in choices) else node
