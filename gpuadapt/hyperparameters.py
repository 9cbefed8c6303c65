"""Hyperparameters: what each name may be, and their values at a step."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from gpuadapt.kernels.formats import MASTERS, ROUNDINGS, STATES
from gpuadapt.kernels.language.rule import Rule

from .arrays import backend_of, describe
from .errors import HyperparameterError, KeywordError
from .schedules import Schedule, Schedules
from .suggest import unknown

Hyperparameter = float | Schedule

Betas = tuple[Hyperparameter, Hyperparameter]


class Default(tuple[float, float]):
    """Betas that nobody has given: beta1 and beta2 beside them take effect."""

    __slots__ = ()


BETAS, LION_BETAS = Default((0.9, 0.999)), Default((0.9, 0.99))

DECAYS = ("l2", "decoupled", "absolute", "after")
"""How weight_decay enters; each is an option of `gpuadapt.kernels.options`."""

CHECKS = ("raise", "skip")
"""What is done about rows that are out of range."""

SETTINGS: dict[str, Any] = {
    "weight_decay": 0.0,
    "decay": "l2",
    "maximize": False,
    "rowwise": False,
    "max_row_norm": math.inf,
    "check": None,
    "state_dtype": None,
    "master": None,
    "rounding": "nearest",
    "seed": 0,
    "sparse": "lazy",
    "exactness": "close",
}
"""What every optimizer has besides its rule's hyperparameters, with defaults."""


OTHERS = ("params", "betas", "rule", "self", "initial", "schedules")
"""Names that mean something else than a hyperparameter, here or in a snapshot."""

STEP_VALUES = ("grad_scale", "clip_factor", "clip_value")
"""What a step gives to its rules besides a group's settings."""

NOT_NEGATIVE = (
    "lr",
    "lr_decay",
    "weight_decay",
    "l1",
    "l2",
    "beta",
    "momentum_decay",
    "eps_root",
    "initial_accumulator",
    "initial_square",
)

UNBOUNDED = ("max_row_norm", "max_norm", "momentum_decay")
"""Those that may be infinite: their limit is a case of its own."""

MEANS = ("beta1", "beta2", "momentum")
"""The share of the past in a running mean."""

POSITIVE = ("max_row_norm", "max_norm", "grad_scale", "clip_value")

RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(POSITIVE, (lambda value: value > 0, "> 0")),
    # 0 is for the rule to judge: see `Group`.
    "eps": (lambda value: value >= 0, "> 0"),
    # With rho = 1 a mean stays as it began.
    "rho": (lambda value: 0 <= value <= 1, "in [0, 1]"),
    "fraction": (lambda value: 0 < value <= 1, "> 0 and <= 1"),
    **dict.fromkeys(MEANS, (lambda value: 0 <= value < 1, "in [0, 1)")),
    **dict.fromkeys(NOT_NEGATIVE, (lambda value: value >= 0, ">= 0")),
}
"""Ranges by name, for the user's own rules too; other names may be any finite number."""


FLAGS = ("threshold_inclusive",)
"""Those that may be True or False, which are no numbers elsewhere."""

INTERVALS = {
    **dict.fromkeys((*POSITIVE, "eps", *NOT_NEGATIVE), (0.0, math.inf)),
    **dict.fromkeys(("rho", *MEANS), (0.0, 1.0)),
}
"""Between what numbers with these names are."""


SPARSE, EXACTNESS = ("lazy", "exact"), ("close", "bits")

FIXED = ("rowwise", "state_dtype", "master", "rounding", "seed", "sparse", "exactness")
"""Settings that cannot be changed: memory was laid out by them."""


def check_fixed(settings: Mapping[str, Any], states: Sequence[str]) -> None:
    """Raise `HyperparameterError` unless settings of `FIXED` are as they may be."""
    check_choice(settings, "rowwise", (False, True))
    check_choice(settings, "master", (None, *MASTERS))
    check_choice(settings, "rounding", tuple(ROUNDINGS))
    check_choice(settings, "sparse", SPARSE)
    check_choice(settings, "exactness", EXACTNESS)
    if settings["master"] is not None and settings["rounding"] != "nearest":
        raise HyperparameterError(
            f"rounding: got {settings['rounding']!r} with master={settings['master']!r}, which "
            "loses nothing that could be rounded"
        )
    seed = whole(settings["seed"])
    if seed is None or seed < 0:
        raise HyperparameterError(f"seed: got {settings['seed']!r}, expected a whole number from 0")
    wanted = settings["state_dtype"]
    for state, kind in wanted.items() if isinstance(wanted, Mapping) else [("", wanted)]:
        if state and state not in states:
            raise HyperparameterError(f"state_dtype: no state {state!r}, but {list(states)}")
        check_choice({"state_dtype": kind}, "state_dtype", (None, *STATES))


