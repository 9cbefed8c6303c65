"""The CUDA text of rows that make up for the steps that they have missed, from `missed_text`."""

from __future__ import annotations

from collections.abc import Mapping

from ..catchup.plan import (
    FAINT,
    FEW,
    FLAT,
    LEAST,
    LONG,
    SPAN,
    STRAIGHT,
    TINY,
    VAST,
    Missed,
    columns,
)
from ..language.emit import indented
from ..language.rule import Rule
from . import generate
from .generate import Run, namespace
from .missed_text import (
    ALONG,
    CATCH_UP,
    DECIDE,
    FADE,
    FADE_ROW,
    FOLLOW,
    GOING,
    MOTION,
    REACH,
    REST,
    RESTING,
    SETTLE,
    SHAPE,
)


def following(run: Run, followed: Missed) -> str:
    """By motions and products; parameter and states are float32, and rows have no gaps."""
    rule = run.rule
    names, parameter = _names(rule), f"{rule.parameter}_w"
    wide = [name for name in (rule.parameter, *rule.states) if name not in rule.row_states]
    packs = {n: f"*reinterpret_cast<pack<T, N> *>(&{n}_[row * width + j])" for n in wide}
    load = indented((f"pack<T, N> {n}_w = {packs[n]};" for n in wide), 16)
    moved, given = followed.motion is not None, ", ".join([parameter, *names])
    functions = [generate.function(of) for of in followed.rules]
    functions.append(GOING % _going(rule, followed))
    if moved:
        functions.append(_along(rule, followed))
    if followed.rest is not None:
        numbers = ", ".join(["p", "T(0)", *followed.rest.coefficients])
        functions.append(
            RESTING
            % {
                "coefficients": _coefficients(followed.rest, columns(rule, followed).rest),
                "call": f"{followed.rest.symbol}<T>({numbers});",
            }
        )
    functions.append(_catch_up(run, followed))
    rows = [f"const T {n}_s = found ? T({n}_[row]) : T(0);" for n in rule.row_states]
    ones = ", ".join([*names, *["T(1)"] * len(names)])
    reach = REACH % {"span": SPAN, "load": load, "given": ones, "parameter": parameter}
    functions.append(
        FOLLOW
        % {
            "arrays": indented(
                (f"auto *const {n}_ = update.{n}_;" for n in (rule.parameter, *rule.states)), 4
            ),
            "row_states": indented(rows, 12),
            "reach": reach * moved,
            "shape": SHAPE % {"load": load, "given": given} if moved else "",
            "load": load,
            "given": given,
            "store": indented((f"{packs[n]} = {n}_w;" for n in wide), 16),
            "fade_rows": indented(_fade_rows(rule, followed), 16),
        }
    )
    return namespace("\n".join(functions))


def _fade_rows(rule: Rule, followed: Missed) -> list[str]:
    """Lines that write the states with one number for the row."""
    lines = list[str]()
    for k, state in enumerate(rule.states):
        if state in rule.row_states and followed.changes(k):
            column = columns(rule, followed).fades + k
            fade = FADE.format(f"{state}_s", k)
            lines += (FADE_ROW % {"state": state, "fade": fade, "column": column}).split("\n")
    return lines


def _catch_up(run: Run, followed: Missed) -> str:
    """The function that takes an element on its way."""
    rule = run.rule
    names, parameter = _names(rule), f"{rule.parameter}_w"
    # A state with one number for the row is the same for all elements: each has a copy.
    elements, copies, fades = [f"{parameter}.at[k]"], list[str](), list[str]()
    elements.append(run.gradient("T(0)"))
    for k, (state, name) in enumerate(zip(rule.states, names, strict=True)):
        by_row = state in rule.row_states
        if by_row:
            copies.append(f"pack<T, N> {state}_w;")
            copies.append(f"for (int k = 0; k < N; ++k) {{ {state}_w.at[k] = {name}; }}")
        if followed.changes(k):
            one = name if by_row else f"{name}.at[k]"
            line = f"{one} = {FADE.format(one, k)};"
            if by_row:
                copies.insert(0, f"if (whole || steps != since) {{ {line} }}")
            else:
                fades.append(line)
        elements.append(f"{state}_w.at[k]")
    elements += [*["T(0)"] * (rule.squared is not None), *rule.coefficients]
    arguments = [f"pack<T, N> &{parameter}"]
    arguments += [f"T {n}" if n.endswith("_s") else f"pack<T, N> &{n}" for n in names]
    return CATCH_UP % {
        "arguments": ", ".join(arguments),
        "along": ALONG % ", ".join([parameter, *names]) if followed.motion else "",
        "rest": REST % parameter if followed.rest else "",
        "fades": indented(fades, 8),
        "copies": indented(copies, 4),
        "coefficients": _coefficients(rule, 0, "step", 8, run.wide),
        "step": f"{rule.symbol}<T>({', '.join(elements)});",
    }


def _going(rule: Rule, followed: Missed) -> dict[str, object]:
    """What the text of a row's way has besides."""
    where, states = columns(rule, followed), len(rule.states)
    fade = [
        f"later[{k}] *= at_step(history, ring, {where.fades + k}, steps + j + 1);"
        for k in range(states)
        if followed.changes(k)
    ]
    given = {
        "states": max(states, 1),
        "few": FEW,
        "tiny": repr(TINY),
        "sum": states + 1,
        "least": repr(LEAST),
        "span": SPAN,
        "long": repr(LONG),
        "faint": repr(FAINT),
        "vast": repr(VAST),
        "fade": indented(fade, 12),
        "ratio": where.width,
        "lag": where.width + 1,
    }
    return given | {"decide": DECIDE % given if followed.motion else SETTLE}


def _names(rule: Rule) -> list[str]:
    """The states in functions: packs of elements, and numbers of the row."""
    return [f"{n}_s" if n in rule.row_states else f"{n}_w" for n in rule.states]


def _along(rule: Rule, followed: Missed) -> str:
    """The functions that take a parameter along its motions."""
    motion, move, where = followed.motion, followed.move, columns(rule, followed)
    assert motion is not None and move is not None
    names, count = _names(rule), range(len(rule.states))
    given = [f"T {n}" if n.endswith("_s") else f"const pack<T, N> &{n}" for n in names]
    old = [n if n.endswith("_s") else f"{n}.at[k]" for n in names]
    shares = [f"{n}_share_" for n in rule.states]
    aged = [f"{share} * {of}" for share, of in zip(shares, old, strict=True)]
    lost = [f"const T old{k} = abs(narrowed(go.later[{k}]) * {old[k]});" for k in count]
    lost += [f"lost |= old{k} < T(F({TINY!r})) && old{k} != T(0);" for k in count]

    def with_products(of: str) -> str:
        return ", ".join([*names, *(f"narrowed(go.{of}[{k}])" for k in count)])

    return MOTION % {
        "states": ", ".join(given),
        "shares": ", ".join(f"T {share}" for share in shares),
        "motion_coefficients": _coefficients(motion, where.motion),
        "motion": f"{motion.symbol}<T>({', '.join(['x.at[k]', *aged, *motion.coefficients])});",
        "move_coefficients": _coefficients(move, where.move, by=8),
        "move": f"{move.symbol}<T>({', '.join(['p.at[k]', 'motion', *move.coefficients])});",
        "given": ", ".join(names),
        "now": with_products("product"),
        "later": with_products("later"),
        "lost": indented(lost, 8),
        "flat": repr(FLAT),
        "straight": repr(STRAIGHT),
        "faint": repr(FAINT),
        "ratio": where.width,
        "lag": where.width + 1,
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
