"""What a step does to elements whose gradient is zero, found in the rule's own lines.

With zero for the gradient most of a rule falls away. If every state is then multiplied by a
number of the step alone, many steps at once are one multiplication; and the parameter is moved by
one expression of the states, its *motion*. If that is a product of powers (see `motions`), a
traversal may follow it without evaluating it at every step.
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
from .displacement import Form, forms_of

MOTION = "_motion"
"""The variable that stands for the motion; rules cannot have names like it."""

Lines = list[tuple[str, ast.expr]]


class Idle(NamedTuple):
    """The programs of a step with a zero gradient."""

    motion: Program | None
    """From the states as they were to what moves the parameter; None if nothing does."""
    move: Program | None
    """From the parameter and its motion to the new parameter; None if there is no motion."""
    rest: Program | None
    """From the parameter to the new one where there is none; None if it stays as it is."""
    fades: tuple[ast.expr, ...]
    """What each state is multiplied by, of hyperparameters alone."""
    forms: list[Form]
    """The forms that the motion has."""
    kind: ast.expr
    """Which of them it has in a step, of hyperparameters alone."""
    effect: ast.expr
    """What the motion is multiplied by where it moves the parameter, of hyperparameters alone."""


def idle_programs(program: Program) -> Idle | None:
    """The programs, or None if a zero gradient leaves more than this of the rule."""
    parameter, gradient, *_ = program.arguments
    states = program.arguments[2 : 1 + len(program.results)]
    zero = {gradient}
    if program.squared is not None:
        (squared,) = _without(program.squared, zero)[1]
        if not _is(squared, 0):
            return None
        zero.add(MEAN)
    lines, (new, *kept) = _without(program, zero)
    every = dict(lines)
    fades = [_factor(inlined(node, every), of, program.h) for node, of in
             zip(kept, states, strict=True)]  # fmt: skip
    varying = {parameter}
    varying |= {target for target, node in lines if _reads(node, every, parameter)}
    separate = _Separate(varying, program.h)
    new = _separated(separate, inlined(new, {name: every[name] for name in varying & set(every)}))
    motions = {ast.dump(node): node for node in separate.found}
    if None in fades or len(motions) > 1 or not _linear(new, parameter, program.h):
        return None
    (motion,) = motions.values() or (ast.Constant(1),)
    forms, kind = forms_of(inlined(motion, every), states, program.h)
    if not forms:
        return None

    def new_with(**values: int) -> ast.expr:
        known = {name: ast.Constant(value) for name, value in values.items()}
        return _simplified(Substitute(known).visit(copy.deepcopy(new)))

    rest = new_with(**{MOTION: 0})
    arguments = parameter, MOTION
    return Idle(
        _program(program, "motion", (MOTION, *states), lines, motion) if motions else None,
        _program(program, "move", arguments, [], new) if motions else None,
        None if _names(rest, parameter) else _program(program, "rest", arguments, [], rest),
        tuple(fade for fade in fades if fade is not None),
        forms,
        kind,
        new_with(**{parameter: 0, MOTION: 1}) if motions else ast.Constant(0),
    )


def _without(program: Program, zero: set[str]) -> tuple[Lines, list[ast.expr]]:
    """Lines and results with zero for some arguments, as far as something is left of them."""
    lines, results = assigned_once(program)
    known: dict[str, ast.expr] = {name: ast.Constant(0) for name in zero}

    def reduced(node: ast.expr) -> ast.expr:
        return _simplified(Substitute(known).visit(copy.deepcopy(node)))

    left = []
    for target, expression in lines:
        node = reduced(expression)
        if isinstance(node, ast.Name) or host_only(node, program.h):
            known[target] = node
        else:
            left.append((target, node))
    return left, [reduced(node) for node in results]


def _program(
    program: Program, name: str, arguments: tuple[str, ...], lines: Lines, result: ast.expr
) -> Program:
    needed, kept = names(result), []
    for target, expression in reversed(lines):
        if target in needed:
            kept.append((target, expression))
            needed |= names(expression)
    return replace(
        program,
        name=f"{program.name}_{name}",
        doc=f"The {name} of {program.name} without a gradient.",
        arguments=arguments,
        lines=tuple(reversed(kept)),
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
    """What a state is multiplied by, once, by a number of the step; None if it is not so."""
    if _names(node, state):
        return ast.Constant(1)
    match node:
        case ast.BinOp(left=factor, op=ast.Mult(), right=ast.Name(id=name)) if name == state:
            return factor if host_only(factor, h) else None
        case ast.BinOp(left=ast.Name(id=name), op=ast.Mult(), right=factor) if name == state:
            return factor if host_only(factor, h) else None
    return None


def _linear(node: ast.expr, parameter: str, h: str) -> bool:
    """Whether an expression is a multiple of the parameter and one of its motion, added."""

    def read(one: ast.expr) -> bool:
        return _linear(one, parameter, h)

    match node:
        case ast.Name(id=name):
            return name in (parameter, MOTION)
        case ast.UnaryOp(operand=operand):
            return read(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return read(left) and read(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return (host_only(left, h) and read(right)) or (read(left) and host_only(right, h))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return read(left) and host_only(right, h)
    return False


def _separated(separate: _Separate, node: ast.expr) -> ast.expr:
    result = separate.visit(node)
    assert isinstance(result, ast.expr)
    return result


class _Separate(ast.NodeTransformer):
    """Puts the motion in the place of the largest expressions that do not read some variables."""

    def __init__(self, varying: set[str], h: str) -> None:
        self.varying, self.h = varying, h
        self.found: list[ast.expr] = []

    def visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, ast.expr) or host_only(node, self.h):
            return node
        if names(node) & self.varying:
            return self.generic_visit(node)
        self.found.append(node)
        return ast.Name(MOTION)


def _simplified(node: ast.expr) -> ast.expr:
    result: ast.expr = _Zeros().visit(node)
    return result


class _Zeros(ast.NodeTransformer):
    """Leaves out what a zero makes zero, or does not change; other numbers are finite."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return node.operand if _is(node.operand, 0) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        match node.op:
            case ast.Mult() if _is(node.left, 0) or _is(node.right, 0):
                return ast.Constant(0)
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
        given = [one for one in node.args if not isinstance(one, ast.Compare)]
        # Each function of the language is zero where all that it chooses from is.
        return ast.Constant(0) if given and all(_is(one, 0) for one in given) else node
