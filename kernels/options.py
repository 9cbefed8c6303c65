"""What is composed around a rule: written once here, in the rules' own language.

An option rewrites the parameter or the gradient before the rule's first line, or the
parameter after its last. It is a compile-time choice: a rule without options carries no
trace of them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import replace

from .language.caching import cached_with_rule
from .language.program import Program, Rename, read
from .language.rule import Rule, from_program

Option = Callable[..., object]


def unscale(p, g, h):
    """g <- g / grad_scale"""
    return p, g / h.grad_scale


def clip_norm(p, g, h):
    """g <- clip_factor g

    Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, 2013,
    algorithm 1, with threshold / norm, or 1 for smaller norms, as clip_factor.
    """
    return p, h.clip_factor * g


def clip_value(p, g, h):
    """g <- min(max(g, -clip_value), clip_value)"""
    return p, minimum(maximum(g, -h.clip_value), h.clip_value)  # noqa: F821


def maximize(p, g, h):
    """g <- -g"""
    return p, -g


def l2(p, g, h):
    """g <- g + weight_decay p"""
    return p, g + h.weight_decay * p


def decoupled(p, g, h):
    """p <- p - lr weight_decay p

    Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2 (with
    lr as the schedule).
    """
    return p - h.lr * h.weight_decay * p, g


def absolute(p, g, h):
    """p <- p - weight_decay p

    Loshchilov & Hutter 2019, algorithm 2, with weight_decay as the product of schedule and
    lambda.
    """
    return p - h.weight_decay * p, g


def after(p, g, h):
    """p <- p - lr weight_decay p, of the new p"""
    return p - h.lr * h.weight_decay * p, g


STEP: dict[str, Option] = {f.__name__: f for f in (unscale, clip_norm, clip_value)}
"""Options that `Optimizer.step` asks for, not a group's settings."""

BEFORE: dict[str, Option] = STEP | {f.__name__: f for f in (maximize, l2, decoupled, absolute)}
"""Options in the order in which they are applied, before the rule's first line."""

AFTER: dict[str, Option] = {f.__name__: f for f in (after,)}
"""Options that are applied to what the rule returns."""

OPTIONS = BEFORE | AFTER

NEW = "_updated"
"""The variable that holds the new parameter; rules cannot have names like it."""


@cached_with_rule
def compose(rule: Rule, options: frozenset[str] = frozenset()) -> Rule:
    """The rule with the named options around it; memoised, so equal calls share kernels."""
    ordered = [name for name in OPTIONS if name in options]
    if not ordered:
        return rule
    program = rule.program
    lines, result = list(program.lines), program.results[0]
    before = [line for name in ordered if name in BEFORE for line in _lines(name, program)]
    for name in (name for name in ordered if name in AFTER):
        # Other results may read the parameter as it was.
        lines.append((NEW, result))
        ((_, result),) = _lines(name, replace(program, arguments=(NEW, *program.arguments[1:])))
    return from_program(
        replace(
            program,
            name="_".join((program.name, *ordered)),
            lines=(*before, *lines),
            scaling=sum(name in STEP for name in ordered),
            results=(result, *program.results[1:]),
        )
    )


def _lines(option: str, program: Program) -> Iterable[tuple[str, ast.expr]]:
    """The option's assignments, in the names of the program it is put around."""
    written = read(OPTIONS[option], returns=2)
    rename = Rename(
        dict(zip((*written.arguments, written.h), (*program.arguments[:2], program.h), strict=True))
    )
    for target, node in zip(program.arguments[:2], written.results, strict=True):
        renamed = rename.visit(node)
        if not (isinstance(renamed, ast.Name) and renamed.id == target):
            yield target, renamed
