"""Derive a rule with one second moment per row: ``sq(g)`` becomes the row's mean of squares.

A state that then depends on values of the row alone is stored once per row.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from ..errors import RuleError
from .program import Program, assigned_once, host_only, names

MEAN = "_mean_square"
"""The variable for the mean; rules cannot have names like it."""

Lines = list[tuple[str, ast.expr]]


def rowwise_program(program: Program) -> Program:
    """Return the program with the mean as its last argument; ``squared`` computes what is squared.

    Raises
    ------
    RuleError
        The rule squares nothing, or something that its states determine: there would be a
        number for each element again.
    """
    lines, results = assigned_once(program)
    parameter, gradient, *states = program.arguments
    expressions = [expression for _, expression in lines] + results
    squares = [
        node.args[0]
        for tree in expressions
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _is_square(node, program.h)
    ]
    if not squares:
        raise RuleError(f"rowwise: {program.name!r} has no sq(...) to take a row's mean of")
    for argument in squares:
        needed = _closure(names(argument), lines)
        if needed & {*states, "sq"}:
            within = ", ".join(sorted(needed & set(states))) or "another square"
            raise RuleError(
                f"rowwise: {program.name!r} squares {_shown(argument)}, which depends on {within}: "
                "no mean over the row can be taken before the update"
            )
    squared = squares[0]
    if any(ast.dump(other) != ast.dump(squared) for other in squares):
        raise RuleError(f"rowwise: {program.name!r} squares more than one thing")

    mean = _Mean(program.h)
    lines = [(target, mean.visit(expression)) for target, expression in lines]
    results = [mean.visit(node) for node in results]
    row_states = _row_states(program.arguments, lines, results)
    if not row_states:
        raise RuleError(f"rowwise: no state of {program.name!r} is the same along a row")
    before = [line for line in lines if line[0] in _closure(names(squared), lines)]
    return replace(
        program,
        name=f"{program.name}_rowwise",
        arguments=(*program.arguments, MEAN),
        lines=tuple(lines),
        results=tuple(results),
        row_states=row_states,
        squared=replace(
            program,
            name=f"{program.name}_squared",
            arguments=(parameter, gradient),
            lines=tuple(before),
            results=(squared,),
            nonnegative=(),
            scaling=program.scaling if before[:1] == lines[:1] else 0,
        ),
    )


def _row_states(
    arguments: tuple[str, ...], lines: Lines, results: list[ast.expr]
) -> tuple[str, ...]:
    """Return the states computed from each other, the mean and hyperparameters alone."""
    states = arguments[2:]
    constant = set(states)
    while True:
        varying = set(arguments) - constant
        for target, expression in lines:
            if names(expression) & varying:
                varying.add(target)
        remaining = {
            state
            for state, result in zip(states, results[1:], strict=True)
            if state in constant and not names(result) & varying
        }
        if remaining == constant:
            return tuple(state for state in states if state in constant)
        constant = remaining


def _closure(needed: set[str], lines: Lines) -> set[str]:
    """Return names, and all names from which they are computed."""
    found = set(needed)
    for target, expression in reversed(lines):
        if target in found:
            found |= names(expression)
    return found


def _is_square(call: ast.Call, h: str) -> bool:
    """Return whether a call is a square that differs between elements."""
    return isinstance(call.func, ast.Name) and call.func.id == "sq" and not host_only(call, h)


def _shown(expression: ast.expr) -> str:
    return re.sub(r"\b_\d+_", "", ast.unparse(expression))


class _Mean(ast.NodeTransformer):
    def __init__(self, h: str) -> None:
        self.h = h

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return ast.Name(MEAN) if _is_square(node, self.h) else self.generic_visit(node)
