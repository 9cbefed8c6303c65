"""The CPU kernels for rows that make up for the steps that they have missed."""

from __future__ import annotations

from collections.abc import Iterable

from ..formats import Formats
from ..missed import FEW, FLAT, LEAST, SPAN, STRAIGHT, Missed, columns
from ..rule import Rule
from ..writer import indented
from . import module, row_source
from .missed_text import (
    AROUND,
    FOLLOW,
    FUNCTIONS,
    MOTION,
    REACH,
    REPLAY,
    REST,
    SCALE,
    STEPS,
)
from .row_source import KEYS, MissedText

SHAPES = {"flat": "x[i] * ratio_{0}", "straight": "(x[i] + lag_{0} * d[i]) * ratio_{0}"}
"""Motions between two that are computed: what they are in a step."""

TOGETHER = 4
"""Steps that are taken at once while an element is in a register."""

ARGUMENTS = {
    "last": "types.Array(types.int32, 1, 'C')",
    "history": "types.Array(types.{compute}, 2, 'C')",
    "paces": "types.Array(types.float64, 2, 'C')",
    "fading": "types.Array(types.float64, 2, 'C')",
    "now": "types.int64",
    "nothing": "types.Array(types.{wide}, 2, 'C', readonly=True)",
    "reading": "types.boolean",
    "out": "types.Array(types.{kept}, 2, 'C')",
}
"""Of each row the last step that it has had; the steps' numbers, paces, and products of these, in
rings; how many steps there were; a gradient of zeros; whether rows are only read, and where to."""


def source(rule: Rule, formats: Formats, followed: Missed | None) -> str:
    """As `row_source.source`, of exact rows."""
    text, catch_up = _following(rule, formats, followed) if followed else _replaying(rule, formats)
    ((_, kept), *_) = formats.parameter.parts
    types = {"compute": formats.compute, "wide": formats.wide, "kept": kept}

    def around(lines: list[str]) -> list[str]:
        filled = AROUND.format(
            catch_up=catch_up, parameter=f"{rule.parameter}_", update=indented(lines, 4)
        )
        return filled.split("\n")

    most = max((len(of.coefficients) for of in followed.rules), default=0) if followed else 0
    before = ["ring = np.uint64(history.shape[0] - 1)"]
    if followed and followed.rules:
        before.append(f"numbers = np.empty((1, {(2 + most) * SPAN}), T)")
    if followed and followed.motion:
        room = f"np.empty((4, {rule.gradient}_.shape[1]), T)"
        before.append(f"rooms, lags = {room}, np.empty({SPAN}, D)")
    return row_source.source(
        rule,
        formats,
        MissedText(
            text, list(ARGUMENTS), [kind.format(**types) for kind in ARGUMENTS.values()], before,
            around,
        ),
    )  # fmt: skip


def _past(rule: Rule, first: int) -> dict[str, str]:
    """What a rule's coefficients are in the step ``past`` of the history."""
    return {name: f"history[past, {first + k}]" for k, name in enumerate(rule.coefficients)}


def _replaying(rule: Rule, formats: Formats) -> tuple[str, str]:
    """Functions, and the lines that bring a row up to date, step by step."""
    return "", "\n".join([REPLAY.format(lines=indented(_replayed(rule, formats), 4)),
                          *[KEYS] * formats.random])  # fmt: skip


def _replayed(rule: Rule, formats: Formats) -> list[str]:
    """Lines that take a step of the past, by the rule itself."""
    run = row_source.run_of(rule, formats)
    again = [KEYS.replace("step", "steps")] * formats.random
    past = _past(rule, 0)
    past |= {name: f"D(history[past, {k}])" for name, k in run.wide.items()}
    return [*again, *row_source.update(rule, run, past)]


def _following(rule: Rule, formats: Formats, followed: Missed) -> tuple[str, str]:
    """As `_replaying`, by motions and products."""
    row = {name: f"part({name}_, row, 0, width)" for name in (rule.parameter, *rule.states)}
    row |= {name: f"{name}_[row]" for name in rule.row_states}
    where = columns(rule, followed)
    text, motion, rest = SCALE, "", ""
    if followed.motion is not None and followed.move is not None:
        text += _functions(rule, followed)
        motion = _motion(rule, followed, row)
    if followed.rest is not None:
        text += module.function(followed.rest)
        text += _steps("rest", "", followed.rest, "T(0)", 0)
        rest = REST.format(
            p=row[rule.parameter],
            span=SPAN,
            fill=indented(_fill(followed.rest, 0, where.rest) or ["pass"], 8),
        )
    catch_up = FOLLOW.format(
        few=FEW,
        step=indented(_replayed(rule, formats), 12),
        motion=_block(motion),
        rest=_block(rest),
        fades=indented(_fades(rule, followed, row) or ["pass"], 8),
    )
    return text, catch_up


