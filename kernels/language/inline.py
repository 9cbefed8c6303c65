"""Inline the functions that a rule calls, or leave them to the host."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache

from ..errors import RuleError
from .parse import Source, parse
from .primitives import ARITY


class Substitute(ast.NodeTransformer):
    """Replaces variables by expressions."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return copy.deepcopy(self.values[node.id]) if node.id in self.values else node


class Calls(ast.NodeTransformer):
    """Resolves calls of functions that are not of the language.

    A *piece* is a function of one line in the language of rules; its expression replaces the call.
    A *prepared* function is any Python function of hyperparameters; the host calls it once per
    step. Its call becomes an attribute of ``h`` and counts as a hyperparameter.
    """

    def __init__(
        self,
        source: Source,
        h: str,
        pieces: Mapping[str, Callable[..., object]],
        prepare: Mapping[str, Callable[..., float]],
    ) -> None:
        self.source, self.h, self.prepare = source, h, prepare
        for name in (*pieces, *prepare):
            new = name.isidentifier() and name.isascii() and name not in ARITY
            if not new or (name in pieces and name in prepare):
                raise RuleError(f"{source.file}: {name!r} is not a new function's name")
        self.pieces = {name: _expression(function) for name, function in pieces.items()}

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        match node.func:
            case ast.Name(id=name) if name in self.pieces and not node.keywords:
                arguments, expression = self.pieces[name]
                if len(arguments) != len(node.args):
                    self.source.refuse(
                        node, f"{name}() takes {len(arguments)} arguments, got {len(node.args)}"
                    )
                given = dict(zip(arguments, node.args, strict=True))
                result: ast.expr = Substitute(given).visit(copy.deepcopy(expression))
                return result
            case ast.Name(id=name) if name in self.prepare and not node.keywords:
                self._check_arguments(node, self.prepare[name])
                call = ast.Call(ast.Attribute(ast.Name(self.h), name), node.args, [])
                call.prepared = True  # type: ignore[attr-defined]  # unlike what a user writes
                return ast.copy_location(call, node)
        return node

    def _check_arguments(self, node: ast.Call, function: Callable[..., float]) -> None:
        try:
            inspect.signature(function).bind(*node.args)
        except TypeError as error:
            self.source.refuse(node, f"{function.__name__}(): {error}")
        except ValueError:
            pass  # a builtin that does not say


@lru_cache(maxsize=64)
def _expression(function: Callable[..., object]) -> tuple[tuple[str, ...], ast.expr]:
    """Return the arguments of a piece and its expression."""
    source, _, arguments, body, result = parse(function)
    if body:
        source.refuse(body[0], "a function that a rule calls has one line: its return")
    for node in ast.walk(result):
        node.source = source  # type: ignore[attr-defined]
        # It reads its arguments, not variables of the rule that have the same names.
        if isinstance(node, ast.Name) and node.id not in {*arguments, *ARITY}:
            source.refuse(node, f"unknown name {node.id!r}: it reads its arguments alone")
    return arguments, result
