"""Writes docs/combinations.md: what combines with what, by trying it.

python docs/combinations.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gpuadapt as ga
from gpuadapt.hyperparameters import DECAYS
from gpuadapt.kernels.catchup.plan import catch_up_plan, ignores_zero_gradients
from gpuadapt.optimizer import internals

PAGE = Path(__file__).with_suffix(".md")

BUFFER: dict[str, Any] = {"momentum": 0.9}
VELOCITY: dict[str, Any] = {"momentum": 0.9, "momentum_form": "velocity"}

FORMS: dict[str, list[dict[str, Any]]] = {
    "SGD": [BUFFER, BUFFER | {"nesterov": True}, VELOCITY, VELOCITY | {"nesterov": True}],
    "RMSprop": [
        BUFFER,
        VELOCITY,
        {"centered": True},
        {"centered": True} | BUFFER,
        {"centered": True} | VELOCITY,
    ],
    "Adam": [{"amsgrad": "raw"}, {"amsgrad": "corrected"}],
    "NAdam": [{"schedule": False}],
}
"""Options that change what a method keeps, besides its defaults."""

OPTIONS: dict[str, tuple[Any, ...]] = {
    "eps_mode": ("inside", "outside", "uncorrected", "none", "add", "max"),
    "bias_correction": (False,),
    "dampening": (0.5,),
    "decay": DECAYS,
    "maximize": (True,),
    "rowwise": (True,),
    "state_dtype": ("bfloat16", "float16", "8bit"),
}
"""What is tried with each of them; weight decay is not zero then."""

HEAD = """\
# What combines with what

Made by `python docs/combinations.py`, which makes every optimizer and writes its kernels, for both
backends, dense and by rows; a test compares. A name or a tick is a combination that there is, a
dash is an option that the method does not have. Every hyperparameter may be a schedule, a function
of the step.
`max_row_norm`, `check`, groups and every format of parameters ([formats.md](formats.md)) work with
everything. In brackets behind a `state_dtype` are the states that need more bits, and their format.
With these formats, and with 16-bit parameters unless they are rounded to the nearest, 1,500 steps
move the weights as far as in float32, within 10 % (`tests/test_ticks.py`).
`sparse="exact"` works with everything too; the last column says how a row catches up with the steps
that it skipped, without weight decay ([exact_rows.md](exact_rows.md)).
"""

TAIL = """\
Rules that need a sum over the whole tensor (LAMB, LARS, Adafactor) are out of this design: a rule
says what happens to one number.
"""


def page() -> str:
    """The text of the page."""
    options = [f"{o}={v[0]}" if len(v) == 1 else o for o, v in OPTIONS.items()]
    rows = [["method", "states", *options, "effective_lr", "skipped steps"]]
    reasons: dict[str, None] = {}
    methods = [(n, f) for n in ga.optimizers.__all__ for f in ({}, *FORMS.get(n, []))]
    for name, given in methods:
        method = getattr(ga, name)
        optimizer = method(np.zeros((2, 2)), **given)
        shown = ", ".join(f"{option}={value!r}" for option, value in given.items())
        row = [f"{name}({shown})", " ".join(optimizer.rule.states) or "none"]
        for option, values in OPTIONS.items():
            working = []
            for value in values:
                reason = _reason(method, given, option, value)
                if reason is None:
                    wider = _wider(method, given, value) if option == "state_dtype" else ""
                    working.append("✓" if len(values) == 1 else f"{value}{wider}")
                elif option == "rowwise":
                    # Once for all rules that have it.
                    reasons[re.sub(r"rowwise: '\w+'", "the rule", reason)] = None
            row.append(", ".join(working) or "–")
        row.append("–" if _has_no_rate(optimizer.rule) else "✓")
        row.append(_skipped_steps(optimizer.rule))
        rows.append(row)
    rows.insert(1, ["---"] * len(rows[0]))
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    why = "\n".join(f"- {reason}" for reason in reasons)
    return f"{HEAD}\n{table}\n\nWhy some have no `rowwise`:\n\n{why}\n\n{TAIL}"


def _wider(method: type[ga.Optimizer], given: Mapping[str, Any], kind: str) -> str:
    """The states that are not kept as was asked for, and how they are kept."""
    optimizer = method(np.zeros((2, 16), np.float32), state_dtype=kind, **given)
    kept: dict[str, list[str]] = {}
    for state, form in zip(
        optimizer.rule.states, internals(optimizer).parameters["0"].formats.states, strict=True
    ):
        if form.dtype != kind:
            kept.setdefault(form.dtype, []).append(state)
    shown = "; ".join(f"{' '.join(states)} in {name}" for name, states in kept.items())
    return f" ({shown})" if shown else ""


def _has_no_rate(rule: ga.Rule) -> bool:
    try:
        return not rule.rate
    except ga.RuleError:
        return True


def _skipped_steps(rule: ga.Rule) -> str:
    if ignores_zero_gradients(rule):
        return "change nothing"
    return "closed form" if catch_up_plan(rule) else "replayed"


def _reason(
    method: type[ga.Optimizer], given: Mapping[str, Any], option: str, value: Any
) -> str | None:
    """Why a method does not work with an option; None if it does."""
    settings = {**given, option: value} | ({"weight_decay": 0.1} if option == "decay" else {})
    try:
        optimizer = method(np.zeros((2, 16)), **settings)
        parameters, groups, _ = internals(optimizer)
        rule, formats = groups[0].rule, parameters["0"].formats
        for traversal in ("rows",) if option == "rowwise" else ("many", "dense", "rows"):
            for backend in ("cpu", "cuda"):
                rule.source(backend, traversal, formats)
    except (ga.HyperparameterError, ga.RuleError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
