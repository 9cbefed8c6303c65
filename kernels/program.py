"""From a Python function to a checked list of assignments: what a rule may contain.

Nothing here knows a backend. A `Program` holds syntax trees; `gpuadapt.kernels.rule` turns
them into the text that both backends share.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from .errors import RuleError
from .functions import ARITY

ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
COMPARISONS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
ALLOWED = (
    "a rule may contain assignments, + - * /, unary minus, numbers, h.<name> and "
    + ", ".join(ARITY)
    + "; ** only between hyperparameters"
)

# A rule's variables become variables of a C++ function.
RESERVED = frozenset(
    (  # noqa: SIM905
        "NULL T char8_t char16_t char32_t concept consteval constinit requires thread_local "
        "co_await co_return co_yield alignas alignof and and_eq asm auto bitand bitor bool "
        "break case catch char class "
        "compl const constexpr const_cast continue decltype default delete do double "
        "dynamic_cast else enum explicit export extern false float for friend goto if inline "
        "int long mutable namespace new noexcept not not_eq nullptr number operator or or_eq "
        "private protected public register reinterpret_cast return short signed sizeof static "
        "static_assert static_cast struct switch template this throw true try typedef typeid "
        "typename union unsigned using virtual void volatile wchar_t while xor xor_eq"
    ).split()
)


@dataclass(frozen=True)
class Source:
    """Where a function's text came from, for messages that point at the user's line."""

    file: str
    first_line: int
    text: str

    def refuse(self, node: ast.AST, reason: str) -> NoReturn:
        """Raise `RuleError` with file, line, the line itself, a caret and the reason."""
        line = getattr(node, "lineno", 1)
        column = getattr(node, "col_offset", 0)
        shown = self.text.splitlines()[line - 1]
        raise RuleError(
            f"{self.file}:{self.first_line + line - 1}: {reason}\n"
            f"    {shown}\n    {' ' * column}^\n{ALLOWED}"
        )


@dataclass(frozen=True)
class Program:
    """A checked function: its arguments, its assignments in order, what it returns.

    ``lines`` holds the element-wise assignments only. A variable that depends on
    hyperparameters alone is kept in ``host`` and already substituted where it was read.
    ``row_states`` and ``squared`` are set by `gpuadapt.kernels.rowwise` alone.
    """

    name: str
    doc: str
    arguments: tuple[str, ...]
    h: str
    lines: tuple[tuple[str, ast.expr], ...]
    results: tuple[ast.expr, ...]
    host: dict[str, ast.expr]
    row_states: tuple[str, ...] = ()
    """States with one number for each row."""
    squared: Program | None = None
    """If set, the last argument is the row's mean of the squares of what this returns."""


def read(function: Callable[..., object], *, returns: int | None = None) -> Program:
    """Parse and check a function.

    Parameters
    ----------
    function
        A straight-line function whose last argument holds the hyperparameters.
    returns
        How many values it must return; by default, one for each argument but the
        second (the gradient) and the last.

    Raises
    ------
    RuleError
        With file, line and reason.
    """
    source, definition = _definition(function)
    spec = definition.args
    if spec.vararg or spec.kwarg or spec.kwonlyargs or spec.defaults or spec.posonlyargs:
        source.refuse(definition, "a rule takes plain positional arguments only")
    given = tuple(a.arg for a in spec.args)
    if len(given) < 3:
        source.refuse(definition, "a rule takes (parameter, gradient, *states, h)")
    _check_name(source, definition, definition.name)
    for argument in spec.args:
        _check_name(source, argument, argument.arg)
    if "h" in given[:-1]:
        source.refuse(definition, "the name 'h' is for the last argument")
    *arguments, h = given
    expected = len(arguments) - 1 if returns is None else returns

    body = list(definition.body)
    doc = ast.get_docstring(definition) or ""
    if doc:
        body = body[1:]
    if not body or not isinstance(body[-1], ast.Return) or body[-1].value is None:
        source.refuse(body[-1] if body else definition, "a rule ends with a return")

    elementwise = set(arguments)
    host: dict[str, ast.expr] = {}
    lines = []

    def checked(node: ast.expr) -> ast.expr:
        node = _Substitute(host).visit(node)
        _check(source, node, elementwise, h)
        return node

    for node in body[:-1]:
        if not isinstance(node, ast.Assign):
            source.refuse(node, f"{_describe(node)} is not allowed in a rule")
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            source.refuse(node, "assign to one plain name at a time")
        target = node.targets[0].id
        _check_name(source, node.targets[0], target)
        if target == h:
            source.refuse(node, f"{h} holds the hyperparameters and cannot be assigned")
        expression = checked(node.value)
        if host_only(expression, h) and target not in elementwise:
            host[target] = expression
        else:
            host.pop(target, None)
            elementwise.add(target)
            lines.append((target, expression))

    value = body[-1].value
    returned = tuple(value.elts) if isinstance(value, ast.Tuple) else (value,)
    if len(returned) != expected:
        source.refuse(
            body[-1], f"returns {len(returned)} values, expected {expected} (parameter, *states)"
        )
    results = tuple(checked(node) for node in returned)
    return Program(definition.name, doc, tuple(arguments), h, tuple(lines), results, host)


class Rename(ast.NodeTransformer):
    """Gives variables other names; changes the tree it visits."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id))


def single_assignment(program: Program) -> tuple[list[tuple[str, ast.expr]], dict[str, str]]:
    """The lines with a new name for each assignment, and each variable's last name."""
    latest: dict[str, str] = {}
    lines = []
    for count, (target, expression) in enumerate(program.lines):
        renamed = Rename(latest).visit(copy.deepcopy(expression))
        latest[target] = f"_{count}_{target}"
        lines.append((latest[target], renamed))
    return lines, latest


def names(expression: ast.AST) -> set[str]:
    """The variables, functions and the h that an expression reads."""
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


class _Substitute(ast.NodeTransformer):
    def __init__(self, values: dict[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node)


def _definition(function: Callable[..., object]) -> tuple[Source, ast.FunctionDef]:
    file = getattr(getattr(function, "__code__", None), "co_filename", "<unknown>")
    try:
        raw, first_line = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise RuleError(
            f"cannot read the source of {function!r} ({file}): define the rule in a file "
            "or a notebook cell, not through exec() or a plain interactive prompt"
        ) from error
    source = Source(file, first_line, "".join(raw))
    indented = raw[0][:1].isspace()
    try:
        tree = ast.parse("if True:\n" * indented + source.text)
    except SyntaxError as error:
        raise RuleError(f"{file}:{first_line}: a rule is a function written with def") from error
    definition: ast.stmt = tree.body[0]
    if isinstance(definition, ast.If):
        definition = ast.increment_lineno(definition, -1).body[0]
    if not isinstance(definition, ast.FunctionDef):
        source.refuse(definition, "a rule is a function written with def")
    return source, definition


def _check_name(source: Source, node: ast.AST, name: str) -> None:
    reason = ""
    if name in RESERVED or name in ARITY:
        reason = "is taken (a C++ keyword or a function of rules)"
    elif not name.isascii():
        reason = "is not plain ASCII, which CUDA C needs"
    elif name.startswith(("_", "h_")) or name.endswith("_"):
        reason = "begins with '_' or 'h_' or ends with '_': generated code uses such names"
    if reason:
        source.refuse(node, f"the name {name!r} {reason}")


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
            _check_name(source, node, name)
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
        case ast.Call(func=func):
            source.refuse(node, f"the call {ast.unparse(func)}() is not allowed in a rule")
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
    """Whether an expression reads hyperparameters alone, so that the host can compute it."""
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
