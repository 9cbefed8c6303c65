"""The fewest bits in which a state may be stored, found in the rule's lines.

Rounding to fewer bits makes a relative error, unbiased. A running mean forgets its errors. They do
harm where they accumulate, and where large numbers cancel. An expression that is not shown to be
harmless counts as harmful; docs/formats.md has the conditions.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

from .intervals import ANYTHING, Interval, interval, multiplied
from .program import Program, assigned_once, host_only, inlined, names

GRADIENT = "the gradient"

DIFFERENCE = "it is in a difference of states, which may be small beside them"
CANCELS = (
    "it is in a difference that is squared, a divisor or under a root, and may be small beside it"
)
SUM = "it is not a running mean, as far as its lines show, so that errors and sums may grow"
FEEDS = "it goes into a state that is not a running mean, so that errors may add up there"


class Need(NamedTuple):
    """The least precision of a state."""

    bits: int
    """32: the compute type; 16 or 8: as many bits or more, and not float16."""
    reason: str


class Number(NamedTuple):
    """The value of an expression, as far as it is known."""

    between: Interval
    terms: Mapping[str, frozenset[int]] = {}
    """By state (or `GRADIENT`) in the expression, the signs with which it may occur: 1, -1; and 0
    if the expression is not proportional to it."""
    cancelling: frozenset[str] = frozenset()
    """States in a difference that may be small beside them."""
    factor: bool = False
    """Whether it scales others: it is a coefficient, or a quotient by states."""


def needs(program: Program, ranges: Mapping[str, Interval]) -> dict[str, Need]:
    """Return the states that may not be stored in every format.

    Parameters
    ----------
    program : Program
    ranges : mapping of str to (float, float)
        Intervals of hyperparameters; those left out may be anything.
    """
    lines, results = assigned_once(program)
    every = dict(lines)
    _, _, *states = program.arguments[: 1 + len(program.results)]
    found = {state: Need(32, why) for state, why in _differences(program, ranges).items()}
    positive = set(program.nonnegative)
    new = {state: inlined(node, every) for state, node in zip(states, results[1:], strict=True)}
    reads = {state: names(node) & set(states) for state, node in new.items()}
    lasting = []
    for state, node in new.items():
        loops = state in _reached(reads, reads[state] - {state})
        if not loops and _is_running_mean(node, state, program.h, ranges):
            continue
        lasting.append(state)
        sums = not loops and state in positive and _factor(node, state, program.h, ranges) == ONE
        # The errors of nonnegative terms are relative: those of a sum stay within 10 %.
        bits = 32 if state not in positive else 8 if sums else 16
        found.setdefault(state, Need(bits, SUM))
    for state in _reached(reads, {source for last in lasting for source in reads[last] - {last}}):
        found.setdefault(state, Need(16, FEEDS))
    return found


def _reached(reads: Mapping[str, set[str]], first: Iterable[str]) -> set[str]:
    """Return states, and all from which their values are computed."""
    found: set[str] = set()
    remaining = list(first)
    while remaining:
        state = remaining.pop()
        if state not in found:
            found.add(state)
            remaining += reads[state] - {state}
    return found


ONE, NONE = (1.0, 1.0), (0.0, 0.0)


def _is_running_mean(node: ast.expr, state: str, h: str, ranges: Mapping[str, Interval]) -> bool:
    """Return whether a state's new value is c times the old one plus other terms, 0 <= c < 1."""
    match node:
        case ast.Call(func=ast.Name(id="maximum" | "minimum"), args=arguments):
            return all(_is_running_mean(node, state, h, ranges) for node in arguments)
    factor = _factor(node, state, h, ranges)
    # Decay factors such as beta1 are less than 1.
    return factor is not None and factor[0] >= 0 and factor[1] <= 1 and factor != ONE


def _factor(node: ast.expr, state: str, h: str, ranges: Mapping[str, Interval]) -> Interval | None:
    """Return the interval of a state's coefficient; None if the expression is not linear in it."""
    read = partial(_factor, state=state, h=h, ranges=ranges)
    if state not in names(node):
        return NONE
    match node:
        case ast.Name():
            return ONE
        case ast.UnaryOp(operand=operand):
            a = read(operand)
            return None if a is None else (-a[1], -a[0])
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            a, b = read(left), read(right)
            if a is None or b is None:
                return None
            return (a[0] + b[0], a[1] + b[1]) if isinstance(op, ast.Add) else (
                a[0] - b[1], a[1] - b[0])  # fmt: skip
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            host, other = (left, right) if host_only(left, h) else (right, left)
            a = read(other)
            if a is None or not host_only(host, h):
                return None
            return multiplied(a, interval(host, {}, ranges))
    return None


def _differences(program: Program, ranges: Mapping[str, Interval]) -> dict[str, str]:
    """Return the states of which large values cancel where it does harm, with the reason."""
    lines, results = assigned_once(program)
    parameter, gradient, *states = program.arguments[: 1 + len(program.results)]
    positive = set(program.nonnegative)
    known = {
        state: Number((0.0 if state in positive else -math.inf, math.inf), {state: frozenset({1})})
        for state in states
    }
    known |= {parameter: Number(ANYTHING), gradient: Number(ANYTHING, {GRADIENT: frozenset({1})})}
    search = _Cancellations(known, program.h, ranges)
    for target, node in lines:
        known[target] = search.read(node)
    for node in results:
        search.read(node)
    return {state: why for state, why in search.found.items() if state != GRADIENT}


