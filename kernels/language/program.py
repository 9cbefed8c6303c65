"""Read a Python function into a `Program`: a checked list of assignments, as syntax trees.

`emit` writes it as the text that both backends share.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .inline import Calls, Substitute
from .parse import Source, check_name, parse
from .primitives import ARITY

LONGEST_NAME = 64
"""Characters of a rule's name: kernels are kept in files that have it in their names."""

ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
COMPARISONS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


@dataclass(frozen=True)
class Program:
    """A checked function: its arguments, its assignments in order, its results.

    ``lines`` holds the element-wise assignments. A variable of hyperparameters alone is in ``host``
    and substituted where it is read. `rowwise` sets ``row_states`` and ``squared``.
    """

    name: str
    doc: str
    arguments: tuple[str, ...]
    h: str
    lines: tuple[tuple[str, ast.expr], ...]
    results: tuple[ast.expr, ...]
    host: dict[str, ast.expr]
    prepare: dict[str, Callable[..., float]] = field(default_factory=dict)
    """Functions that the host calls, by their names in the rule."""
    scaling: int = 0
    """Number of first lines that unscale and clip the gradient."""
    nonnegative: tuple[str, ...] = ()
    """States that are never negative, as declared by the author."""
    row_states: tuple[str, ...] = ()
    """States with one number for each row."""
    squared: Program | None = None
    """If set, the last argument is the row's mean of the squares of this program's result."""


def read(
    function: Callable[..., object],
    *,
    returns: int | None = None,
    pieces: Mapping[str, Callable[..., object]] | None = None,
    prepare: Mapping[str, Callable[..., float]] | None = None,
) -> Program:
    """Parse and check a function.

    Parameters
    ----------
    function
        A straight-line function whose last argument holds the hyperparameters.
    returns
        How many values it must return; by default, one for each argument but the
        second (the gradient) and the last.
    pieces, prepare
        Functions that it may call besides those of the language; see `Calls`.

    Raises
    ------
    RuleError
        With file, line and reason.
    """
    source, definition, given, body, value = parse(function)
    if len(given) < 3:
        source.refuse(definition, "a rule takes (parameter, gradient, *states, h)")
    if "h" in given[:-1]:
        source.refuse(definition, "the name 'h' is for the last argument")
    if len(definition.name) > LONGEST_NAME:
        source.refuse(definition, f"a rule's name has at most {LONGEST_NAME} characters")
    *arguments, h = given
    expected = len(arguments) - 1 if returns is None else returns
    calls = Calls(source, h, pieces or {}, prepare or {})
    for argument in arguments:
        if argument in {*calls.pieces, *calls.prepare}:
            source.refuse(definition, f"{argument!r} is also a function that it calls")

    elementwise = set(arguments)
    host: dict[str, ast.expr] = {}
    lines = []

    def checked(node: ast.expr) -> ast.expr:
        node = Substitute(host).visit(calls.visit(node))
        _check(source, node, elementwise, h)
        return node

    for node in body:
        if not isinstance(node, ast.Assign):
            source.refuse(node, f"{_describe(node)} is not allowed in a rule")
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            source.refuse(node, "assign to one plain name at a time")
        target = node.targets[0].id
        check_name(source, node.targets[0], target)
        if target in {*calls.pieces, *calls.prepare}:
            source.refuse(node, f"{target!r} is also a function that it calls")
        if target == h:
            source.refuse(node, f"{h} holds the hyperparameters and cannot be assigned")
        expression = checked(node.value)
        if host_only(expression, h) and target not in elementwise:
            host[target] = expression
        else:
            host.pop(target, None)
            elementwise.add(target)
            lines.append((target, expression))

    returned = tuple(value.elts) if isinstance(value, ast.Tuple) else (value,)
    if len(returned) != expected:
        source.refuse(
            value, f"returns {len(returned)} values, expected {expected} (parameter, *states)"
        )
    results = tuple(checked(node) for node in returned)
    doc = ast.get_docstring(definition) or ""
    return Program(
        definition.name, doc, tuple(arguments), h, tuple(lines), results, host, dict(prepare or {})
    )


