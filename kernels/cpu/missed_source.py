"""The CPU kernels for rows that make up for the steps that they have missed."""

from __future__ import annotations

from collections.abc import Iterable

from ..formats import Formats
from ..missed import FEW, FLAT, LEAST, SPAN, STRAIGHT, Missed, columns
from ..rule import Rule
from ..writer import indented
from . import module, row_source
from .missed_text import (
    ALONG,
    AROUND,
    FOLLOW,
    FOLLOWING,
    FUNCTIONS,
    MOTION,
    REACH,
    REPLAY,
    REST,
    RESTING,
    SCALE,
)
from .row_source import KEYS, MissedText

LARGEST = {
    # By their bits: vectors have no largest float but one that treats NaN in its own way.
    "float32": {
        "least": "U(0)",
        "larger": "bits(share) if bits(share) > reach else reach",
        "reach": "real(reach)",
    },
    "float64": {
        "least": "T(0)",
        "larger": "share if share > reach else reach",
        "reach": "reach",
    },
}
"""The largest of numbers that are not negative."""

SHAPES = {
    "flat": ("x[i] * ratio{0}", {"ratio": "ratios"}),
    "straight": ("(x[i] + lag{0} * d[i]) * ratio{0}", {"lag": "shares", "ratio": "ratios"}),
}
"""Motions between two that are computed: what they are in a step, from numbers in arrays."""

TOGETHER = 4
"""Steps that are taken at once while an element is in a register."""

ARGUMENTS = {
    "last": "types.Array(types.int32, 1, 'C')",
    "history": "types.Array(types.float64, 2, 'C')",
    "fading": "types.Array(types.float64, 2, 'C')",
    "now": "types.int64",
    "nothing": "types.Array(types.{compute}, 2, 'C', readonly=True)",
    "reading": "types.boolean",
    "out": "types.Array(types.{kept}, 2, 'C')",
}
"""Of each row the last step that it has had; the steps' numbers, and products of them, in rings;
how many steps there were; a gradient of zeros; whether rows are only read, and where to."""


def source(rule: Rule, formats: Formats, followed: Missed | None) -> str:
    """As `row_source.source`, of exact rows."""
    text, catch_up = _following(rule, formats, followed) if followed else _replaying(rule, formats)
    ((_, kept), *_) = formats.parameter.parts
    types = {"compute": formats.compute, "kept": kept}

    def around(lines: list[str]) -> list[str]:
        filled = AROUND.format(
            catch_up=catch_up, parameter=f"{rule.parameter}_", update=indented(lines, 4)
        )
        return filled.split("\n")

    before = ["ring = np.uint64(history.shape[1] - 1)"]
    if followed and followed.motion:
        before += [
            f"rooms, ratios = np.empty((4, {rule.gradient}_.shape[1]), T), np.empty({SPAN}, T)",
            f"lags, shares = np.empty({SPAN}, D), np.empty({SPAN}, T)",
        ]
    return row_source.source(
        rule,
        formats,
        MissedText(
            text, list(ARGUMENTS), [kind.format(**types) for kind in ARGUMENTS.values()], before,
            around,
        ),
    )  # fmt: skip


def _past(rule: Rule, first: int, past: str = "past") -> dict[str, str]:
    """What a rule's coefficients are in the step ``past`` of the history."""
    return {name: f"T(history[{first + k}, {past}])" for k, name in enumerate(rule.coefficients)}


def _replaying(rule: Rule, formats: Formats) -> tuple[str, str]:
    """Functions, and the lines that bring a row up to date, step by step."""
    return "", "\n".join([REPLAY.format(lines=indented(_replayed(rule, formats), 4)),
                          *[KEYS] * formats.random])  # fmt: skip


def _replayed(rule: Rule, formats: Formats) -> list[str]:
    """Lines that take a step of the past, by the rule itself."""
    run = row_source.run_of(rule, formats)
    again = [KEYS.replace("step", "steps")] * formats.random
    return [*again, *row_source.update(rule, run, _past(rule, 0))]


