"""The CPU kernels for rows that make up for the steps that they have missed."""

from __future__ import annotations

from ..catchup.plan import (
    LINEAR,
    MAX_GROWTH,
    MAX_INTERVAL,
    MAX_REMAINING,
    MAX_REPLAY,
    MIN_PRODUCT,
    NEGLIGIBLE,
    SMALLEST_NORMAL,
    STOP,
    CatchUpPlan,
    history_layout,
)
from ..formats import Formats
from ..language.emit import indented
from ..language.rule import Rule
from . import generate
from .generate import RANDOM_KEYS, CatchUp, RowUpdate
from .missed_text import (
    AROUND,
    FADE,
    FOLLOW,
    FUNCTIONS,
    MOTION,
    REACH,
    REPLAY,
    REST,
    SETTLE,
    STEPS,
)

SHAPES = {"flat": "x[i] * ratio_{0}", "straight": "(x[i] + lag_{0} * d[i]) * ratio_{0}"}
"""Motions between two that are computed: what they are in a step."""

TOGETHER = 4
"""Steps that are taken at once while an element is in a register."""

ARGUMENTS = {
    "last": "types.Array(types.int32, 1, 'C')",
    "history": "types.Array(types.{compute}, 2, 'C')",
    "factors": "types.Array(types.float64, 2, 'C')",
    "products": "types.Array(types.float64, 2, 'C')",
    "ends": "types.Array(types.int64, 1, 'C')",
    "now": "types.int64",
    "nothing": "types.Array(types.{wide}, 2, 'C', readonly=True)",
    "reading": "types.boolean",
    "out": "types.Array(types.{kept}, 2, 'C')",
}
"""Of each row the last step that it has had; the steps' numbers, paces, products of these, and ends
of stretches, in rings; how many steps there were; a gradient of zeros; whether rows are only read,
and where to."""


def source(rule: Rule, formats: Formats, catch_up: CatchUpPlan | None) -> str:
    """Return the module of exact rows."""
    text, lines_of_row = (
        _following(rule, formats, catch_up) if catch_up else _replaying(rule, formats)
    )
    ((_, kept), *_) = formats.parameter.parts
    types = {"compute": formats.compute, "wide": formats.wide, "kept": kept}

    def around(lines: list[str]) -> list[str]:
        filled = AROUND.format(
            catch_up=lines_of_row, parameter=f"{rule.parameter}_", update=indented(lines, 4)
        )
        return filled.split("\n")

    largest = max((len(part.coefficients) for part in catch_up.rules), default=0) if catch_up else 0
    local = {"ring": "np.uint64(history.shape[0] - 1)"}
    if catch_up and catch_up.rules:
        local["numbers"] = f"np.empty((1, {(2 + largest) * MAX_INTERVAL}), T)"
    if catch_up and catch_up.displacement:
        local["rooms"] = "np.empty((3, nothing.shape[1]), T)"
        local["lags"] = f"np.empty({MAX_INTERVAL}, D)"
    arguments = {name: kind.format(**types) for name, kind in ARGUMENTS.items()}
    return generate.rows(rule, formats, CatchUp(text, arguments, local, around))


def _past(rule: Rule, first: int) -> dict[str, str]:
    """What a rule's coefficients are in the step ``past`` of the history."""
    return {name: f"history[past, {first + k}]" for k, name in enumerate(rule.coefficients)}


def _replaying(rule: Rule, formats: Formats) -> tuple[str, str]:
    """Functions, and the lines that bring a row up to date, step by step."""
    return "", "\n".join([REPLAY.format(
        gradient=f"{rule.gradient}_", lines=indented(_replayed(rule, formats), 4)
    ),
                          *[RANDOM_KEYS] * formats.random])  # fmt: skip


def _replayed(rule: Rule, formats: Formats) -> list[str]:
    """Lines that take a step of the past, by the rule itself."""
    update = RowUpdate(rule, formats)
    past = _past(rule, 0)
    past |= {name: f"D(history[past, {k}])" for name, k in update.elements.wide.items()}
    keys = [RANDOM_KEYS.replace("step", "steps")] * formats.random
    return [*keys, *update.lines(past)]


def _following(rule: Rule, formats: Formats, catch_up: CatchUpPlan) -> tuple[str, str]:
    """As `_replaying`, by motions and products."""
    row = {name: f"part({name}_, row, 0, width)" for name in (rule.parameter, *rule.states)}
    row |= {name: f"{name}_[row]" for name in rule.row_states}
    text, rest = FADE.format(tiny=repr(SMALLEST_NORMAL)) if rule.states else "", ""
    if catch_up.decay_only is not None:
        text += generate.rule_function(catch_up.decay_only)
        text += _steps("rest", "", catch_up.decay_only, "T(0)", 0)
        rest = REST.format(
            p=row[rule.parameter],
            span=MAX_INTERVAL,
            fill=_block(
                _fill(catch_up.decay_only, 0, history_layout(rule, catch_up).decay_only), 8
            ),
        )
    whole = [f"products[{k}, since]" for k in range(len(rule.states))]
    follow = SETTLE.format(rest=rest, fades=_fades(rule, catch_up, row, whole))
    if catch_up.displacement is not None:
        text += _functions(rule, catch_up)
        follow = _motion(rule, catch_up, row, follow)
    return text, FOLLOW.format(
        gradient=f"{rule.gradient}_",
        few=MAX_REPLAY,
        follow=_block(follow.rstrip().split("\n"), 8),
        step=indented(_replayed(rule, formats), 8),
    )


