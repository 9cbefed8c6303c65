"""In how few bits a state of a rule may be kept, found in the rule's lines.

Rounding a state to fewer bits makes an error that is a share of it, right in the mean. A running
mean forgets its errors. They do harm where they add up without end, and where a small difference of
large numbers is what counts. What is not shown to be harmless is taken for harmful; the rules are
in docs/formats.md.
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
LEFT = (
    "it is in a difference that is squared, a divisor or under a root, and may be small beside it"
)
SUM = "it is not a running mean, as far as its lines show, so that errors and sums may grow"
FLOWS = "it goes into a state that is not a running mean, so that errors may add up there"


class Need(NamedTuple):
    """What a state has to be kept in."""

    bits: int
    """32 for the type of the arithmetic; 16, or 8, for no fewer bits, and not float16."""
    reason: str


class Number(NamedTuple):
    """What is known of an expression."""

    between: Interval
    terms: Mapping[str, frozenset[int]] = {}
    """States (and the gradient) that it is made of, each with the signs that it may have: 1, -1;
    and 0 where it is not proportional to them."""
    near: frozenset[str] = frozenset()
    """States in a difference that may be small beside them."""
    factor: bool = False
    """Whether it is a number of the step, or a quotient by states: what scales others."""


def needs(program: Program, ranges: Mapping[str, Interval]) -> dict[str, Need]:
    """The states that may not be kept in every format.

    Parameters
    ----------
    program : Program
    ranges : mapping of str to (float, float)
        Between what hyperparameters are; those that are not in it may be anything.
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
        if not loops and _forgets(node, state, program.h, ranges):
            continue
        lasting.append(state)
        sums = not loops and state in positive and _factor(node, state, program.h, ranges) == ONE
        # Of what is never negative the errors are shares: of a sum they stay within 10 %.
        bits = 32 if state not in positive else 8 if sums else 16
        found.setdefault(state, Need(bits, SUM))
    for state in _reached(reads, {one for last in lasting for one in reads[last] - {last}}):
        found.setdefault(state, Need(16, FLOWS))
    return found


def _reached(reads: Mapping[str, set[str]], first: Iterable[str]) -> set[str]:
    """States, and all that their values come from."""
    found: set[str] = set()
    left = list(first)
    while left:
        state = left.pop()
        if state not in found:
            found.add(state)
            left += reads[state] - {state}
    return found


ONE, NONE = (1.0, 1.0), (0.0, 0.0)


def _forgets(node: ast.expr, state: str, h: str, ranges: Mapping[str, Interval]) -> bool:
    """Whether a state's new value has only a share of the old one, less than all of it."""
    match node:
        case ast.Call(func=ast.Name(id="maximum" | "minimum"), args=arguments):
            return all(_forgets(one, state, h, ranges) for one in arguments)
    share = _factor(node, state, h, ranges)
    # Hyperparameters that are a share of the past, such as beta1, are less than 1.
    return share is not None and share[0] >= 0 and share[1] <= 1 and share != ONE


def _factor(node: ast.expr, state: str, h: str, ranges: Mapping[str, Interval]) -> Interval | None:
    """What a state is multiplied by in an expression; None if it is not simply a term of it."""
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
    """The states in differences that may be small beside them, where that matters."""
    lines, results = assigned_once(program)
    parameter, gradient, *states = program.arguments[: 1 + len(program.results)]
    positive = set(program.nonnegative)
    known = {
        state: Number((0.0 if state in positive else -math.inf, math.inf), {state: frozenset({1})})
        for state in states
    }
    known |= {parameter: Number(ANYTHING), gradient: Number(ANYTHING, {GRADIENT: frozenset({1})})}
    look = _Look(known, program.h, ranges)
    for target, node in lines:
        known[target] = look.at(node)
    for node in results:
        look.at(node)
    return {state: why for state, why in look.found.items() if state != GRADIENT}


