"""`@codec`: one straight-line function of 32-bit numbers becomes text that is Python and CUDA C.

Bits are ``U`` (unsigned, 32 bits, which wrap around), numbers ``S`` (float32). Every operation
on bits is written ``U(a + b)``, which Python needs to stay within 32 bits and C++ takes as a cast:
as for rules, there is one spelling.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

INTEGER = {ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>"}
ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
COMPARISONS = {ast.Lt: "<", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}

GIVEN = {"bits": "U", "truncated": "U", "real": "S", "U": "U", "S": "S"}
"""What backends have besides ``where``, reinterpretation and conversion, by what it returns."""


@dataclass(frozen=True)
class Codec:
    """A checked function; see `codec`."""

    name: str
    doc: str
    arguments: tuple[tuple[str, str], ...]
    """Name and kind ("U" or "S") of each."""
    lines: tuple[tuple[str, str, str], ...]
    """Assignments: variable, kind, expression."""
    result: str
    kind: str
    calls: tuple[Codec, ...]
    """The codecs that it calls."""

    @property
    def python(self) -> str:
        """As a function for Numba, or for NumPy's arrays."""
        lines = [f"    {target} = {text}" for target, _, text in self.lines]
        names = ", ".join(name for name, _ in self.arguments)
        return "\n".join([f"def {self.name}({names}):", *lines, f"    return {self.result}"])

    @property
    def function(self) -> Callable[..., Any]:
        """As a function of NumPy's arrays of uint32 and float32."""
        return _function(self)

    @property
    def cuda(self) -> str:
        """As a device function."""
        declared = {name for name, _ in self.arguments}
        lines = []
        for target, kind, text in self.lines:
            lines.append(f"    {'' if target in declared else f'{kind} '}{target} = {text};")
            declared.add(target)
        given = ", ".join(f"{kind} {name}" for name, kind in self.arguments)
        head = f"__device__ inline {self.kind} {self.name}({given}) {{"
        return "\n".join([head, *lines, f"    return {self.result};", "}"])


@cache
def _function(codec: Codec) -> Callable[..., Any]:
    names: dict[str, Any] = {"U": np.uint32, "S": np.float32, "where": np.where}
    names |= {"truncated": np.uint32, "bits": _bits, "real": _real}
    for one in needed((codec,)):
        exec(one.python, names)  # noqa: S102
    made = names[codec.name]

    def run(*given: Any) -> Any:
        # What wraps around, and branches that `where` does not take, are no errors here.
        with np.errstate(all="ignore"):
            return made(*given)

    return run


def _bits(x: Any) -> Any:
    return np.asarray(x, np.float32).view(np.uint32)


def _real(x: Any) -> Any:
    return np.asarray(x, np.uint32).view(np.float32)


_CODECS: dict[str, Codec] = {}


def codec(function: Callable[..., object]) -> Codec:
    """Translate a function whose arguments and result are annotated ``U`` or ``S``."""
    definition = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    assert isinstance(definition.returns, ast.Name)
    kinds = {
        argument.arg: argument.annotation.id
        for argument in definition.args.args
        if isinstance(argument.annotation, ast.Name)
    }
    arguments, calls, lines = tuple(kinds.items()), dict[str, Codec](), []
    *body, last = definition.body[1:]  # after the docstring
    for statement in body:
        assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        text, kind = _text(statement.value, kinds, calls)
        target = statement.targets[0].id
        kinds[target] = kind
        lines.append((target, kind, text))
    assert isinstance(last, ast.Return) and last.value is not None
    result, kind = _text(last.value, kinds, calls)
    assert kind == definition.returns.id, definition.name
    made = Codec(
        definition.name,
        ast.get_docstring(definition) or "",
        arguments,
        tuple(lines),
        result,
        kind,
        tuple(calls.values()),
    )
    _CODECS[made.name] = made
    return made


def needed(codecs: tuple[Codec, ...]) -> tuple[Codec, ...]:
    """Codecs with all that they call, each after those."""
    found: dict[Codec, None] = {}
    for one in codecs:
        found |= dict.fromkeys(needed(one.calls)) | {one: None}
    return tuple(found)


def _text(node: ast.expr, kinds: dict[str, str], calls: dict[str, Codec]) -> tuple[str, str]:
    """An expression, and whether it is bits or a number."""

    def read(one: ast.expr) -> tuple[str, str]:
        return _text(one, kinds, calls)

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
            if name in GIVEN:
                return text, GIVEN[name]
            calls[name] = _CODECS[name]
            return text, calls[name].kind
    raise AssertionError(ast.unparse(node))
