"""Compose an average of the parameter after a rule, as one more of the rule's states.

An average ``f(p, a, h)`` reads the new parameter ``p`` after the rule's last line, weight decay
included, and returns the parameter and the new average. The kernel of the update keeps it: nothing
is read twice.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from .errors import RuleError
from .language.caching import cached_with_rule
from .language.program import Program, Rename, read
from .language.rule import STEP, Rule, from_program

STATE = "average"
"""The name of the state, and with an underscore the prefix of the average's hyperparameters."""

NEW = "_averaged"
"""Variable: the new parameter that the average reads. Rules cannot have names like this."""


@dataclass(frozen=True, eq=False)
class AverageRule:
    """The update of an average, for any rule. Compared by identity; made by `average`.

    Attributes
    ----------
    program : Program
        Its arguments are the new parameter and the average.
    constant : frozenset of str
        Names of hyperparameters that stay what they are during training.
    misses_steps : bool
        Whether a row may miss the steps in which it has no gradient. If not, the average of a table
        whose rows miss steps is refused.
    """

    program: Program
    constant: frozenset[str] = frozenset()
    misses_steps: bool = False

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        """The names of the hyperparameters that it reads."""
        return from_program(self.program).hyperparameters

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def moves_parameter(self) -> bool:
        """Whether the parameter that it returns is another than the one that it reads."""
        (new, _), parameter = self.program.results, self.program.arguments[0]
        same = isinstance(new, ast.Name) and new.id == parameter
        return not same or any(target == parameter for target, _ in self.program.lines)

    def __deepcopy__(self, memo: object) -> AverageRule:
        """Return the average itself: it does not change, and rules are cached by identity."""
        return self


def average(
    function: Callable[..., object],
    *,
    prepare: tuple[Callable[..., float], ...] = (),
    constant: tuple[str, ...] = (),
    misses_steps: bool = False,
) -> AverageRule:
    """Read an average ``f(p, a, h)``, which returns the new parameter and the new average.

    Parameters
    ----------
    function
        In the language of rules.
    prepare
        Functions of hyperparameters that it calls; see `gpuadapt.rule`.
    constant, misses_steps
        See `AverageRule`.

    Raises
    ------
    RuleError
        With file, line and reason.
    """
    prepared = {one.__name__: one for one in prepare}
    program = read(function, returns=2, prepare=prepared)
    if len(program.arguments) != 2:
        raise RuleError(f"{program.name}: an average takes (parameter, average, h)")
    return AverageRule(program, frozenset(constant), misses_steps)


def hyperparameter(name: str) -> str:
    """Return the name that an average's hyperparameter has beside those of a rule."""
    return f"{STATE}_{name}"


@cached_with_rule
def with_average(inner: Rule, average: AverageRule) -> Rule:
    """Keep an average of the parameter that a rule makes.

    Parameters
    ----------
    inner : Rule
    average : AverageRule

    Returns
    -------
    Rule
        The same one for equal calls. It has one more state, `STATE`, and the average's
        hyperparameters by the names that `hyperparameter` gives them; ``averaged`` is
        (inner, average).

    Raises
    ------
    RuleError
        The rule has a variable of the state's name.
    """
    program = inner.program
    if STATE in {*program.arguments, *(target for target, _ in program.lines)} or any(
        name.startswith(f"{STATE}_") for name in (*inner.hyperparameters, *program.prepare)
    ):
        raise RuleError(
            f"{inner.name!r} has a variable {STATE!r}, or a hyperparameter that begins so: give it "
            "another name, or no average"
        )
    lines, (parameter, state) = _renamed(average.program, program)
    added = {hyperparameter(name): one for name, one in average.program.prepare.items()}
    program = replace(
        program,
        name=f"{program.name}_{average.name}",
        doc=f"{program.doc}\n\nWith {average.name}: {average.program.doc}",
        arguments=(*program.arguments, STATE),
        lines=(*program.lines, (NEW, program.results[0]), *lines),
        results=(parameter, *program.results[1:], state),
        prepare={**program.prepare, **added},
    )
    return replace(from_program(program), averaged=(inner, average))


def _renamed(
    written: Program, program: Program
) -> tuple[list[tuple[str, ast.expr]], tuple[ast.expr, ...]]:
    """The lines and results of an average, in names that no rule can have."""
    parameter, state = written.arguments
    new = {target: f"_{STATE}_{target}" for target, _ in written.lines}
    new |= {parameter: NEW, state: STATE, written.h: program.h}
    rename = _RenameAll(new, program.h)
    lines = [(new[target], rename.visit(copy.deepcopy(node))) for target, node in written.lines]
    return lines, tuple(rename.visit(copy.deepcopy(node)) for node in written.results)


class _RenameAll(Rename):
    """Renames variables, and puts the prefix before hyperparameters and prepared functions."""

    def __init__(self, names: dict[str, str], h: str) -> None:
        super().__init__(names)
        self.h = h

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        name = node.attr if node.attr == STEP else hyperparameter(node.attr)
        return ast.Attribute(ast.Name(self.h), name)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        new = ast.Call(self.visit(node.func), [self.visit(one) for one in node.args], [])
        if hasattr(node, "prepared"):
            new.prepared = True  # type: ignore[attr-defined]
        return new