class _Cancellations:
    """Reads expressions and collects the states of which large values may cancel."""

    def __init__(self, known: Mapping[str, Number], h: str, ranges: Mapping[str, Interval]) -> None:
        self.known, self.h, self.ranges = known, h, ranges
        self.found: dict[str, str] = {}

    def read(self, node: ast.expr) -> Number:
        """Return what is known of an expression."""
        intervals = {name: number.between for name, number in self.known.items()}
        between = interval(node, intervals, self.ranges)
        if host_only(node, self.h):
            return Number(between, factor=True)
        match node:
            case ast.Name(id=name):
                return self.known[name]
            case ast.UnaryOp(operand=operand):
                return _negative(self.read(operand))
            case ast.BinOp(left=left, op=op, right=right):
                a, b = self.read(left), self.read(right)
                match op:
                    case ast.Mult():
                        return self._product(a, b)._replace(between=between)
                    case ast.Div():
                        return self._quotient(a, b)._replace(between=between)
                b = _negative(b) if isinstance(op, ast.Sub) else b
                return self._sum(a, b)._replace(between=between)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, arguments)._replace(between=between)
        raise AssertionError(ast.unparse(node))

    def _add(self, states: Iterable[str], reason: str) -> None:
        for state in states:
            self.found.setdefault(state, reason)

    def _sum(self, a: Number, b: Number) -> Number:
        joined = _joined([a, b])
        if (a.between[0] >= 0 <= b.between[0]) or (a.between[1] <= 0 >= b.between[1]):
            return joined
        cancelling = set(joined.cancelling)
        for one, signs in a.terms.items():
            for other, others in b.terms.items():
                if len((signs | others) - {0}) < 2 or GRADIENT == one == other:
                    continue
                if one == other:
                    # c s - d s is a multiple of s; sqrt(s) - sqrt(s + 1) is not.
                    self._add([one] if 0 in signs | others else [], DIFFERENCE)
                elif GRADIENT not in (one, other):
                    self._add([one, other], DIFFERENCE)
                cancelling |= {one, other} - {GRADIENT}
        if not a.terms or not b.terms:  # less a number of the step, or the parameter
            cancelling |= {*a.terms, *b.terms} - {GRADIENT}
        return joined._replace(cancelling=frozenset(cancelling))

    def _product(self, a: Number, b: Number) -> Number:
        self._add(a.cancelling & b.cancelling, CANCELS)
        if a.factor != b.factor:
            factor, other = (a, b) if a.factor else (b, a)
            return _scaled_by(other, factor.between)._replace(
                cancelling=a.cancelling | b.cancelling
            )
        both = _joined([_scaled_by(a, b.between), _scaled_by(b, a.between)])
        return both._replace(
            terms=_not_proportional(both.terms), cancelling=a.cancelling | b.cancelling
        )

    def _quotient(self, a: Number, b: Number) -> Number:
        self._add(b.cancelling, CANCELS)
        if a.factor and b.terms:
            terms = _scaled_by(_negative(b), a.between).terms
            return Number(
                ANYTHING, _not_proportional({**a.terms, **terms}), a.cancelling, factor=True
            )
        turned = _scaled_by(a, b.between)
        return turned._replace(terms=_not_proportional(turned.terms)) if b.terms else turned

    def _call(self, name: str, arguments: list[ast.expr]) -> Number:
        given = []
        for one in arguments:
            if isinstance(one, ast.Compare):
                self.read(one.left), self.read(one.comparators[0])
            else:
                given.append(self.read(one))
        if name == "sign":  # 1 or -1: where it is about a small difference, it is of no account
            return Number((-1.0, 1.0), factor=True)
        joined = _joined(given)
        terms = _not_proportional(joined.terms)
        if name in ("sqrt", "sq", "abs"):
            self._add(joined.cancelling, CANCELS)
            if given[0].between[0] < 0:
                terms = {one: frozenset({0, 1}) for one in terms}
        return joined._replace(terms=terms)


def _joined(given: Iterable[Number]) -> Number:
    """Return the terms of a sum, or of a choice."""
    given = list(given)
    terms: dict[str, frozenset[int]] = {}
    for number in given:
        for one, signs in number.terms.items():
            terms[one] = terms.get(one, frozenset()) | signs
    cancelling = frozenset().union(*(number.cancelling for number in given))
    return Number(ANYTHING, terms, cancelling, all(number.factor for number in given))


def _scaled_by(number: Number, by: Interval) -> Number:
    """Return the terms of a product with a number in an interval."""
    if by[0] >= 0:
        return number
    keeps = {1: -1, -1: 1, 0: 0}
    terms = {
        one: frozenset(keeps[sign] for sign in signs) | (signs if by[1] > 0 else frozenset())
        for one, signs in number.terms.items()
    }
    return number._replace(terms=terms)


def _negative(number: Number) -> Number:
    low, high = number.between
    return _scaled_by(number, (-1.0, -1.0))._replace(between=(-high, -low))


def _not_proportional(terms: Mapping[str, frozenset[int]]) -> dict[str, frozenset[int]]:
    """Return the terms with the mark that the number is not proportional to them."""
    return {one: signs | {0} for one, signs in terms.items()}
