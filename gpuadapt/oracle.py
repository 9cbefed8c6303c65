"""Run a rule by NumPy: the oracle for the kernels."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gpuadapt.kernels.language.caching import cached_with_rule
from gpuadapt.kernels.language.primitives import NORMAL
from gpuadapt.kernels.language.rule import Rule

from .errors import RuleError
from .hyperparameters import INTERVALS

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt,
    "sq": lambda x: x * x,
    "abs": np.abs,
    "sign": lambda x: np.where(x > 0, np.ones_like(x), np.where(x < 0, -np.ones_like(x), x)),
    "maximum": lambda a, b: np.where((a > b) | (a != a), a, b),
    "minimum": lambda a, b: np.where((a < b) | (a != a), a, b),
    "where": np.where,
    NORMAL: lambda x: np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.zeros_like(x), x),
}
"""The functions of rules on NumPy arrays, written a second time so that a slip shows."""


def evaluate(rule: Rule, arrays: Sequence[np.ndarray], numbers: Sequence[float]) -> list[Any]:
    """Run the translated lines of a rule.

    A gradient of a wider type than the parameter's is unscaled and clipped in that type, then
    rounded.

    Parameters
    ----------
    rule : Rule
    arrays : sequence of array, all of one shape
        The parameter, the gradient and the states.
    numbers : sequence of float
        The coefficients.

    Returns
    -------
    list of array
        The new parameter and states, with the bits that every kernel must have.
    """
    T, wide = arrays[0].dtype.type, np.result_type(*arrays[:2]).type
    names: dict[str, Any] = {**FUNCTIONS, "T": T}
    names |= dict(zip(rule.program.arguments, arrays, strict=True))
    lines = list(rule.lines)
    with np.errstate(all="ignore"):
        if wide is not T:
            scaling = rule.program.scaling
            known = names | dict(zip(rule.coefficients, map(wide, numbers), strict=True))
            for target, expression in lines[:scaling]:
                known[target] = eval(_code(expression), known)  # noqa: S307
            last = lines[scaling - 1][0] if scaling else rule.gradient
            names[last] = known[last].astype(T)
            lines = lines[scaling:]
        names |= dict(zip(rule.coefficients, map(T, numbers), strict=True))
        for target, expression in lines:
            names[target] = eval(_code(expression), names)  # noqa: S307
        results = [eval(_code(expression), names) for expression in rule.results]  # noqa: S307
    return [np.broadcast_to(np.asarray(x, T), arrays[0].shape).copy() for x in results]


@lru_cache(maxsize=1024)
def _code(expression: str) -> types.CodeType:
    return compile(expression, "<rule>", "eval")


HARD_STEPS = 8
HARD_SIZE = 2048


@cached_with_rule
def check_nonnegative(rule: Rule) -> None:
    """Raise `RuleError` if a state that is declared to be nonnegative becomes negative.

    Steps are taken once for a rule, by NumPy; see `nonnegative_states`.
    """
    for name in rule.states:
        if name in rule.nonnegative - nonnegative_states(rule, rule.nonnegative):
            raise RuleError(
                f"{rule.name}: nonnegative={name!r} is declared, and a step makes {name!r} "
                "negative: take it out of nonnegative"
            )


def nonnegative_states(rule: Rule, states: Collection[str]) -> frozenset[str]:
    """Find out which states stay nonnegative over steps with hard gradients.

    Gradients have all magnitudes and signs, and hyperparameters several values.

    Parameters
    ----------
    rule : Rule
    states : collection of str
        Half of their elements begin at random positive numbers; all else begins at 0.

    Returns
    -------
    frozenset of str
        Those of ``states`` of which no element became negative.
    """
    random, found = np.random.default_rng(3), set(states)
    for _ in range(4):
        values = [plausible(name, random.random()) for name in rule.hyperparameters]
        parameter = random.normal(size=HARD_SIZE).astype(np.float32)
        held = {name: np.zeros_like(parameter) for name in rule.states}
        for name in states:
            held[name][::2] = 2.0 ** random.uniform(-99, 99, HARD_SIZE // 2)
        for t in range(1, 1 + HARD_STEPS):
            try:
                numbers = rule.evaluate(*values, t)
            except (ArithmeticError, ValueError):
                break  # a number that the rule's own functions refuse
            gradient = random.normal(size=HARD_SIZE).astype(np.float32)
            gradient[::3] *= np.exp2(random.uniform(-60, 60, gradient[::3].size))
            means = [np.abs(gradient)] * (rule.squared is not None)
            arrays = [parameter, gradient, *held.values(), *means]
            parameter, *new = evaluate(rule, arrays, numbers)
            held = dict(zip(rule.states, new, strict=True))
            found -= {name for name in found if (held[name] < 0).any()}
    return frozenset(found)


def plausible(name: str, share: float) -> float:
    """Return a number that a hyperparameter of this name may be, by a number in [0, 1)."""
    _, high = INTERVALS.get(name, (0.0, math.inf))
    return share if high == 1 else 0.01 + share


def any_bits(random: np.random.Generator, size: int, dtype: np.dtype) -> np.ndarray:
    """Return numbers with any bit pattern: all exponents, many special values."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    values = random.integers(0, np.iinfo(unsigned).max, size, unsigned, endpoint=True).view(dtype)
    tiny = np.finfo(dtype).smallest_subnormal
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, tiny, -tiny, 3e5 * tiny, 1.0], dtype)
    at = random.random(size) < 0.2
    values[at] = random.choice(special, at.sum())
    return values


def same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a mask: the bits of two arrays of one type are equal, or both are NaN."""
    unsigned = f"u{a.dtype.itemsize}"
    x, y = (np.ascontiguousarray(array).view(unsigned) for array in (a, b))
    same: np.ndarray = (x == y) | (np.isnan(a) & np.isnan(b))
    return same


def author(rule: Rule) -> Callable[..., Any]:
    """Return the author's function as Python on arrays: (parameter, gradient, *states, h)."""
    pieces = {name: _rebound(piece, {}) for name, piece in rule.pieces.items()}
    return _rebound(rule.function, {**rule.program.prepare, **pieces})


def _rebound(function: Any, names: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function whose globals include the functions of rules."""
    known = {**FUNCTIONS, **names}
    # A closure may have the same name: the function of rules goes first.
    cells = tuple(
        types.CellType(known[name]) if name in known else cell
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        )
    )
    return types.FunctionType(
        function.__code__, {**function.__globals__, **known}, closure=cells or None
    )
