"""The CPU kernels for rows, from the text of `row_text`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..formats import BLOCK, PLAIN, Format, Formats, load, needed
from ..language.emit import indented
from ..language.rule import Rule
from ..numerics.summation import SUMS
from . import compile, generate
from .row_text import MERGED, ROWS, TYPES
from .run_source import Run

AHEAD = 4
"""Occurrences between what is asked for and what is worked on.

Measured on an EPYC, float32 Adam: 2 to 4 are 5 % faster than 8 for rows of 64 and 128 elements,
and 4 to 16 are alike for rows of 16.
"""

RANDOM = ["types.int64", "types.float64", "NUMBERS"]
"""A parameter's key, its step, and of copied rows their numbers in the table."""

KEYS = "first_key, second_key = keys_of(key, U(step))"

FOLLOWED = 1024
"""Bytes of a row that are asked for; the hardware follows along longer ones."""


class MissedText(NamedTuple):
    """What a kernel has besides if rows make up for steps that they have missed."""

    text: str
    """Functions."""
    arguments: Sequence[str]
    kinds: Sequence[str]
    before: Sequence[str]
    """Lines at the beginning of a thread's work."""
    around: Callable[[list[str]], list[str]]
    """Of the lines that update a row, those that do so if the row is not only read."""


def source(rule: Rule, formats: Formats, missed: MissedText | None = None) -> str:
    """The generated Python module, as Numba compiles it; with ``missed`` for exact rows."""
    run = run_of(rule, formats)
    gradient = f"{rule.gradient}_"
    kinds, asked = [], []
    for one, form in zip(run.arguments, formats.every, strict=True):
        for name, (_, dtype) in zip(one.arrays, form.parts, strict=True):
            kind = f"types.{dtype}, {1 if one.name in rule.row_states else 2}, 'C'"
            kinds.append(f"types.Array({kind}{', readonly=True' if name == gradient else ''})")
            if name != gradient and one.name not in rule.row_states:
                asked.append((name, np.dtype(dtype).itemsize))
    keys = ["key", "step", "origin"] * formats.random
    coefficients = list(rule.coefficients)
    before = [KEYS] * formats.random
    before += [f"{name} = np.empty({BLOCK}, T)" for name in run.held]
    if missed:
        before += missed.before
        asked.append(("last", 0))
    return (
        compile.link(
            generate.title(rule, formats, "rows"),
            generate.rule_preamble(rule, formats)
            + _gradients(formats.wide, formats.gradient, _wide(formats))
            + _squared_value(rule, formats)
            + run.text,
            "row_gradients",
            *["mean_square"] * (rule.squared is not None),
        )
        + (missed.text if missed else "")
        + _rows(
            formats,
            [*run.arrays, *coefficients, *run.wide, *keys, *(missed.arguments if missed else ())],
            [
                *kinds,
                *["types.float64"] * (len(coefficients) + len(run.wide)),
                *RANDOM * formats.random,
                *(missed.kinds if missed else ()),
            ],
            gradient,
            update(rule, run),
            coefficients,
            asked,
            before,
            missed.around if missed else None,
        )
    )


def squares_source(compute: str, form: Format) -> str:
    """As `source`, of the kernel that measures each row's gradient.

    It writes the sum of squares, and the largest magnitude of what a limit on the row's norm leaves
    of the gradient.
    """
    text = compile.link(
        _title("squares of rows", compute, form), _gradients_alone(compute, form), "row_squares"
    )
    sums, tops = f"part(partial, k, 0, {SUMS})", f"part(partial, k, {SUMS}, {2 * SUMS})"
    ((_, dtype),) = form.parts
    return text + _rows(
        Formats(compute, form, form, ()),
        ["g_", "scale", "longest", "squared", "tops"],
        [
            f"types.Array(types.{dtype}, 2, 'C', readonly=True)",
            *["types.float64"] * 2,
            *["types.Array(types.float64, 1, 'C')"] * 2,
        ],
        "g_",
        [
            f"squared[i] = squares_and_largest(total, scale, {sums}, {tops})",
            "if longest < np.inf:",
            f"    tops[i] = largest_clipped(total, scale, longest, {sums}, {tops})",
            "else:",
            f"    tops[i] = fold_largest({tops})",
        ],
        ["scale"],
        [],
        [],
    )


def hot_rows_source(compute: str, form: Format) -> str:
    """Return the text of the kernel that sums the gradients of hot rows."""
    title = _title("hot rows", compute, form)
    return compile.link(title, _gradients_alone(compute, form), "hot_rows")


def _title(name: str, compute: str, form: Format) -> str:
    return f"{name}, {compute}" + f" of {form.name}" * (form.name != compute)


def _gradients_alone(compute: str, form: Format) -> str:
    """The head of a kernel without a rule."""
    preamble = generate.preamble(compute, needed(form.conversions))
    return preamble + _gradients(compute, form, "T")


