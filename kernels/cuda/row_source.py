"""The CUDA kernels for rows, from the text of `row_text`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..catchup.plan import Missed
from ..formats import BLOCK, Format, Formats, Named, load, needed
from ..language.emit import indented
from ..language.rule import Rule
from ..numerics.scalar_layout import SCALE, SKIP
from ..numerics.summation import SUMS
from . import generate
from .generate import TYPES
from .missed_source import ARGUMENTS, MissedText, following, replaying
from .missed_text import READ
from .multi_tensor import ACCESS
from .row_text import (
    BLOCKS,
    ELEMENTS,
    FREQUENT,
    HELPERS,
    KEYS,
    MEAN_SQUARE,
    ROW_SQUARES,
    ROW_STATES,
    ROWS,
    UPDATE,
)
from .run_source import Run

WARP = 32
"""Most lanes that share a row."""

OFTEN = 128
"""A row that occurs twice as often is a frequent one, and has its sum taken by many threads."""


class Form(NamedTuple):
    """What a kernel is compiled for."""

    elements: int
    """Of one access: 16 bytes where every row begins on a multiple of them, else one."""
    lanes: int
    strided: bool
    """Whether rows have gaps, or lie in another order than C's."""


def form(width: int, elements: int, strided: bool) -> Form:
    """With as many lanes as a row has accesses, up to a warp."""
    accesses = -(-width // elements)
    return Form(elements, min(WARP, 1 << (accesses - 1).bit_length()), strided)


def keys_source(index: np.dtype) -> str:
    """The kernel that checks row numbers and makes keys of them."""
    return KEYS % {"index": TYPES[str(index)]}


def frequent_source(compute: str, form: Format) -> str:
    """The kernel that sums the gradients of frequent rows."""
    return _preamble(compute, form) + FREQUENT % _types(compute, form)


def squares_source(compute: str, form: Format, of: Form) -> str:
    """The kernel that sums the squares of each row's gradient."""
    kinds = {"elements": of.elements, "lanes": of.lanes, "scale": SCALE}
    return _preamble(compute, form) + ROW_SQUARES % (_types(compute, form) | kinds)


def _preamble(compute: str, form: Format) -> str:
    return generate.PREAMBLE + generate.codecs(needed(form.conversions)) + helpers(compute, form)


def helpers(compute: str, form: Format, wide: str | None = None) -> str:
    """What all kernels share, for gradients of a format; they are merged in the ``wide`` type."""
    wide = wide or compute
    return generate.PLACE + HELPERS % {
        "sums": SUMS,
        "often": OFTEN,
        "load": load(form, wide, ["x"]),
        **_types(compute, form, wide),
    }  # fmt: skip


def _types(compute: str, form: Format, wide: str | None = None) -> dict[str, str]:
    """Names of types; of merged gradients "T" and "F" if it is that of the arithmetic."""
    ((_, kept),) = form.parts
    same = wide in (None, compute)
    return {
        "type": TYPES[compute],
        "kept": TYPES[kept],
        "summed": TYPES[wide or compute],
        "wide": "T" if same else "D",
        "held": "F" if same else TYPES[wide or compute],
    }


def source(
    rule: Rule,
    formats: Formats,
    of: Form | None = None,
    exact: bool = False,
    followed: Missed | None = None,
) -> str:
    """The kernel of a rule as CuPy receives it; by default for wide rows without gaps.

    Of ``exact`` rows the missed steps are ``followed``, or replayed.
    """
    of = of or Form(ACCESS // formats.itemsize, WARP, False)
    run, gradient = Run(rule, formats), f"{rule.gradient}_"
    types = run.types(run.updated)
    wide = [one for one in run.updated if one.name not in rule.row_states]
    names = list(types)

    def place(name: str, j: str) -> str:
        if not of.strided:
            return f"{name}[row * width + {j}]"
        return f"{name}[place(layout + 1 + {names.index(name)} * layout[0], row, {j})]"

    row = {n: place(f"{n}_", "0") if of.strided else f"{n}_[row]" for n in rule.row_states}
    mean = ["mean_square"] * (rule.squared is not None)
    old = [f"{n}_n = {n}_o;" for n in rule.row_states]
    kinds = _types(formats.compute, formats.gradient, formats.wide)
    arguments = [f"const {kinds['kept']} *__restrict__ {gradient}"]
    arguments += [f"{kind} *{name}" for name, kind in types.items()]
    arguments += ["long long key"] * formats.random
    if formats.block:
        body = BLOCKS % {
            "shared": BLOCK,
            "update": run.block(
                run.gradient("row_gradient.at<1>(column + i).at[0]"),
                old,
                mean,
                rule.row_states,
                (lambda name, i: place(name, f"column + {i}")) if of.strided else None,
            ),
        }
    else:
        body = _elements(run, types, wide, place, old, mean)

    def update(step: str) -> str:
        return UPDATE % {
            "mean_square": _mean_square(run, lambda name: place(name, "j")),
            "row_states": indented((f"T {n}_n, {n}_o = here ? {row[n]} : 0;" for n in row), 4),
            "keys": run.keys("key", step),
            "run": body,
            "after": ROW_STATES % indented((f"{row[n]} = {n}_n.value;" for n in row), 8)
            if row
            else "",
        }

    missed = MissedText("", "")
    if exact:
        arguments += [*ARGUMENTS, f"{types[names[0]]} *out"]
        missed = following(run, followed) if followed else replaying(run, update("past"))
        read = READ % {"parameter": names[0]}
        missed = missed._replace(catch_up=missed.catch_up + read)
    return (
        generate.PREAMBLE
        + run.head
        + (generate.function(rule.squared, formats) if rule.squared else "")
        + "\n"
        + helpers(formats.compute, formats.gradient, formats.wide)
        + missed.helpers
        + ROWS
        % {
            **kinds,
            "name": f"gpuadapt_{rule.name}_rows",
            "elements": of.elements,
            "lanes": of.lanes,
            "skip": SKIP,
            "scale": SCALE,
            "coefficients": generate.coefficients(rule, "first", TYPES[formats.compute], run.wide),
            "gradient": gradient,
            "arguments": ", ".join(["const long long *layout"] * of.strided + arguments),
            "missed": missed.catch_up,
            "counted": " && reading == 0" * exact,
            "update": update(f"numbers[first + {len(rule.coefficients)}]"),
        }
    )


def _elements(
    run: Run,
    types: dict[str, str],
    wide: Sequence[Named],
    place: Callable[[str, str], str],
    old: Sequence[str],
    mean: Sequence[str],
) -> str:
    """The loop over a row whose elements share nothing."""

    def at(name: str) -> str:
        return f"{name}p.at[k]"

    arrays = [name for one in wide for name in one.arrays]
    kinds = {name: f"pack<{types[name]}, N>" for name in arrays}
    packs = {n: f"*reinterpret_cast<{kinds[n]} *>(&{place(n, 'j')})" for n in arrays}
    numbers = [f"T {run.arguments[1].name}_n = {run.gradient('gradients.at[k]')};"]
    return ELEMENTS % {
        "wide": "T" if run.formats.wide == run.compute else "D",
        "load": indented(
            (f"{kinds[n]} {n}p{f' = {packs[n]}' if n in run.read() else ''};" for n in arrays), 8
        ),
        "random": run.random("row * width + j + k"),
        "numbers": indented([*generate.loads(wide, run.compute, at), *numbers, *old], 12),
        "call": run.call(mean),
        "put": indented(generate.stores(wide, run.compute, at), 12),
        "store": indented((f"{packs[n]} = {n}p;" for n in arrays), 8),
    }


def _mean_square(run: Run, place: Callable[[str], str]) -> str:
    """The lines that compute a row's mean of squares, if the rule has one."""
    squared = run.rule.squared
    if squared is None:
        return ""
    parameter = run.arguments[0]
    return MEAN_SQUARE % {
        "parameter": parameter.load(run.compute, [place(name) for name in parameter.arrays]),
        "squared": squared.symbol,
        "given": ", ".join(
            ["x", run.gradient("row_gradient.at<1>(j).at[0]"), *run.rule.squared_coefficients]
        ),
    }