def _following(rule: Rule, formats: Formats, followed: Missed) -> tuple[str, str]:
    """As `_replaying`, by motions and products."""
    row = {name: f"part({name}_, row, 0, width)" for name in (rule.parameter, *rule.states)}
    row |= {name: f"{name}_[row]" for name in rule.row_states}
    where = columns(rule, followed)
    text, motion, rest = SCALE, "", ""
    if followed.motion is not None and followed.move is not None:
        text += _functions(rule, formats, followed)
        motion = _motion(rule, formats, followed, row)
    if followed.rest is not None:
        text += _resting(followed.rest)
        here = list(_past(followed.rest, where.rest).values())
        rest = REST.format(
            p=row[rule.parameter],
            together=TOGETHER,
            here=_after(here),
            at_once=_after(at for k in range(TOGETHER) for at in _later(here, f"steps + {k}")),
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


def _later(numbers: Iterable[str], step: str) -> list[str]:
    """Numbers of ``past`` as those of another step."""
    return [number.replace("past", f"np.uint64({step}) & ring") for number in numbers]


def _resting(rest: Rule) -> str:
    """Loops over a parameter that has no motion."""
    every = [f"{name}_{k}" for k in range(TOGETHER) for name in rest.coefficients]
    lines = []
    for k in range(TOGETHER):
        names = [f"{name}_{k}" for name in rest.coefficients]
        lines.append(f"q = {rest.symbol}({', '.join(['q', 'T(0)', *names])})")
    return module.function(rest) + RESTING.format(
        numbers=_after(rest.coefficients),
        rested=f"{rest.symbol}({', '.join(['p[i]', 'T(0)', *rest.coefficients])})",
        every=_after(every),
        lines=indented(lines, 8),
    )


def _functions(rule: Rule, formats: Formats, followed: Missed) -> str:
    """Loops over the elements of a row."""
    motion, move = followed.motion, followed.move
    assert motion is not None and move is not None
    shares = [f"{state}_share_" for state in rule.states]
    old = [f"{state}_" if state in rule.row_states else f"{state}_[i]" for state in rule.states]
    aged = [f"{share} * {of}" for share, of in zip(shares, old, strict=True)]
    numbers = _after(move.coefficients)

    def moved(x: str) -> str:
        return f"{move.symbol}(p[i], {x}{numbers})"

    text = FUNCTIONS.format(
        reach=REACH.format(**LARGEST[formats.compute]),
        given=", ".join([*(f"{state}_" for state in rule.states), *shares, *motion.coefficients]),
        motion=motion.symbol,
        states=", ".join([*aged, *motion.coefficients]),
        numbers=numbers,
        gone=moved("x[i]"),
        flat=repr(FLAT[formats.compute]),
        straight=repr(STRAIGHT[formats.compute]),
    )
    for shape, (x, scalars) in SHAPES.items():
        every, lines = [], []
        for k in range(TOGETHER):
            names = [f"{name}_{k}" for name in move.coefficients]
            lines.append(f"q = {move.symbol}({', '.join(['q', x.format(k), *names])})")
            every += [*(f"{name}{k}" for name in scalars), *names]
        text += FOLLOWING.format(
            shape=shape,
            scalars=", ".join(scalars),
            numbers=numbers,
            followed=moved(x.format("")),
            every=", ".join(every),
            lines=indented(lines, 8),
        )
    return f"{module.function(motion)}\n{module.function(move)}\n{text}"


def _motion(rule: Rule, formats: Formats, followed: Missed, row: dict[str, str]) -> str:
    """The lines that take a parameter along its motions."""
    motion, move = followed.motion, followed.move
    assert motion is not None and move is not None
    where = columns(rule, followed)
    states = [row[state] for state in rule.states]
    coefficients = list(_past(motion, where.motion).values())
    products = [f"{state}_product_" for state in rule.states]
    fades = [
        f"{product} *= history[{where.fades + k}, past]"
        for k, product in enumerate(products)
        if followed.changes(k)
    ]
    here = list(_past(move, where.move).values())
    rooms = {"x": "turn", "y": "1 - turn", "d": 2, "z": 3}
    given = {name: f"part(rooms, {at}, 0, width)" for name, at in rooms.items()}
    given |= {"p": row[rule.parameter], "here": _after(here)}
    ways = {}
    for shape, (_, scalars) in SHAPES.items():
        at_once = []
        for k in range(TOGETHER):
            at_once += [f"{array}[j + {k}]" for array in scalars.values()]
            at_once += _later(here, f"steps + j + {k}")
        way = ALONG.format(
            shape=shape,
            together=TOGETHER,
            at_once=", ".join(at_once),
            at_j=", ".join(f"{array}[j]" for array in scalars.values()),
            **given,
        )
        ways[shape] = indented(way.split("\n"), 8)
    return MOTION.format(
        **given,
        **ways,
        ones=" = ".join([*products, "1.0"]),
        at_past=", ".join([*states, *(f"T({name})" for name in products), *coefficients]),
        peak=len(rule.states) + 1,
        span=SPAN,
        least=repr(LEAST[formats.compute]),
        few=FEW,
        fades=indented(fades, 8),
        again=indented(fades, 12),
        saved=", ".join(f"{product}before_" for product in products),
        products=", ".join(products),
        ratio=where.ratio,
        lag=where.ratio + 1,
    )
