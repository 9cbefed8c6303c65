"""`@rule`: one straight-line function becomes the text that every backend compiles.

The text of an expression is the same, character for character, in Python and in CUDA C:
fully parenthesised in Python's order, literals written ``T(0.5)`` with ``T`` the compute
type. Two spellings cannot drift because there is one.

Subexpressions that read hyperparameters alone (``1 - h.beta1``,
``1 / (1 - h.beta1 ** h.t)``) become *coefficients*: the host computes them in float64 once
per step and the kernel receives the rounded value. So a rule may be written as the paper
has it, bias correction included, and costs no more for it.
"""

from __future__ import annotations

import ast
import copy
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from . import functions
from .program import ARITHMETIC, COMPARISONS, Program, host_only, read
from .rate import rate_program
from .rowwise import rowwise_program

STEP = "t"
"""``h.t`` in a rule: the number of the step, from 1."""


@dataclass(frozen=True, eq=False)
class Rule:
    """What happens to one number, ready for any traversal, format and backend.

    Made by `rule`. Two rules are the same only if they are the same object.

    Attributes
    ----------
    name, doc : str
        Name and docstring of the function.
    parameter, gradient : str
        Names of its first two arguments.
    states : tuple of str
        Names of its states, in order: one array each, of the parameter's shape.
    hyperparameters : tuple of str
        The ``h.<name>`` it reads, without ``h.t``.
    coefficients : dict of str to str
        Name in the kernel of each number the host computes, and its formula.
    lines : tuple of (str, str)
        Element-wise assignments: variable and expression.
    results : tuple of str
        Expressions of the new parameter and states.
    functions : tuple of str
        The functions it calls, each after those it is written in.
    """

    program: Program
    hyperparameters: tuple[str, ...]
    coefficients: dict[str, str]
    lines: tuple[tuple[str, str], ...]
    results: tuple[str, ...]
    functions: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def symbol(self) -> str:
        """The name of its function in generated code, unlike that of any variable there."""
        return f"rule__{self.name}"

    @property
    def doc(self) -> str:
        return self.program.doc

    @property
    def parameter(self) -> str:
        return self.program.arguments[0]

    @property
    def gradient(self) -> str:
        return self.program.arguments[1]

    @property
    def states(self) -> tuple[str, ...]:
        return self.program.arguments[2 : 1 + len(self.results)]

    @property
    def row_states(self) -> tuple[str, ...]:
        """Those of the states that have one number for each row; see `rowwise`."""
        return self.program.row_states

    @cached_property
    def evaluate(self) -> Callable[..., tuple[float, ...]]:
        """Coefficients from hyperparameters: ``evaluate(*hyperparameters, t)``, in float64."""
        names = ", ".join((*self.hyperparameters, STEP))
        values = "".join(f"{formula}, " for formula in self.coefficients.values())
        host: dict[str, Any] = {name: getattr(functions, name) for name in functions.ARITY}
        host |= {"sqrt": math.sqrt, "abs": abs}
        compute: Callable[..., tuple[float, ...]] = eval(  # noqa: S307
            f"lambda {names}: ({values})", host
        )
        return compute

    @cached_property
    def rate(self) -> Rule:
        """A rule that writes the effective rate, from the states as they are, over the parameter.

        The rate is the variable that the rule's author named ``rate``.

        Raises
        ------
        RuleError
            There is no such variable, or the states do not determine it.
        """
        return from_program(rate_program(self.program))

    @cached_property
    def rowwise(self) -> Rule:
        """The rule with the row's mean of squares in place of ``sq(...)``.

        For the traversal "rows"; its `row_states` have one number for each row.

        Raises
        ------
        RuleError
            The rule has no such form; says why.
        """
        return from_program(rowwise_program(self.program))

    @cached_property
    def squared(self) -> Rule | None:
        """What the last argument is the mean square of, if this is a rule made by `rowwise`."""
        return None if self.program.squared is None else from_program(self.program.squared)

    @property
    def squared_coefficients(self) -> list[str]:
        """The coefficients of this rule that its `squared` reads, in that one's order."""
        known = {formula: name for name, formula in self.coefficients.items()}
        return [known[f] for f in self.squared.coefficients.values()] if self.squared else []

    def __deepcopy__(self, memo: object) -> Rule:
        """Itself: a rule does not change, and kernels are kept for the object."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        # What has been computed on demand can be again, and `evaluate` cannot be pickled.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def source(self, backend: str = "cpu", traversal: str = "dense", dtype: str = "float32") -> str:
        """The assembled kernel text, exactly as it is compiled.

        Parameters
        ----------
        backend : {"cpu", "cuda"}
        traversal : {"dense", "rows"}
        dtype : {"float32", "float64"}
        """
        try:
            write = importlib.import_module(f"{__package__}.{backend}.{traversal}").source
        except (ModuleNotFoundError, AttributeError) as error:
            raise ValueError(f"no traversal {traversal!r} on backend {backend!r}") from error
        text: str = write(self, np.dtype(dtype))
        return text

    def __repr__(self) -> str:
        arguments = ", ".join((*self.program.arguments, "h"))
        return f"<rule {self.name}({arguments}); h: {', '.join(self.hyperparameters)}>"


def rule(function: Callable[..., object]) -> Rule:
    """Make a rule of a straight-line function ``f(parameter, gradient, *states, h)``.

    The function returns the new parameter and states, and may contain assignments,
    ``+ - * /``, unary minus, numbers, ``h.<hyperparameter>``, ``h.t`` (the step, from 1)
    and the functions ``sqrt sq abs sign maximum minimum where``; ``**`` between
    hyperparameters only. A variable named ``rate`` is what `Optimizer.effective_lr` shows.

    Raises
    ------
    RuleError
        Anything else is in it; the message has file, line and reason.

    Examples
    --------
    >>> @rule
    ... def adagrad(p, g, G, h):
    ...     G = G + sq(g)
    ...     rate = h.lr / sqrt(G + h.eps)
    ...     return p - rate * g, G
    """
    return from_program(read(function))


def from_program(program: Program) -> Rule:
    """Translate a checked program."""
    writer = _Writer(program.h)
    if program.squared is not None:
        # Its text is a function of its own, but what it reads comes with this one's.
        for _, node in program.squared.lines:
            writer.text(node)
        for node in program.squared.results:
            writer.text(node)
    lines = tuple((target, writer.text(node)) for target, node in program.lines)
    results = tuple(writer.text(node) for node in program.results)
    names = [name for name in writer.read if name != STEP]
    used = dict.fromkeys(
        name for call in writer.called for name in (*functions.USES.get(call, ()), call)
    )
    return Rule(program, tuple(names), writer.coefficients(), lines, results, tuple(used))


class _Writer:
    """Writes expressions; collects the coefficients, hyperparameters and functions they use."""

    def __init__(self, h: str) -> None:
        self.h = h
        self.hoisted: dict[str, tuple[str, str]] = {}
        self.read: dict[str, None] = {}
        self.called: dict[str, None] = {}

    def coefficients(self) -> dict[str, str]:
        return dict(self.hoisted.values())

    def text(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=value):
                return f"T({float(value)!r})"  # type: ignore[arg-type]
            case ast.UnaryOp(operand=ast.Constant(value=value)):
                return f"T({-float(value)!r})"  # type: ignore[arg-type]
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"({self.text(left)} {COMPARISONS[type(op)]} {self.text(right)})"
            case _ if host_only(node, self.h):
                return self.hoist(node)
            case ast.Name(id=name):
                return name
            case ast.UnaryOp(operand=operand):
                return f"(-{self.text(operand)})"
            case ast.BinOp(left=left, op=op, right=right):
                return f"({self.text(left)} {ARITHMETIC[type(op)]} {self.text(right)})"
            case ast.Call(func=ast.Name(id=name), args=arguments):
                self.called[name] = None
                return f"{name}({', '.join(map(self.text, arguments))})"
        raise AssertionError(ast.dump(node))

    def hoist(self, node: ast.expr) -> str:
        """The coefficient that stands for a host expression; equal expressions share one."""
        formula = ast.unparse(_Bare(self).visit(copy.deepcopy(node)))
        if formula not in self.hoisted:
            bare = isinstance(node, ast.Attribute)
            name = f"h_{formula}" if bare else f"h_{len(self.hoisted)}"
            self.hoisted[formula] = (name, formula)
        return self.hoisted[formula][0]


class _Bare(ast.NodeTransformer):
    """Turns ``h.name`` into ``name``, noting each."""

    def __init__(self, writer: _Writer) -> None:
        self.writer = writer

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.writer.read[node.attr] = None
        return ast.Name(node.attr)
