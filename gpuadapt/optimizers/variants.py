"""Choose the variant of a rule from the options of a named method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from gpuadapt.kernels import pieces
from gpuadapt.kernels.language.rule import Rule

from ..common_options import CommonOptions
from ..construct import are_groups
from ..hyperparameters import Hyperparameter, check_choice, number

T = TypeVar("T")

ROOTS = {"inside": pieces.inside, "outside": pieces.outside, "none": pieces.without}
"""From eps_mode to the denominator: sqrt(G + eps), sqrt(G) + eps, sqrt(G)."""

ADAM_ROOTS = {
    "outside": pieces.outside,
    "inside": pieces.inside,
    "uncorrected": pieces.uncorrected,
}
"""The same for methods that correct the second moment: "uncorrected" adds eps before that."""

DEBIAS = {True: pieces.corrected, False: pieces.biased}
"""From bias_correction to the piece that corrects a running mean."""


def choose(option: str, value: object, choices: Mapping[Any, T]) -> T:
    """Return ``choices[value]``.

    Parameters
    ----------
    option : str
        The option's name, for the error.
    value : object
        What the user gave.
    choices : mapping
        From each valid value to what it stands for.

    Raises
    ------
    HyperparameterError
        The value is no key of ``choices``; the message lists the keys.
    """
    check_choice({option: value}, option, tuple(choices))
    return choices[value]


def corrected(rule: Rule, eps_mode: str, bias_correction: bool) -> Rule:
    """Return the variant of a rule of Adam's family.

    Parameters
    ----------
    rule : Rule
        With the pieces ``root`` and ``debias``.
    eps_mode : {"outside", "inside", "uncorrected"}
    bias_correction : bool

    Raises
    ------
    HyperparameterError
    """
    debias = choose("bias_correction", bias_correction, DEBIAS)
    root = choose("eps_mode", eps_mode, ADAM_ROOTS)
    if debias is pieces.biased and root is pieces.uncorrected:
        root = pieces.outside  # without a correction, before and after it are the same
    return rule.variant(root=root, debias=debias)


def start_states(options: CommonOptions, **states: float) -> None:
    """Put initial values of states into ``options["initial"]``; values given there win."""
    initial = options.get("initial")
    initial = {} if initial is None else initial
    options["initial"] = {**states, **initial} if isinstance(initial, Mapping) else initial


def is_zero(name: str, value: Hyperparameter, params: Any) -> bool:
    """Return True if a hyperparameter is the number 0 in every group.

    Parameters
    ----------
    name : str
    value : float or schedule
        The default of all groups.
    params : arrays or list of groups
        As given to the optimizer.
    """
    plain = not callable(value) and number(name, value) == 0
    return plain and not (are_groups(params) and any(name in group for group in params))


def read_by(rule: Rule, hyperparameters: Mapping[str, Hyperparameter]) -> dict[str, Any]:
    """Return the entries of ``hyperparameters`` that the rule reads."""
    return {name: hyperparameters[name] for name in rule.hyperparameters}
