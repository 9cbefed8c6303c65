"""Which variant of a rule the options of a named method mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from gpuadapt.kernels import pieces
from gpuadapt.kernels.language.rule import Rule

from ..construct import are_groups
from ..hyperparameters import Hyperparameter, check_choice, number

T = TypeVar("T")

ROOTS = {"inside": pieces.inside, "outside": pieces.outside, "none": pieces.without}
"""Where eps stands under the root of a second moment."""

ADAM_ROOTS = {
    "outside": pieces.outside,
    "inside": pieces.inside,
    "uncorrected": pieces.uncorrected,
}

DEBIAS = {True: pieces.corrected, False: pieces.biased}


def choose(option: str, given: object, forms: Mapping[Any, T]) -> T:
    """What an option stands for.

    Raises
    ------
    HyperparameterError
        Names those that there are.
    """
    check_choice({option: given}, option, tuple(forms))
    return forms[given]


def corrected(rule: Rule, eps_mode: str, bias_correction: bool) -> Rule:
    """A rule of Adam's family, with eps and the correction of its start as asked for."""
    debias = choose("bias_correction", bias_correction, DEBIAS)
    root = choose("eps_mode", eps_mode, ADAM_ROOTS)
    if debias is pieces.biased and root is pieces.uncorrected:
        root = pieces.outside  # without a correction, before and after it are the same
    return rule.variant(root=root, debias=debias)


def started(more: dict[str, Any], **states: float) -> Any:
    """``initial`` of an optimizer: these states, unless the user's own says otherwise."""
    initial = more.pop("initial", {})
    return {**states, **initial} if isinstance(initial, Mapping) else initial


def is_zero(name: str, value: Hyperparameter, params: Any) -> bool:
    """Whether a hyperparameter is zero and will stay so, in every group."""
    plain = not callable(value) and number(name, value) == 0
    return plain and not (are_groups(params) and any(name in group for group in params))


def read_by(rule: Rule, hyperparameters: Mapping[str, Hyperparameter]) -> dict[str, Any]:
    """Those of the hyperparameters that a rule reads."""
    return {name: hyperparameters[name] for name in rule.hyperparameters}
