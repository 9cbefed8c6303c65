"""Write the expressions of a rule as text, the same in Python and in CUDA C; JavaScript differs."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Sequence

from .program import ARITHMETIC, COMPARISONS, host_only


class Writer:
    """Writes expressions and collects the coefficients, hyperparameters and functions in them."""

    def __init__(self, h: str) -> None:
        self.h = h
        self.hoisted: dict[str, tuple[str, str]] = {}
        self.read: dict[str, None] = {}
        self.called: dict[str, None] = {}

    def coefficients(self) -> dict[str, str]:
        """Return name and formula of each coefficient."""
        return dict(self.hoisted.values())

    def text(self, node: ast.expr) -> str:
        """Return an expression, fully parenthesised."""
        match node:
            case ast.Constant(value=value):
                return self.literal(float(value))  # type: ignore[arg-type]
            case ast.UnaryOp(operand=ast.Constant(value=value)):
                return self.literal(-float(value))  # type: ignore[arg-type]
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"({self.text(left)} {COMPARISONS[type(op)]} {self.text(right)})"
            case _ if host_only(node, self.h):
                return self.hoist(node)
            case ast.Name(id=name):
                return self.variable(name)
            case ast.UnaryOp(operand=operand):
                return f"(-{self.text(operand)})"
            case ast.BinOp(left=left, op=op, right=right):
                return self.operation(
                    f"{self.text(left)} {ARITHMETIC[type(op)]} {self.text(right)}"
                )
            case ast.Call(func=ast.Name(id=name), args=arguments):
                self.called[name] = None
                return self.call(name, [self.text(argument) for argument in arguments])
        raise AssertionError(ast.dump(node))

    def literal(self, value: float) -> str:
        """Write a number of the rule's text."""
        return f"T({value!r})"

    def variable(self, name: str) -> str:
        """Write a variable."""
        return name

    def operation(self, text: str) -> str:
        """Write the result of an operation."""
        return f"({text})"

    def call(self, name: str, arguments: Sequence[str]) -> str:
        """Write a call of a function of `primitives`."""
        return f"{name}({', '.join(arguments)})"

    def hoist(self, node: ast.expr) -> str:
        """Return the coefficient of a host expression; equal expressions share one."""
        formula = ast.unparse(_Bare(self).visit(copy.deepcopy(node)))
        if formula not in self.hoisted:
            bare = isinstance(node, ast.Attribute)
            name = f"h_{formula}" if bare else f"h_{len(self.hoisted)}"
            self.hoisted[formula] = (name, formula)
        return self.hoisted[formula][0]


class _Bare(ast.NodeTransformer):
    """Turns ``h.name`` into ``name``, noting each."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def visit_Call(self, node: ast.Call) -> ast.expr:
        function = node.func
        if isinstance(function, ast.Attribute):  # prepared; see `Calls`
            function = ast.Name(function.attr)
        return ast.Call(function, [self.visit(argument) for argument in node.args], [])

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.writer.read[node.attr] = None
        return ast.Name(node.attr)


def indented(lines: Iterable[str], by: int) -> str:
    """Return lines as a block, indented by so many spaces."""
    return "\n".join(" " * by + line for line in lines)
