"""The options that are composed around a rule, written once in the rules' own language.

An option ``f(p, g, h)`` rewrites the parameter or the gradient before the rule's first line.
An option ``f(p, old, g, h)`` rewrites the new parameter after the rule's last line; ``old`` and
``g`` are the parameter and the gradient that the rule's first line sees. An option is a
compile-time choice: a rule without options carries no trace of them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import replace

from .averaging import with_average
from .language.caching import cached_with_rule
from .language.program import Program, Rename, names, read
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


def after(p, old, g, h):
    """p <- p - lr weight_decay p, of the new p"""
    return p - h.lr * h.weight_decay * p


STEP: dict[str, Option] = {f.__name__: f for f in (unscale, clip_norm, clip_value)}
"""Options that `Optimizer.step` asks for, not a group's settings."""

BEFORE: dict[str, Option] = STEP | {f.__name__: f for f in (maximize, l2, decoupled, absolute)}
"""Options in the order in which they are applied, before the rule's first line."""

AFTER: dict[str, Option] = {f.__name__: f for f in (after,)}
"""Options that are applied to what the rule returns."""

OPTIONS = BEFORE | AFTER

NEW, OLD, GRADIENT = "_updated", "_old", "_gradient"
"""Variables: the new parameter; the old one and the gradient, if the rule assigns to them.

Rules cannot have names like these.
"""

Lines = list[tuple[str, ast.expr]]


@cached_with_rule
def compose(rule: Rule, options: frozenset[str] = frozenset()) -> Rule:
    """Put the named options around a rule.

    Parameters
    ----------
    rule : Rule
    options : frozenset of str
        Names in `OPTIONS`.

    Returns
    -------
    Rule
        The same one for equal calls, so that they share kernels; without options, the rule.
    """
    ordered = [name for name in OPTIONS if name in options]
    if not ordered:
        return rule
    if rule.averaged is not None:
        inner, average = rule.averaged
        return with_average(compose(inner, options), average)
    program = rule.program
    before = [line for name in ordered if name in BEFORE for line in _lines_before(name, program)]
    lines, result = _with_options_after([name for name in ordered if name in AFTER], program)
    return from_program(
        replace(
            program,
            name="_".join((program.name, *ordered)),
            lines=(*before, *lines),
            scaling=sum(name in STEP for name in ordered),
            results=(result, *program.results[1:]),
        )
    )


def _lines_before(option: str, program: Program) -> Iterable[tuple[str, ast.expr]]:
    """The assignments of an option, in the names of the program."""
    written = read(OPTIONS[option], returns=2)
    assert not written.lines, "an option is its return"
    rename = Rename(
        dict(zip((*written.arguments, written.h), (*program.arguments[:2], program.h), strict=True))
    )
    for target, node in zip(program.arguments[:2], written.results, strict=True):
        renamed = rename.visit(node)
        if not (isinstance(renamed, ast.Name) and renamed.id == target):
            yield target, renamed


def _with_options_after(options: list[str], program: Program) -> tuple[Lines, ast.expr]:
    """The program's lines and those of options after them, and the new parameter."""
    lines, result = list(program.lines), program.results[0]
    assigned = {target for target, _ in program.lines}
    saved = {}
    for name, variable in zip(program.arguments[:2], (OLD, GRADIENT), strict=True):
        saved[name] = variable if name in assigned else name
    needed: set[str] = set()
    for option in options:
        written = read(OPTIONS[option], returns=1)
        assert not written.lines, "an option is its return"
        given = (NEW, *saved.values(), program.h)
        # Other results may read the parameter as it was.
        lines.append((NEW, result))
        rename = Rename(dict(zip((*written.arguments, written.h), given, strict=True)))
        result = rename.visit(written.results[0])
        needed |= names(result)
    copies: Lines = [
        (variable, ast.Name(name))
        for name, variable in saved.items()
        if variable in needed - {name}
    ]
    return copies + lines, result
