"""What is timed: a method by its class, or a rule by its name or by its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from gpuadapt.kernels.language.rule import Rule

from .. import optimizers
from ..hyperparameters import RANGES
from ..optimizer import Optimizer
from ..rule_files import load_rules


class Subject(NamedTuple):
    """Something that makes optimizers."""

    name: str
    """As it was asked for; with a rule's name behind a file that has several."""
    make: Callable[..., Optimizer]
    """Of parameters and settings."""
    plain: bool
    """Whether nothing was set: other libraries have the same method then."""


def subjects(texts: Iterable[str], settings: Mapping[str, Any]) -> list[Subject]:
    """Find what texts of a command line name.

    Parameters
    ----------
    texts : iterable of str
        Methods (``Adam``), rules (``adam``), ``FILE.py:NAME`` or ``FILE.py``.
    settings : mapping
        Hyperparameters and options of all of them.

    Raises
    ------
    RuleError
        As of `load_rules`.
    """
    found = []
    for text in texts:
        if text in optimizers.__all__:
            make = partial(getattr(optimizers, text), **settings)
            found.append(Subject(text, make, not settings))
            continue
        rules = load_rules(text)
        for rule in rules:
            name = text if len(rules) == 1 else f"{text}:{rule.name}"
            found.append(of_rule(name, rule, settings))
    return found


def of_rule(name: str, rule: Rule, settings: Mapping[str, Any]) -> Subject:
    """A rule with `trial_values` where ``settings`` has none."""
    values = trial_values(rule)
    if "betas" in settings:
        values = {name: value for name, value in values.items() if name not in ("beta1", "beta2")}
    return Subject(name, partial(Optimizer, rule, **values | dict(settings)), not settings)


def trial_values(rule: Rule) -> dict[str, float]:
    """A value for each hyperparameter of a rule, by which it can be tried."""
    return {name: _trial_value(name) for name in rule.hyperparameters}


def _trial_value(name: str) -> float:
    allowed, _ = RANGES.get(name, (None, ""))
    if name == "eps":
        return 1e-3
    return 0.1 if allowed is None or (allowed(1.0) and name != "rho") else 0.9
