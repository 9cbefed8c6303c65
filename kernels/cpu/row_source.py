"""The CPU kernels for rows, from the text of `row_text`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..rule import Rule
from ..summation import SUMS
from . import module
from .row_text import ADDITIONS, ROWS, SPAN, SQUARES, TYPES
from .shared import FOLD

AHEAD = 4
"""Occurrences between what is asked for and what is worked on.

Measured on an EPYC, float32 Adam: 2 to 4 are 5 % faster than 8 for rows of 64 and 128 elements,
and 4 to 16 are alike for rows of 16.
"""

FOLLOWED = 1024
"""Bytes of a row that are asked for; the hardware follows along longer ones."""


def source(rule: Rule, dtype: np.dtype) -> str:
    """The generated Python module, as Numba compiles it."""
    coefficients = list(rule.coefficients)
    gradient, states = f"{rule.gradient}_", [f"{name}_" for name in rule.states]
    by_row = [f"{name}_" for name in rule.row_states]
    arrays, written = [f"{rule.parameter}_", gradient, *states], [f"{rule.parameter}_", *states]
    mean = ["mean_square"] * (rule.squared is not None)
    span = SPAN.format(
        inside=", ".join([*arrays, *mean, *coefficients]), span=_span(rule, by_row, mean)
    )
    return (
        module.header(rule, dtype, "rows")
        + ADDITIONS
        + FOLD
        + SQUARES.format(name="squares", arguments="x", first="x", value="x[i]", sums=SUMS)
        + _row_squares(rule)
        + span
        + _rows(
            dtype,
            [*arrays, *coefficients],
            ["MATRIX", "READONLY", *("COLUMN" if name in by_row else "MATRIX" for name in states)]
            + ["types.float64"] * len(coefficients),
            gradient,
            _update(rule),
            coefficients,
            [name for name in written if name not in by_row],
        )
    )


def squares_source(dtype: np.dtype) -> str:
    """As `source`, of the kernel that writes the sum of squares of each row's gradient."""
    text = module.imports(f"squares of rows, {dtype}") + f"\nT = np.{dtype}\n" + ADDITIONS + FOLD
    for name, arguments, value in (
        ("squares", "x", "x[i]"),
        ("scaled", "x, scale", "x[i] / scale"),
    ):
        text += SQUARES.format(name=name, arguments=arguments, first="x", value=value, sums=SUMS)
    return text + _rows(
        dtype,
        ["g_", "scale", "squared"],
        ["READONLY", "types.float64", "types.Array(types.float64, 1, 'C')"],
        "g_",
        [f"squared[i] = scaled(total, scale, part(partial, k, 0, {SUMS}))"],
        ["scale"],
        [],
    )


def _rows(
    dtype: np.dtype,
    arguments: Sequence[str],
    kinds: Sequence[str],
    gradient: str,
    update: Sequence[str],
    rounded: Sequence[str],
    asked: Sequence[str],
) -> str:
    """The kernel: arguments and their types, what it does to a row, what is asked for ahead."""
    return ROWS.format(
        dtype=dtype,
        arguments=", ".join(arguments),
        gradient=gradient,
        update=_indented(update, 12),
        asked_last=_indented([f"prefetch({name}, begin + width - 1)" for name in asked], 20),
        asked=_indented([f"prefetch({name}, begin + j)" for name in asked] or ["pass"], 24),
        followed=FOLLOWED // dtype.itemsize,
        line=module.LINE // dtype.itemsize,
        ahead=AHEAD,
        sums=SUMS,
        rounded=_indented([f"{name} = T({name})" for name in rounded], 4),
        types=", ".join([TYPES, *kinds, "types.boolean"]),
    )


def _span(rule: Rule, by_row: list[str], mean: list[str]) -> str:
    """The loop over a row; a state with one number for the row comes as it was, and is returned."""
    names = [f"{name}_" for name in rule.program.arguments[: 2 + len(rule.states)]]
    old = [name if name in by_row else f"{name}[i]" for name in names]
    new = [f"_new_{name}" if name in by_row else f"{name}[i]" for name in [names[0], *names[2:]]]
    call = f"{rule.symbol}({', '.join([*old, *mean, *rule.coefficients])})"
    return _indented(
        [f"_new_{name} = {name}" for name in by_row]
        + [f"for i in range({names[1]}.size):", f"    {', '.join(new)} = {call}"]
        + [f"return {', '.join(f'_new_{name}' for name in by_row)}"] * bool(by_row),
        4,
    )


def _update(rule: Rule) -> list[str]:
    """The update of the row with number ``row`` by its gradient ``total``."""
    lines, mean = [], []
    parts = {name: f"part({name}_, row, 0, width)" for name in (rule.parameter, *rule.states)}
    parts |= {name: f"{name}_[row]" for name in rule.row_states}
    if rule.squared is not None:
        given = ", ".join([parts[rule.parameter], "total", *rule.squared_coefficients])
        squares = f"row_squares({given}, part(partial, k, 0, {SUMS}))"
        lines, mean = [f"mean_square = T({squares} / width)"], ["mean_square"]
    states = [parts[name] for name in rule.states]
    call = [parts[rule.parameter], "total", *states, *mean, *rule.coefficients]
    results = "".join(f"{name}_[row], " for name in rule.row_states).rstrip(", ")
    return [
        *lines,
        f"{results} = span({', '.join(call)})" if results else f"span({', '.join(call)})",
    ]


def _row_squares(rule: Rule) -> str:
    """The functions that a row's mean of squares needs."""
    if rule.squared is None:
        return ""
    parameter, gradient = f"{rule.parameter}_", f"{rule.gradient}_"
    used = rule.squared_coefficients
    return f"{module.function(rule.squared)}\n" + SQUARES.format(
        name="row_squares",
        arguments=", ".join([parameter, gradient, *used]),
        first=gradient,
        value=f"{rule.squared.symbol}({', '.join([f'{parameter}[i]', f'{gradient}[i]', *used])})",
        sums=SUMS,
    )


def _indented(lines: Sequence[str], by: int) -> str:
    return "\n".join(" " * by + line for line in lines)
