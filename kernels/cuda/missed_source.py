"""The CUDA text of rows that make up for the steps that they have missed, from `missed_text`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..missed import FEW, FLAT, LEAST, SPAN, STRAIGHT, Missed, columns
from ..rule import Rule
from ..writer import indented
from . import text
from .missed_text import (
    CATCH_UP,
    FADE_ROW,
    FOLLOW,
    HELPERS,
    MOTION,
    NOTHING,
    REACH,
    REPLAY,
    RESTING,
)
from .run_source import Run

ARGUMENTS = (
    "int *last",
    "const double *__restrict__ history",
    "const double *__restrict__ fading",
    "long long ring",
    "const long long *__restrict__ now",
    "int reading",
)
"""As the CPU's; ``ring`` is how many steps are remembered, less one."""


class MissedText(NamedTuple):
    """What the kernel of rows has besides."""

    helpers: str
    """Functions, for after those of all kernels of rows."""
    catch_up: str
    """What it does once a row is known, before its gradient is looked at."""


def replaying(run: Run, body: str) -> MissedText:
    """Step by step; ``body`` is the update of a row, at the step ``past``."""
    coefficients = _coefficients(run.rule, 0, "past", 12, run.wide)
    kind = "T" if run.formats.wide == run.compute else "D"
    return MissedText(
        HELPERS % (NOTHING % {"wide": kind}), REPLAY % {"coefficients": coefficients, "body": body}
    )


def following(run: Run, followed: Missed) -> MissedText:
    """By motions and products; parameter and states are float32, and rows have no gaps."""
    rule = run.rule
    where, names = columns(rule, followed), _names(rule)
    wide = [name for name in (rule.parameter, *rule.states) if name not in rule.row_states]
    packs = {n: f"*reinterpret_cast<pack<T, N> *>(&{n}_[row * width + j])" for n in wide}
    load = indented((f"pack<T, N> {n}_w = {packs[n]};" for n in wide), 12)
    parameter, given = f"{rule.parameter}_w", ", ".join(names)
    moved, functions = followed.motion is not None, [text.function(of) for of in followed.rules]
    along, fades, write = list[str](), list[str](), list[str]()
    if moved:
        functions.append(_along(rule, followed))
        along.append(
            f"steps = along<N>({parameter}, {given}, steps, now, reach, history, fading, ring);"
        )
    if followed.rest is not None:
        numbers = ", ".join(["p", "T(0)", *followed.rest.coefficients])
        functions.append(
            RESTING
            % {
                "coefficients": _coefficients(followed.rest, where.rest),
                "call": f"{followed.rest.symbol}<T>({numbers});",
            }
        )
        along += ["for (; steps <= now; ++steps) {", "    for (int k = 0; k < N; ++k) {"]
        along += [f"        rest({parameter}.at[k], steps, history, ring);", "    }", "}"]
    # A state with one number for the row is the same for all elements: each has a copy.
    elements = [f"{parameter}.at[k]", run.gradient("T(0)")]
    copies = []
    for k, state in enumerate(rule.states):
        if state in rule.row_states:
            copies.append(f"pack<T, N> {state}_w;")
            copies.append(f"for (int k = 0; k < N; ++k) {{ {state}_w.at[k] = {state}_s; }}")
        elements.append(f"{state}_w.at[k]")
        if followed.changes(k) and state in rule.row_states:
            column = {"state": state, "few": FEW, "k": k, "column": where.fades + k}
            write += (FADE_ROW % column).split("\n")
        elif followed.changes(k):
            product = f"narrowed(at_step(fading, ring, {k}, before))"
            fades.append(f"{names[k]}.at[k] = {names[k]}.at[k] * {product};")
    elements += [*["T(0)"] * (rule.squared is not None), *rule.coefficients]
    arguments = [f"pack<T, N> &{parameter}"]
    arguments += [f"T {n}" if n.endswith("_s") else f"pack<T, N> &{n}" for n in names]
    ones = ", ".join([*names, *["T(1)"] * len(names)])
    catch_up = CATCH_UP % {
        "arguments": ", ".join(arguments),
        "reach": ", double reach" * moved,
        "few": FEW,
        "copies": indented(copies, 8),
        "coefficients": _coefficients(rule, 0, "steps", 12, run.wide),
        "step": f"{rule.symbol}<T>({', '.join(elements)});",
        "along": indented(along, 4),
        "fades": indented(fades, 8),
    }
    rows = [f"const T {n}_s = here ? T({n}_[row]) : T(0);" for n in rule.row_states]
    reach = REACH % {"span": SPAN, "load": load, "given": ones, "parameter": parameter}
    return MissedText(
        HELPERS % ("\n".join(functions) + catch_up),
        FOLLOW
        % {
            "row_states": indented(rows, 8),
            "reach": reach * moved,
            "load": load,
            "given": ", ".join([parameter, *names]),
            "reached": ", reach" * moved,
            "store": indented((f"{packs[n]} = {n}_w;" for n in wide), 12),
            "fade_rows": indented(write, 12),
        },
    )