def _fades(rule: Rule, catch_up: CatchUpPlan, row: dict[str, str], products: list[str]) -> str:
    """Lines that multiply states by what becomes of them in some steps."""
    lines = []
    for k, (state, product) in enumerate(zip(rule.states, products, strict=True)):
        if catch_up.decays(k) and state in rule.row_states:
            lines.append(f"{row[state]} = faded({row[state]}, {product})")
        elif catch_up.decays(k):
            lines.append(f"fade({row[state]}, {product})")
    return "\n".join(lines or ["pass"])


def _block(lines: list[str], by: int) -> str:
    """Lines within others; there has to be one."""
    return indented(lines or ["pass"], by)


def _steps(name: str, given: str, rule: Rule, motion: str, first: int) -> str:
    """A function that takes some steps by a rule, whose coefficients are from ``first`` on."""
    inside = {"ratio": 0, "lag": 1} if first else {}
    at = {**inside, **{of: first + k for k, of in enumerate(rule.coefficients)}}

    def read(k: str, j: str) -> list[str]:
        return [f"{of}_{k} = numbers[{place * MAX_INTERVAL} + {j}]" for of, place in at.items()]

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
        f"numbers[0, {(first + k) * MAX_INTERVAL} + j] = {number}"
        for k, number in enumerate(_past(rule, column).values())
    ]


def _functions(rule: Rule, catch_up: CatchUpPlan) -> str:
    """Loops over the elements of a row."""
    motion, move = catch_up.displacement, catch_up.apply
    assert motion is not None and move is not None
    shares = [f"_share{k}" for k in range(len(rule.states))]
    old = [f"_old{k}" for k in range(len(rule.states))]
    now = [f"{state}_" if state in rule.row_states else f"{state}_[i]" for state in rule.states]
    aged = [f"{share} * {of}" for share, of in zip(shares, now, strict=True)]
    text = FUNCTIONS.format(
        reach=REACH,
        given=", ".join([*(f"{state}_" for state in rule.states), *shares, *motion.coefficients]),
        motion=motion.symbol,
        states=", ".join([*aged, *motion.coefficients]),
        aged=_block([f"{name} = {of}" for name, of in zip(old, aged, strict=True)], 8),
        old=", ".join([*old, *motion.coefficients]),
        lost="".join(
            f" | ((np.abs({name}) < T({SMALLEST_NORMAL!r})) & ({name} != T(0)))" for name in old
        ),
        flat=repr(NEGLIGIBLE),
        straight=repr(LINEAR),
        faint=repr(MIN_PRODUCT),
    )
    for shape, x in SHAPES.items():
        text += _steps(f"follow_{shape}", "x, d, ", move, x, 2)
    return f"{generate.rule_function(motion)}\n{generate.rule_function(move)}\n{text}"


def _motion(rule: Rule, catch_up: CatchUpPlan, row: dict[str, str], settle: str) -> str:
    """The lines that take a parameter along its motions."""
    motion, move = catch_up.displacement, catch_up.apply
    assert motion is not None and move is not None
    where, count = history_layout(rule, catch_up), len(rule.states)
    states = [row[state] for state in rule.states]
    products = [f"_product{k}" for k in range(count)]
    fades = [
        f"{product} *= factors[{k}, at]" for k, product in enumerate(products) if catch_up.decays(k)
    ]
    rooms = {"x": "turn", "y": "1 - turn", "d": 2}
    given = {name: f"part(rooms, {at}, 0, width)" for name, at in rooms.items()}
    fill = [
        line.replace("past", "np.uint64(steps + 1 + j) & ring")
        for line in _fill(move, 2, where.apply)
    ]
    past = _past(motion, where.displacement).values()
    return MOTION.format(
        **given,
        p=row[rule.parameter],
        ones=" = ".join([*products, "1.0"]),
        at_past=", ".join([*states, *(f"T({name})" for name in products), *past]),
        span=MAX_INTERVAL,
        few=MAX_REPLAY,
        least=repr(STOP),
        long=repr(MAX_REMAINING),
        faint=repr(MIN_PRODUCT),
        vast=repr(MAX_GROWTH),
        settle=_block(settle.rstrip().split("\n"), 4),
        sum=count + 1,
        ratio=count,
        lag=count + 1,
        saved=", ".join(f"{product}before" for product in products),
        products=", ".join(products),
        fades=_block(fades, 8),
        fill=_block(fill, 8),
        faded=_block(_fades(rule, catch_up, row, products).split("\n"), 4),
    )