class Rename(ast.NodeTransformer):
    """Renames variables in the tree that it visits."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id))


def single_assignment(program: Program) -> tuple[list[tuple[str, ast.expr]], dict[str, str]]:
    """Return the lines with a new name for each assignment, and the last name of each variable."""
    latest: dict[str, str] = {}
    lines = []
    for count, (target, expression) in enumerate(program.lines):
        renamed = Rename(latest).visit(copy.deepcopy(expression))
        latest[target] = f"_{count}_{target}"
        lines.append((latest[target], renamed))
    return lines, latest


def assigned_once(program: Program) -> tuple[list[tuple[str, ast.expr]], list[ast.expr]]:
    """Return lines and results with a new name for each assignment."""
    lines, latest = single_assignment(program)
    return lines, [Rename(latest).visit(copy.deepcopy(node)) for node in program.results]


def inlined(node: ast.expr, lines: Mapping[str, ast.expr]) -> ast.expr:
    """Return an expression with variables, each assigned once, replaced by their expressions."""
    while names(node) & set(lines):
        node = Substitute(lines).visit(copy.deepcopy(node))
    return node


def names(expression: ast.AST) -> set[str]:
    """Return the names in an expression: variables, functions and the h."""
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _check(source: Source, node: ast.expr, known: set[str], h: str) -> None:
    """Refuse any expression outside the language of rules."""
    match node:
        case ast.Constant(value=bool()) | ast.Constant(value=complex()):
            source.refuse(node, f"{node.value!r} is not a real number")
        case ast.Constant(value=int() | float()):
            if not abs(node.value) <= sys.float_info.max:  # type: ignore[arg-type]
                source.refuse(node, "not a finite number")
        case ast.Name(id=name):
            if name not in known:
                source.refuse(node, f"unknown name {name!r}: pass constants as {h}.{name}")
        case ast.Attribute(value=ast.Name(id=base), attr=name) if base == h:
            check_name(source, node, name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _check(source, operand, known, h)
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) not in ARITHMETIC and not isinstance(op, ast.Pow):
                source.refuse(node, f"the operator {_describe(op)} is not allowed in a rule")
            _check(source, left, known, h)
            _check(source, right, known, h)
            if isinstance(op, ast.Pow) and not host_only(node, h):
                source.refuse(node, "** works between hyperparameters only: write sq(x)")
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in ARITY:
            if len(args) != ARITY[name]:
                source.refuse(node, f"{name}() takes {ARITY[name]} arguments, got {len(args)}")
            for index, argument in enumerate(args):
                if name == "where" and index == 0:
                    _check_condition(source, argument, known, h)
                else:
                    _check(source, argument, known, h)
        case ast.Call(func=ast.Attribute(attr=name)) if hasattr(node, "prepared"):
            for argument in node.args:
                _check(source, argument, known, h)
                if not host_only(argument, h):
                    source.refuse(argument, f"{name}() runs on the host: it can read {h} alone")
        case ast.Call(func=func):
            name = func.attr if isinstance(func, ast.Attribute) else ""
            plain = f": write {name}(), which needs no import" if name in ARITY else ""
            source.refuse(node, f"the call {ast.unparse(func)}() is not allowed in a rule{plain}")
        case _:
            source.refuse(node, f"{_describe(node)} is not allowed in a rule")


def _check_condition(source: Source, node: ast.expr, known: set[str], h: str) -> None:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            _check(source, left, known, h)
            _check(source, right, known, h)
        case _:
            source.refuse(node, "where() takes one comparison first, such as a > b")


def host_only(node: ast.expr, h: str) -> bool:
    """Return whether an expression reads hyperparameters alone: the host computes it."""
    allowed = {h, *ARITY}
    return names(node) <= allowed


def _describe(node: ast.AST) -> str:
    known = {
        "If": "if",
        "IfExp": "a conditional expression (use where(...))",
        "For": "a loop",
        "While": "a loop",
        "AugAssign": "an augmented assignment (write x = x + ...)",
        "AnnAssign": "an annotated assignment",
        "Return": "an early return",
        "Subscript": "an index",
        "Compare": "a comparison outside where(...)",
        "BoolOp": "and/or",
        "Pow": "**",
    }
    kind = type(node).__name__
    return known.get(kind, kind)