class _Look:
    """Goes through expressions and notes the states that are in small differences."""

    def __init__(self, known: Mapping[str, Number], h: str, ranges: Mapping[str, Interval]) -> None:
        self.known, self.h, self.ranges = known, h, ranges
        self.found: dict[str, str] = {}

    def at(self, node: ast.expr) -> Number:
        """What is known of an expression."""
        intervals = {name: number.between for name, number in self.known.items()}
        between = interval(node, intervals, self.ranges)
        if host_only(node, self.h):
            return Number(between, factor=True)
        match node:
            case ast.Name(id=name):
                return self.known[name]
            case ast.UnaryOp(operand=operand):
                return _negative(self.at(operand))
            case ast.BinOp(left=left, op=op, right=right):
                a, b = self.at(left), self.at(right)
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

    def _note(self, states: Iterable[str], reason: str) -> None:
        for state in states:
            self.found.setdefault(state, reason)

    def _sum(self, a: Number, b: Number) -> Number:
        joined = _joined([a, b])
        if (a.between[0] >= 0 <= b.between[0]) or (a.between[1] <= 0 >= b.between[1]):
            return joined
        near = set(joined.near)
        for one, signs in a.terms.items():
            for other, others in b.terms.items():
                if len((signs | others) - {0}) < 2 or GRADIENT == one == other:
                    continue
                if one == other:
                    # c s - d s is a multiple of s; sqrt(s) - sqrt(s + 1) is not.
                    self._note([one] if 0 in signs | others else [], DIFFERENCE)
                elif GRADIENT not in (one, other):
                    self._note([one, other], DIFFERENCE)
                near |= {one, other} - {GRADIENT}
        if not a.terms or not b.terms:  # less a number of the step, or the parameter
            near |= {*a.terms, *b.terms} - {GRADIENT}
        return joined._replace(near=frozenset(near))

    def _product(self, a: Number, b: Number) -> Number:
        self._note(a.near & b.near, LEFT)
        if a.factor != b.factor:
            factor, other = (a, b) if a.factor else (b, a)
            return _turned(other, factor.between)._replace(near=a.near | b.near)
        both = _joined([_turned(a, b.between), _turned(b, a.between)])
        return both._replace(terms=_bent(both.terms), near=a.near | b.near)

    def _quotient(self, a: Number, b: Number) -> Number:
        self._note(b.near, LEFT)
        if a.factor and b.terms:
            terms = _turned(_negative(b), a.between).terms
            return Number(ANYTHING, _bent({**a.terms, **terms}), a.near, factor=True)
        turned = _turned(a, b.between)
        return turned._replace(terms=_bent(turned.terms)) if b.terms else turned

    def _call(self, name: str, arguments: list[ast.expr]) -> Number:
        given = []
        for one in arguments:
            if isinstance(one, ast.Compare):
                self.at(one.left), self.at(one.comparators[0])
            else:
                given.append(self.at(one))
        if name == "sign":  # 1 or -1: where it is about a small difference, it is of no account
            return Number((-1.0, 1.0), factor=True)
        joined = _joined(given)
        terms = _bent(joined.terms)
        if name in ("sqrt", "sq", "abs"):
            self._note(joined.near, LEFT)
            if given[0].between[0] < 0:
                terms = {one: frozenset({0, 1}) for one in terms}
        return joined._replace(terms=terms)


def _joined(given: Iterable[Number]) -> Number:
    """Of numbers that are added, or of which one is chosen: the terms of all of them."""
    given = list(given)
    terms: dict[str, frozenset[int]] = {}
    for number in given:
        for one, signs in number.terms.items():
            terms[one] = terms.get(one, frozenset()) | signs
    near = frozenset().union(*(number.near for number in given))
    return Number(ANYTHING, terms, near, all(number.factor for number in given))


def _turned(number: Number, by: Interval) -> Number:
    """A number times another that lies between two."""
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
    return _turned(number, (-1.0, -1.0))._replace(between=(-high, -low))


def _bent(terms: Mapping[str, frozenset[int]]) -> dict[str, frozenset[int]]:
    """Terms that the number is not proportional to."""
    return {one: signs | {0} for one, signs in terms.items()}
