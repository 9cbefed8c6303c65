"""Find out whether a rule computes its parameter from its states alone.

A decay of the parameter is then lost in the next step.
"""

from __future__ import annotations

import ast

from .program import Program, assigned_once


def recomputes_parameter(program: Program) -> bool:
    """Return whether the new parameter reads the old one through the new states only."""
    lines, results = assigned_once(program)
    expressions = dict(lines)
    states = {ast.dump(node) for node in results[1:]}
    parameter = program.arguments[0]

    def reads(node: ast.AST) -> bool:
        if ast.dump(node) in states:
            return False
        if isinstance(node, ast.Name) and node.id in expressions:
            return reads(expressions[node.id])
        if isinstance(node, ast.Name):
            return node.id == parameter
        return any(map(reads, ast.iter_child_nodes(node)))

    return not reads(results[0])
