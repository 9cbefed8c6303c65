"""Whether a rule makes its parameter anew in every step, from its states alone.

What decays the parameter is then forgotten in the next step.
"""

from __future__ import annotations

import ast

from .program import Program, assigned_once


def made_anew(program: Program) -> bool:
    """Whether the new parameter reads the old one by way of the new states only."""
    lines, results = assigned_once(program)
    every = dict(lines)
    states = {ast.dump(node) for node in results[1:]}
    parameter = program.arguments[0]

    def reads(node: ast.AST) -> bool:
        if ast.dump(node) in states:
            return False
        if isinstance(node, ast.Name) and node.id in every:
            return reads(every[node.id])
        if isinstance(node, ast.Name):
            return node.id == parameter
        return any(map(reads, ast.iter_child_nodes(node)))

    return not reads(results[0])
