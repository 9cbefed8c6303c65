"""One second moment for each row: a rule in which ``sq(g)`` is the row's mean of squares.

Whatever state then depends on numbers of the row alone is kept once per row.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from ..errors import RuleError
from .program import Program, assigned_once, host_only, names

MEAN = "_mean_square"
"""The variable that stands for the mean; rules cannot have names like it."""

Lines = list[tuple[str, ast.expr]]


def rowwise_program(program: Program) -> Program:
    """The program with the mean as one more argument; its ``squared`` says what is squared.

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
    kept = _kept_by_row(program.arguments, lines, results)
    if not kept:
        raise RuleError(f"rowwise: no state of {program.name!r} is the same along a row")
    before = [line for line in lines if line[0] in _closure(names(squared), lines)]
    return replace(
        program,
        name=f"{program.name}_rowwise",
        arguments=(*program.arguments, MEAN),
        lines=tuple(lines),
        results=tuple(results),
        row_states=kept,
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


def _kept_by_row(
    arguments: tuple[str, ...], lines: Lines, results: list[ast.expr]
) -> tuple[str, ...]:
    """The states whose new values need nothing but each other, the mean and hyperparameters."""
    states = arguments[2:]
    kept = set(states)
    while True:
        varying = set(arguments) - kept
        for target, expression in lines:
            if names(expression) & varying:
                varying.add(target)
        left = {
            state
            for state, result in zip(states, results[1:], strict=True)
            if state in kept and not names(result) & varying
        }
        if left == kept:
            return tuple(state for state in states if state in kept)
        kept = left


def _closure(needed: set[str], lines: Lines) -> set[str]:
    """Names, and all that the lines which compute them read."""
    found = set(needed)
    for target, expression in reversed(lines):
        if target in found:
            found |= names(expression)
    return found


def _is_square(call: ast.Call, h: str) -> bool:
    """Whether a call is a square that differs between elements."""
    return isinstance(call.func, ast.Name) and call.func.id == "sq" and not host_only(call, h)


def _shown(expression: ast.expr) -> str:
    return re.sub(r"\b_\d+_", "", ast.unparse(expression))


class _Mean(ast.NodeTransformer):
    def __init__(self, h: str) -> None:
        self.h = h

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return ast.Name(MEAN) if _is_square(node, self.h) else self.generic_visit(node)
