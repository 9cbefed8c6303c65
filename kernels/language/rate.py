"""Derive a rule that computes the effective rate from the states, for `Optimizer.effective_lr`.

The rate is the variable that the author of the rule named ``rate``. Its lines are followed
backwards to the stored states.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from ..errors import RuleError
from .program import Program, Rename, names, single_assignment


def rate_program(program: Program) -> Program:
    """Return a program that writes the rate over the parameter and leaves the states alone.

    Where the rule reads a state before replacing it, the stored one stands in: it is what
    the next step will read.

    Raises
    ------
    RuleError
        There is no variable named ``rate``, or the states do not determine it.
    """
    parameter, gradient, *states = program.arguments
    lines, latest = single_assignment(program)
    stored = {state: state for state in states}
    for state, result in zip(states, program.results[1:], strict=True):
        if isinstance(result, ast.Name):
            stored[latest.get(result.id, result.id)] = state

    if "rate" in latest:
        rate: ast.expr = ast.Name(stored.get(latest["rate"], latest["rate"]))
    elif "rate" in program.host:
        rate = program.host["rate"]
    else:
        raise RuleError(f"the rule {program.name!r} has no variable named 'rate'")
    needed, selected = names(rate), []
    for target, expression in reversed(lines):
        if target in needed and target not in stored:
            expression = Rename(stored).visit(expression)
            selected.append((target, expression))
            needed = (needed - {target}) | names(expression)
    if {parameter, gradient} & needed:
        raise RuleError(f"the rate of {program.name!r} depends on more than its states")
    return replace(
        program,
        name=f"{program.name}_rate",
        doc=f"The effective rate of {program.name}.",
        lines=tuple(reversed(selected)),
        scaling=0,
        results=(rate, *(ast.Name(state) for state in states)),
    )