def _names(rule: Rule) -> list[str]:
    """The states in functions: packs of elements, and numbers of the row."""
    return [f"{n}_s" if n in rule.row_states else f"{n}_w" for n in rule.states]


def _along(rule: Rule, followed: Missed) -> str:
    """The functions that take a parameter along its motions."""
    motion, move, where = followed.motion, followed.move, columns(rule, followed)
    assert motion is not None and move is not None
    names = _names(rule)
    given = [f"T {n}" if n.endswith("_s") else f"const pack<T, N> &{n}" for n in names]
    old = [n if n.endswith("_s") else f"{n}.at[k]" for n in names]
    shares = [f"{n}_share_" for n in rule.states]
    products = [f"{n}_product_" for n in rule.states]
    aged = [f"{share} * {of}" for share, of in zip(shares, old, strict=True)]
    fade = [
        f"{product} *= at_step(history, ring, {where.fades + k}, steps{{}});"
        for k, product in enumerate(products)
        if followed.changes(k)
    ]

    return MOTION % {
        "states": ", ".join(given),
        "shares": ", ".join(f"T {share}" for share in shares),
        "motion_coefficients": _coefficients(motion, where.motion),
        "motion": f"{motion.symbol}<T>({', '.join(['x.at[k]', *aged, *motion.coefficients])});",
        "move_coefficients": _coefficients(move, where.move),
        "move": f"{move.symbol}<T>({', '.join(['p', 'x', *move.coefficients])});",
        "ones": ", ".join(f"{product} = 1" for product in products),
        "given": ", ".join([*names, *(f"narrowed({product})" for product in products)]),
        "peak": len(rule.states) + 1,
        "least": repr(LEAST),
        "span": SPAN,
        "few": FEW,
        # Steps are counted before they are taken at once, and after that one by one.
        "fade_once": indented((line.format(" - 1") for line in fade), 12),
        "saved": ", ".join(f"{product}before = {product}" for product in products),
        "fade": indented((line.format(" + j") for line in fade), 12),
        "ratio": where.ratio,
        "lag": where.ratio + 1,
        "flat": repr(FLAT),
        "straight": repr(STRAIGHT),
        "restore": " ".join(f"{product} = {product}before;" for product in products),
    }


def _coefficients(
    of: Rule,
    first: int,
    step: str = "step",
    by: int = 4,
    wide: Mapping[str, int] | None = None,
) -> str:
    """Lines that read a rule's coefficients in a step, and some of them as they are."""
    lines = [
        f"const T {name} = narrowed(at_step(history, ring, {first + k}, {step}));"
        for k, name in enumerate(of.coefficients)
    ]
    lines += [
        f"const D {name} = at_step(history, ring, {first + k}, {step});"
        for name, k in (wide or {}).items()
    ]
    return indented(lines, by)
