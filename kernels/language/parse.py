"""Find and parse the source of a rule; errors point at its lines."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NoReturn

from ..errors import RuleError
from . import primitives
from .primitives import ARITY

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
    """The source of a function, for messages that point at its lines."""

    file: str
    first_line: int
    text: str

    def __deepcopy__(self, memo: object) -> Source:
        """Itself: every node of a piece's tree holds it, and trees are copied often."""
        return self

    def refuse(self, node: ast.AST, reason: str) -> NoReturn:
        """Raise `RuleError` with file, line, the line itself, a caret and the reason."""
        # The node of an inlined piece is refused at the line of the piece.
        at: Source = getattr(node, "source", self)
        line = getattr(node, "lineno", 1)
        column = getattr(node, "col_offset", 0)
        shown = at.text.splitlines()[line - 1]
        below = "".join("\t" if char == "\t" else " " for char in shown[:column])
        raise RuleError(
            f"{at.file}:{at.first_line + line - 1}: {reason}\n    {shown}\n    {below}^\n{ALLOWED}"
        )


def parse(
    function: Callable[..., object],
) -> tuple[Source, ast.FunctionDef, tuple[str, ...], list[ast.stmt], ast.expr]:
    """Return the source of a function, its definition, arguments, body and returned expression.

    The body is without docstring and return.

    Raises
    ------
    RuleError
        There is no source, or it is not that of a function with plain arguments that
        ends with a return.
    """
    source, definition = _definition(function)
    if definition.name != getattr(function, "__name__", definition.name):
        source.refuse(definition, "a rule, or what it calls, is a function written with def")
    spec = definition.args
    if spec.vararg or spec.kwarg or spec.kwonlyargs or spec.defaults or spec.posonlyargs:
        source.refuse(definition, "a rule takes plain positional arguments only")
    check_name(source, definition, definition.name)
    for argument in spec.args:
        check_name(source, argument, argument.arg)
    body = definition.body[ast.get_docstring(definition) is not None :]
    if not body or not isinstance(body[-1], ast.Return) or body[-1].value is None:
        source.refuse(body[-1] if body else definition, "a rule ends with a return")
    _check_meaning(source, definition, function)
    return source, definition, tuple(a.arg for a in spec.args), body[:-1], body[-1].value


def _definition(function: Callable[..., object]) -> tuple[Source, ast.FunctionDef]:
    file = getattr(getattr(function, "__code__", None), "co_filename", "<unknown>")
    try:
        raw, first_line = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise RuleError(
            f"cannot read the source of {function!r} ({file}): define the rule in a file, a "
            "notebook cell, or a prompt that keeps its lines (IPython, or Python 3.13 and "
            "newer), not through exec()"
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


def _check_meaning(source: Source, definition: ast.FunctionDef, function: Any) -> None:
    """Refuse a call by a name of the language that is a function of the author's own there.

    A rule is read as text, where such a name has the language's meaning. NumPy's function of the
    same name, for example, means the same.
    """
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        return
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for node in ast.walk(definition):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        name = node.func.id
        try:
            own = cells[name].cell_contents if name in cells else function.__globals__.get(name)
        except ValueError:  # the variable has no value yet
            continue
        if name in ARITY and isinstance(own, FunctionType) and own is not getattr(primitives, name):
            source.refuse(
                node,
                f"{name} is a function of {own.__module__} here, and {name}() in a rule is "
                f"gpuadapt's: give yours another name, and to the rule by @rule(other_name=...)",
            )


def check_name(source: Source, node: ast.AST, name: str) -> None:
    """Refuse a name that generated code cannot have."""
    reason = ""
    if name in RESERVED or name in ARITY:
        reason = "is taken (a C++ keyword or a function of rules)"
    elif not name.isascii():
        reason = "is not plain ASCII, which CUDA C needs"
    elif name.startswith(("_", "h_")) or name.endswith("_"):
        reason = "begins with '_' or 'h_' or ends with '_': generated code uses such names"
    if reason:
        source.refuse(node, f"the name {name!r} {reason}")