def expand(given: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``betas=(b1, b2)`` as ``beta1=b1, beta2=b2``.

    Raises
    ------
    HyperparameterError
        They are not two, or are given both ways.
    """
    result = dict(given)
    if "betas" not in result:
        return result
    betas = result.pop("betas")
    try:
        if isinstance(betas, (str, set, frozenset, Mapping)):
            raise TypeError
        pair = dict(zip(("beta1", "beta2"), betas, strict=True))
    except (TypeError, ValueError):
        raise HyperparameterError(f"betas: got {betas!r}, expected two numbers") from None
    twice = [name for name in pair if name in result]
    if twice and not isinstance(betas, Default):
        raise HyperparameterError(
            f"betas: got {betas!r} beside {twice[0]}={result[twice[0]]!r}; give betas=(b1, b2), or "
            "beta1 and beta2"
        )
    return result | {name: value for name, value in pair.items() if name not in result}


def check_rule(rule: Rule) -> None:
    """Raise `HyperparameterError` if a rule reads a name that means something else here."""
    taken = {*SETTINGS, *STEP_VALUES, *OTHERS} & set(rule.hyperparameters)
    if taken:
        raise HyperparameterError(
            f"the rule {rule.name!r} reads h.{min(taken)}, a setting of every optimizer: "
            "choose another name"
        )


@dataclass(frozen=True)
class Start:
    """What a state is before the first step, where that depends on the parameter."""

    of: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]
    """From the parameter's numbers, as float32 or float64, and the group's settings."""


def check_initial(rule: Rule, initial: Any) -> dict[str, Any]:
    """Values of states before the first step.

    Raises
    ------
    HyperparameterError
        The rule has no such state, or the value is not a finite number.
    """
    if not isinstance(initial, Mapping):
        raise HyperparameterError(f"initial: got {initial!r}, expected numbers by state")
    for state in initial:
        if state not in rule.states:
            raise HyperparameterError(
                f"initial: {rule.name!r} has no state {state!r}, but {list(rule.states)}"
            )
    return {
        state: value if isinstance(value, Start) else number(f"initial {state}", value)
        for state, value in initial.items()
    }


def check_known(given: Iterable[str], known: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raise `KeywordError` for names that nothing reads; ``others`` may have been meant."""
    names = dict.fromkeys(known)
    for name in given:
        if name not in names:
            raise KeywordError(unknown(name, [each for each in names if each != "params"], others))


def check_present(given: Mapping[str, Any], required: Iterable[str]) -> None:
    """Raise `HyperparameterError` for names that are missing."""
    missing = [name for name in dict.fromkeys(required) if name not in given]
    if missing:
        raise HyperparameterError(f"missing hyperparameter {', '.join(map(repr, missing))}")


def plain(name: str, value: Any) -> Any:
    """NumPy's numbers and arrays without dimensions as Python's numbers; others as they are.

    So what is written into such an array later changes nothing.

    Raises
    ------
    HyperparameterError
        Only a GPU knows the number.
    """
    if type(value) in (float, int):  # nearly always
        return value
    if not isinstance(value, np.generic) and getattr(value, "ndim", None) != 0:
        return value
    if backend_of(value) == "cuda":
        raise HyperparameterError(
            f"{name}: got {describe(value)}, expected a number: to read it, the step would wait "
            "for the GPU; give float(...) of it"
        )
    return value.item() if hasattr(value, "item") else value


def whole(value: Any) -> int | None:
    """A count of any integer type as an int; None for anything else.

    Arrays without dimensions count; True, False and what is on a GPU do not.
    """
    if isinstance(value, (bool, np.bool_)) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return None if backend_of(value) == "cuda" else operator.index(value)
    except TypeError:
        return None


def number(name: str, value: Any) -> float:
    """A value as a float, if it is a number in the range of its name."""
    given = plain(name, value)
    try:
        # Not everything that float() takes: no text, and True is no number.
        flag = isinstance(given, bool) and name not in FLAGS
        real = type(given) in (float, int) or (isinstance(given, Real) and not flag)
        result = float(given) if real else math.nan
    except OverflowError:
        result = math.inf
    allowed, text = RANGES.get(name, (math.isfinite, "finite"))
    finite = math.isfinite(result) or name in UNBOUNDED
    if not (finite and allowed(result)):
        raise HyperparameterError(f"{name}: got {given!r}, expected a number {text}")
    return result


def at_step(name: str, value: Hyperparameter, step: int, schedules: Schedules) -> float:
    """The value of a number or a schedule at a step, counted from 0."""
    if not callable(value):
        return number(name, value)
    try:
        return number(name, schedules.value(value, step, lambda result: plain(name, result)))
    except HyperparameterError as error:
        schedules.forget(value, step)
        raise HyperparameterError(f"{error} (from the schedule, at step {step})") from None


def check_fits(name: str, value: float, dtype: np.dtype) -> None:
    """Raise `HyperparameterError` for a number that becomes another in an element type."""
    largest = float(np.finfo(dtype).max)
    vanishes = name in (*POSITIVE, "eps") and 0 < value < 1 and dtype.type(value) == 0
    if largest < abs(value) < math.inf or vanishes:
        raise HyperparameterError(f"{name}: {value!r} does not fit in {dtype}")


def check_choice(settings: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> None:
    """Raise `HyperparameterError` unless a setting is one of those that are known."""
    value = settings[name]
    if not (value is None or isinstance(value, (str, bool, np.bool_))) or value not in known:
        names = ", ".join(map(repr, known))
        raise HyperparameterError(f"{name}: got {value!r}, expected one of {names}")


def options(settings: Mapping[str, Any]) -> frozenset[str]:
    """The kernel options that a group's settings ask for."""
    check_choice(settings, "decay", DECAYS)
    check_choice(settings, "maximize", (False, True))
    form, maximize, decay = settings["decay"], settings["maximize"], settings["weight_decay"]
    chosen = {form} if callable(decay) or number("weight_decay", decay) != 0 else set()
    return frozenset(chosen | {"maximize"} if maximize else chosen)