def _fades(rule: Rule, followed: Missed, row: dict[str, str]) -> list[str]:
    """Lines that multiply states by what becomes of them in all steps since."""
    lines = []
    for k, state in enumerate(rule.states):
        product = f"T(fading[{k}, since])"
        if followed.changes(k) and state in rule.row_states:
            lines.append(f"{row[state]} *= {product}")
        elif followed.changes(k):
            lines.append(f"fade({row[state]}, {product})")
    return lines


def _block(text: str) -> str:
    return indented(text.rstrip().split("\n"), 8) + "\n" if text else ""


def _after(arguments: Iterable[str]) -> str:
    """Arguments that come after others."""
    return "".join(f", {one}" for one in arguments)


def _steps(name: str, given: str, rule: Rule, motion: str, first: int) -> str:
    """A function that takes some steps by a rule, whose coefficients are from ``first`` on."""
    inside = {"ratio": 0, "lag": 1} if first else {}
    at = {**inside, **{of: first + k for k, of in enumerate(rule.coefficients)}}

    def read(k: str, j: str) -> list[str]:
        return [f"{of}_{k} = numbers[{place * SPAN} + {j}]" for of, place in at.items()]

    def line(k: str) -> str:
        coefficients = [f"{of}_{k}" for of in rule.coefficients]
        return f"q = {rule.symbol}({', '.join(['q', motion.format(k), *coefficients])})"

    some = range(TOGETHER)
    return STEPS.format(
        name=name,
        given=given,
        together=TOGETHER,
        read_some=indented((text for k in some for text in read(f"{k}", f"done + {k}")), 8),
        lines=indented((line(f"{k}") for k in some), 12),
        read=indented(read("0", "done"), 8),
        line=indented([line("0")], 12),
    )


def _fill(rule: Rule, first: int, column: int) -> list[str]:
    """Lines that copy a rule's coefficients in step j to where `_steps` has them."""
    return [
        f"numbers[0, {(first + k) * SPAN} + j] = {number}"
        for k, number in enumerate(_past(rule, column).values())
    ]


def _functions(rule: Rule, followed: Missed) -> str:
    """Loops over the elements of a row."""
    motion, move = followed.motion, followed.move
    assert motion is not None and move is not None
    shares = [f"_share{k}" for k in range(len(rule.states))]
    old = [f"{state}_" if state in rule.row_states else f"{state}_[i]" for state in rule.states]
    aged = [f"{share} * {of}" for share, of in zip(shares, old, strict=True)]
    numbers = _after(move.coefficients)

    def moved(x: str) -> str:
        return f"{move.symbol}(p[i], {x}{numbers})"

    text = FUNCTIONS.format(
        reach=REACH,
        given=", ".join([*(f"{state}_" for state in rule.states), *shares, *motion.coefficients]),
        motion=motion.symbol,
        states=", ".join([*aged, *motion.coefficients]),
        numbers=numbers,
        gone=moved("x[i]"),
        flat=repr(FLAT),
        straight=repr(STRAIGHT),
    )
    for shape, x in SHAPES.items():
        text += _steps(f"follow_{shape}", "x, d, ", move, x, 2)
    return f"{module.function(motion)}\n{module.function(move)}\n{text}"


def _motion(rule: Rule, followed: Missed, row: dict[str, str]) -> str:
    """The lines that take a parameter along its motions."""
    motion, move = followed.motion, followed.move
    assert motion is not None and move is not None
    where = columns(rule, followed)
    states = [row[state] for state in rule.states]
    coefficients = list(_past(motion, where.motion).values())
    products = [f"_product{k}" for k in range(len(rule.states))]
    fades = [
        f"{product} *= paces[{k}, at]" for k, product in enumerate(products) if followed.changes(k)
    ]
    here = list(_past(move, where.move).values())
    rooms = {"x": "turn", "y": "1 - turn", "d": 2, "z": 3}
    given = {name: f"part(rooms, {at}, 0, width)" for name, at in rooms.items()}
    given |= {"p": row[rule.parameter], "here": _after(here)}
    fill = [
        line.replace("past", "np.uint64(steps + j) & ring") for line in _fill(move, 2, where.move)
    ]
    return MOTION.format(
        **given,
        fill=indented(fill, 8),
        ones=" = ".join([*products, "1.0"]),
        at_past=", ".join([*states, *(f"T({name})" for name in products), *coefficients]),
        peak=len(rule.states) + 1,
        span=SPAN,
        least=repr(LEAST),
        few=FEW,
        fades=indented(fades, 8),
        again=indented(fades, 12),
        saved=", ".join(f"{product}_before" for product in products),
        products=", ".join(products),
        ratio=len(rule.states),
        lag=len(rule.states) + 1,
    )
