"""`@conversion`: translate a straight-line function of 32-bit words to Python and CUDA C.

Bits are ``U`` (unsigned, 32 bits, which wrap around), numbers ``S`` (float32). Every operation
on bits is written ``U(a + b)``: Python needs it to stay within 32 bits, and C++ takes it as a cast.
As for rules, there is one spelling.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

INTEGER = {ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>"}
ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
COMPARISONS = {ast.Lt: "<", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}

RETURNS = {"bits": "U", "truncated": "U", "real": "S", "U": "U", "S": "S"}
"""The kind of the result of functions that backends have besides ``where``."""


U: TypeAlias = Any
"""In annotations: 32 unsigned bits."""
S: TypeAlias = Any
"""In annotations: a float32."""


def bits(x: Any) -> Any:
    """Return the bits of float32 numbers."""
    return np.asarray(x, np.float32).view(np.uint32)


def real(x: Any) -> Any:
    """Return the float32 numbers that have these bits."""
    return np.asarray(x, np.uint32).view(np.float32)


truncated: Callable[..., Any] = np.uint32
where: Callable[..., Any] = np.where


@dataclass(frozen=True)
class Conversion:
    """A checked function; see `conversion`. A call of it works on NumPy's uint32 and float32."""

    name: str
    doc: str
    arguments: tuple[tuple[str, str], ...]
    """Name and kind ("U" or "S") of each."""
    lines: tuple[tuple[str, str, str], ...]
    """Assignments: variable, kind, expression."""
    result: str
    kind: str
    calls: tuple[Conversion, ...]
    """The conversions that it calls."""

    def __call__(self, *given: Any) -> Any:
        # Numbers that wrap around, and branches that `where` does not take, are no errors here.
        with np.errstate(all="ignore"):
            return _function(self)(*given)

    @property
    def python(self) -> str:
        """The text of a function for Numba, or for NumPy's arrays."""
        lines = [f"    {target} = {text}" for target, _, text in self.lines]
        names = ", ".join(name for name, _ in self.arguments)
        return "\n".join([f"def {self.name}({names}):", *lines, f"    return {self.result}"])

    @property
    def cuda(self) -> str:
        """The text of a device function."""
        declared = {name for name, _ in self.arguments}
        lines = []
        for target, kind, text in self.lines:
            lines.append(f"    {'' if target in declared else f'{kind} '}{target} = {text};")
            declared.add(target)
        given = ", ".join(f"{kind} {name}" for name, kind in self.arguments)
        head = f"__device__ inline {self.kind} {self.name}({given}) {{"
        return "\n".join([head, *lines, f"    return {self.result};", "}"])


@cache
def _function(conversion: Conversion) -> Callable[..., Any]:
    names: dict[str, Any] = {"U": np.uint32, "S": np.float32, "where": where}
    names |= {"truncated": truncated, "bits": bits, "real": real}
    for called in needed((conversion,)):
        exec(called.python, names)  # noqa: S102
    made: Callable[..., Any] = names[conversion.name]
    return made


def conversion(function: Callable[..., object]) -> Conversion:
    """Translate a function whose arguments and result are annotated ``U`` or ``S``.

    It may call other conversions of its module.
    """
    definition = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    assert isinstance(definition.returns, ast.Name)
    kinds = {
        argument.arg: argument.annotation.id
        for argument in definition.args.args
        if isinstance(argument.annotation, ast.Name)
    }
    arguments, lines = tuple(kinds.items()), []
    calls, known = dict[str, Conversion](), function.__globals__
    *body, last = definition.body[1:]  # after the docstring
    for statement in body:
        assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        text, kind = _text(statement.value, kinds, calls, known)
        target = statement.targets[0].id
        kinds[target] = kind
        lines.append((target, kind, text))
    assert isinstance(last, ast.Return) and last.value is not None
    result, kind = _text(last.value, kinds, calls, known)
    assert kind == definition.returns.id, definition.name
    doc = ast.get_docstring(definition) or ""
    called = tuple(calls.values())
    return Conversion(definition.name, doc, arguments, tuple(lines), result, kind, called)


def needed(conversions: tuple[Conversion, ...]) -> tuple[Conversion, ...]:
    """Return conversions and all that they call, each after those that it calls."""
    found: dict[Conversion, None] = {}
    for each in conversions:
        found |= dict.fromkeys(needed(each.calls)) | {each: None}
    return tuple(found)


def _text(
    node: ast.expr, kinds: dict[str, str], calls: dict[str, Conversion], known: dict[str, Any]
) -> tuple[str, str]:
    """Return the text and the kind of an expression; add what it calls to ``calls``."""

    def read(one: ast.expr) -> tuple[str, str]:
        return _text(one, kinds, calls, known)

    match node:
        case ast.Constant(value=int(value)):
            return f"U({value})", "U"
        case ast.Constant(value=float(value)):
            return f"S({value!r})", "S"
        case ast.Name(id=name):
            return name, kinds[name]
        case ast.BinOp(left=left, op=op, right=right):
            (a, kind), (b, other) = read(left), read(right)
            assert kind == other, ast.unparse(node)
            if kind == "U":
                return f"U({a} {(INTEGER | ARITHMETIC)[type(op)]} {b})", "U"
            return f"({a} {ARITHMETIC[type(op)]} {b})", "S"
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            (a, kind), (b, other) = read(left), read(right)
            assert kind == other, ast.unparse(node)
            return f"({a} {COMPARISONS[type(op)]} {b})", ""
        case ast.Call(func=ast.Name(id="where"), args=[condition, one, another]):
            (a, kind), (b, other) = read(one), read(another)
            assert kind == other, ast.unparse(node)
            return f"where({read(condition)[0]}, {a}, {b})", kind
        case ast.Call(func=ast.Name(id=name), args=given):
            text = f"{name}({', '.join(read(argument)[0] for argument in given)})"
            if name in RETURNS:
                return text, RETURNS[name]
            calls[name] = known[name]
            return text, calls[name].kind
    raise AssertionError(ast.unparse(node))