def _gradients(compute: str, form: Format, merged: str) -> str:
    """The type in which gradients are merged, and the load of an element of a gradient."""
    ((_, dtype),) = form.parts
    value = load(form, compute, ["x[k]"])
    return f"""

W, SUMS = {merged}, {SUMS}
GRADIENTS = types.Array(types.{dtype}, 2, "C", readonly=True)
MERGED = types.Array(types.{compute}, 2, "C")


@njit(**OPTIONS)
def value_of(x, k):
    return {value}
"""


def _rows(
    formats: Formats,
    arguments: Sequence[str],
    kinds: Sequence[str],
    gradient: str,
    update: Sequence[str],
    rounded: Sequence[str],
    asked: Sequence[tuple[str, int]],
    before: Sequence[str],
    around: Callable[[list[str]], list[str]] | None = None,
) -> str:
    """The kernel: arguments and their types, what it does to a row, what is asked for ahead."""
    ((_, kept),) = formats.gradient.parts
    itemsize, plain = np.dtype(kept).itemsize, formats.gradient == PLAIN[formats.wide]
    first, last = [], []
    for name, size in asked:
        if name.endswith("_scale__"):
            first.append(f"    prefetch({name}, np.intp(keys[later] >> shift) * {name}.shape[1])")
            continue
        if not size:
            first.append(f"    prefetch({name}, np.intp(keys[later] >> shift))")
            continue
        line = compile.LINE // size
        followed = f"min(width, {FOLLOWED // size})"
        first.append(f"    for j in range(0, {followed}, {line}):")
        first.append(f"        prefetch({name}, begin + j)")
        last.append(f"    prefetch({name}, begin + width - 1)")
    merged = MERGED.format(
        alone=f"part({gradient}, at, 0, width)" if plain else "part(merged, k, 0, width)",
        whole="" if plain else " or True",
        gradient=gradient,
        sums=SUMS,
    )
    work = [*merged.split("\n"), *update]
    return ROWS.format(
        arguments=", ".join(arguments),
        gradient=gradient,
        work=indented(around(work) if around else work, 12),
        asked=indented([*first, *last] or ["    pass"], 16),
        followed=FOLLOWED // itemsize,
        line=compile.LINE // itemsize,
        ahead=AHEAD,
        before=indented(before, 4),
        rounded=indented([f"{name} = T(opaque({name}))" for name in rounded], 4),
        dtype=formats.wide,
        types=", ".join([TYPES.format(kept=kept, dtype=formats.wide), *kinds, "types.boolean"]),
    )


def _wide(formats: Formats) -> str:
    """The type in which gradients are merged, in the text."""
    return "T" if formats.wide == formats.compute else "D"


def update(rule: Rule, run: Run, coefficients: Mapping[str, str] | None = None) -> list[str]:
    """The update of the row with number ``row`` by its gradient ``total``.

    ``coefficients`` says what stands for those of the step at hand.
    """
    known = coefficients or {}
    lines = []
    parts = {}
    for one in run.arguments:
        for name, (part, _) in zip(one.arrays, one.format.parts, strict=True):
            last = f"{name}.shape[1]" if part == "scale" else "width"
            parts[name] = f"part({name}, row, 0, {last})"
    parts |= {f"{name}_": f"{name}_[row]" for name in rule.row_states}
    parts[f"{rule.gradient}_"] = "total"
    if rule.squared is not None:
        arrays = ", ".join([*(parts[name] for name in run.arguments[0].arrays), "total"])
        names = (*rule.squared_coefficients, *run.wide)
        numbers = "".join(f"{known.get(name, name)}, " for name in names).rstrip()
        sums = f"part(partial, k, 0, {SUMS})"
        lines.append(f"mean_square = T(row_squares(({arrays}), ({numbers}), {sums}) / width)")
    if run.formats.random:
        lines.append("begin = (row if origin.size == 0 else np.intp(origin[row])) * width")
    scalars = [known.get(name, name) for name in run.scalars]
    call = f"span({', '.join([*parts.values(), *scalars, *run.after])})"
    results = "".join(f"{name}_[row], " for name in rule.row_states).rstrip(", ")
    return [*lines, f"{results} = {call}" if results else call]


def run_of(rule: Rule, formats: Formats) -> Run:
    """The update of a row, whose gradient has been read before: it has the type of sums."""
    return Run(rule, formats._replace(gradient=PLAIN[formats.wide]), rule.row_states)


def _squared_value(rule: Rule, formats: Formats) -> str:
    """The expression that a row-wise rule squares and averages."""
    if rule.squared is None:
        return ""
    run = run_of(rule, formats)
    parameter, gradient = run.arguments[:2]
    arrays = [*parameter.arrays, *gradient.arrays]
    coefficients = rule.squared_coefficients
    scalars = [*coefficients, *run.wide]
    numbers = [
        argument.load(formats.compute, [f"{name}[i]" for name in argument.arrays])
        for argument in (parameter, gradient)
    ]
    unpacked = f"    {', '.join(scalars)}, = scalars\n" if scalars else ""
    return f"""{generate.rule_function(rule.squared, run.formats)}


@njit(**OPTIONS)
def squared_value(i, arrays, scalars):
    {", ".join(arrays)} = arrays
{unpacked}    return {rule.squared.symbol}({", ".join([*numbers, *coefficients])})
"""
