"""Check hyperparameters and settings: ranges by name, defaults, values at a step."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, SupportsFloat, get_args

import numpy as np

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.language.rule import Rule

from .arrays import backend_of, describe
from .choices import Check, Decay, Exactness, Master, Rounding, Sparse, StateDtype
from .errors import HyperparameterError, KeywordError
from .schedule_values import Schedules
from .schedules import Function
from .suggest import unknown

Scalar = float | SupportsFloat
"""A number of any kind, such as a NumPy scalar."""

Hyperparameter = Scalar | Function

Betas = tuple[Hyperparameter, Hyperparameter]

Setting = Hyperparameter | Betas | str | Mapping[str, str] | None
"""The value of any setting of a group."""


class Default(tuple[float, float]):
    """Default betas: a ``beta1`` or ``beta2`` given beside them wins."""

    __slots__ = ()


BETAS, LION_BETAS = Default((0.9, 0.999)), Default((0.9, 0.99))

DECAYS, CHECKS = get_args(Decay), get_args(Check)

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
"""The settings of every group beside its rule's hyperparameters, with defaults."""

DEFAULTS: dict[str, Any] = {
    "beta1": None,
    "beta2": None,
    **SETTINGS,
    "initial": None,
    "average": None,
}
"""The keywords of constructors that a method does not name itself, with defaults."""


OTHERS = ("params", "betas", "rule", "self", "initial", "average", "schedules")
"""Names of arguments or keys of a snapshot, which no hyperparameter may have."""

STEP_VALUES = ("grad_scale", "clip_factor", "clip_value")
"""Coefficients that come from the arguments of `step`, not from a group."""

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
"""Names that may be infinite."""

MEANS = ("beta1", "beta2", "beta3", "momentum", "average_decay")
"""Names of decay factors of running means."""

POSITIVE = ("max_row_norm", "max_norm", "grad_scale", "clip_value")

RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(POSITIVE, (lambda value: value > 0, "> 0")),
    # Whether 0 is allowed depends on the rule: see `Group`.
    "eps": (lambda value: value >= 0, "> 0"),
    # With rho = 1 a running mean keeps its initial value.
    "rho": (lambda value: 0 <= value <= 1, "in [0, 1]"),
    **dict.fromkeys(("fraction", "average_alpha"), (lambda value: 0 < value <= 1, "> 0 and <= 1")),
    **dict.fromkeys(MEANS, (lambda value: 0 <= value < 1, "in [0, 1)")),
    **dict.fromkeys(NOT_NEGATIVE, (lambda value: value >= 0, ">= 0")),
}
"""(test, text for errors) by name, for users' rules too; other names may be any finite number."""


FLAGS = ("threshold_inclusive",)
"""Names that may be True or False; other names may not."""

INTERVALS = {
    **dict.fromkeys((*POSITIVE, "eps", *NOT_NEGATIVE), (0.0, math.inf)),
    **dict.fromkeys(("rho", *MEANS), (0.0, 1.0)),
}
"""The interval of each hyperparameter, by name."""


FIXED = ("rowwise", "state_dtype", "master", "rounding", "seed", "sparse", "exactness")
"""Settings that cannot be changed later, because states were allocated by them."""


def check_fixed(settings: Mapping[str, Any], states: Sequence[str]) -> None:
    """Check the settings of `FIXED`.

    Parameters
    ----------
    settings : mapping
        All settings of a group.
    states : sequence of str
        The states of its rule.

    Raises
    ------
    HyperparameterError
    """
    check_choice(settings, "rowwise", (False, True))
    check_choice(settings, "master", (None, *get_args(Master)))
    check_choice(settings, "rounding", get_args(Rounding))
    check_choice(settings, "sparse", get_args(Sparse))
    check_choice(settings, "exactness", get_args(Exactness))
    if settings["master"] is not None and settings["rounding"] != "nearest":
        raise HyperparameterError(
            f"rounding: got {settings['rounding']!r} with master={settings['master']!r}, which has "
            "all bits already; leave one of the two out"
        )
    seed = whole(settings["seed"])
    if seed is None or seed < 0:
        raise HyperparameterError(f"seed: got {settings['seed']!r}, expected a whole number from 0")
    wanted = settings["state_dtype"]
    for state, kind in wanted.items() if isinstance(wanted, Mapping) else [("", wanted)]:
        if state and state not in states:
            raise HyperparameterError(f"state_dtype: no state {state!r}, but {list(states)}")
        check_choice({"state_dtype": kind}, "state_dtype", (None, *get_args(StateDtype)))


def expand(given: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``betas=(b1, b2)`` as ``beta1=b1, beta2=b2``; None for one of these is left out.

    Raises
    ------
    HyperparameterError
        ``betas`` is not a pair, or ``beta1`` or ``beta2`` is given as well.
    """
    result = {
        name: value
        for name, value in given.items()
        if value is not None or name not in ("beta1", "beta2")
    }
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
    """Raise `HyperparameterError` if a rule reads a reserved name as a hyperparameter."""
    taken = {*SETTINGS, *STEP_VALUES, *OTHERS} & set(rule.hyperparameters)
    if taken:
        raise HyperparameterError(
            f"the rule {rule.name!r} reads h.{min(taken)}, a setting of every optimizer: "
            "choose another name"
        )


@dataclass(frozen=True)
class Start:
    """An initial state that is a function of the parameter."""

    of: Callable[[HostArray, Mapping[str, Any]], HostArray]
    """(parameter as float32 or float64, settings of the group) -> state of the same shape."""


def check_initial(rule: Rule, initial: Any) -> dict[str, Any]:
    """Check initial values of states.

    Parameters
    ----------
    rule : Rule
    initial : mapping of str to float or Start

    Returns
    -------
    dict

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
    """Raise `KeywordError` for an unknown name.

    Parameters
    ----------
    given, known : iterable of str
    others : iterable of str
        Further names that the message may suggest.
    """
    names = dict.fromkeys(known)
    for name in given:
        if name not in names:
            raise KeywordError(unknown(name, [each for each in names if each != "params"], others))


def check_present(given: Mapping[str, Any], required: Iterable[str]) -> None:
    """Raise `HyperparameterError` if a required name is not in ``given``."""
    missing = [name for name in dict.fromkeys(required) if name not in given]
    if missing:
        raise HyperparameterError(f"missing hyperparameter {', '.join(map(repr, missing))}")


def plain(name: str, value: Any) -> Any:
    """Convert NumPy scalars and 0-d arrays to Python numbers; return other values as they are.

    Raises
    ------
    HyperparameterError
        The number is on a GPU.
    """
    if type(value) in (float, int):  # nearly always
        return value
    if not isinstance(value, np.generic) and getattr(value, "ndim", None) != 0:
        return value
    if backend_of(value) == "cuda":
        raise HyperparameterError(
            f"{name}: got {describe(value)}, expected a number on the host; give float(...) of it, "
            "which waits for the GPU"
        )
    return value.item() if hasattr(value, "item") else value


def whole(value: Any) -> int | None:
    """Convert an integer or 0-d integer array to int; None for others, bool and GPU arrays."""
    if isinstance(value, (bool, np.bool_)) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return None if backend_of(value) == "cuda" else operator.index(value)
    except TypeError:
        return None


def whole_from(name: str, value: Any, least: int) -> int:
    """Convert an integer, which must not be below ``least``, to int; see `whole`.

    Raises
    ------
    HyperparameterError
    """
    found = whole(value)
    if found is None or found < least:
        raise HyperparameterError(f"{name}: got {value!r}, expected a whole number from {least}")
    return found


def number(name: str, value: Any) -> float:
    """Convert a value to float and check it against the range of its name.

    Raises
    ------
    HyperparameterError
    """
    given = plain(name, value)
    try:
        # float() would also take strings and bool.
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
    """Evaluate a number or a schedule at a step.

    Parameters
    ----------
    name : str
    value : float or schedule
    step : int, from 0
    schedules : Schedules
        Stores the value.

    Raises
    ------
    HyperparameterError
        The value is out of range.
    """
    if not callable(value):
        return number(name, value)
    try:
        return number(name, schedules.value(value, step, lambda result: plain(name, result)))
    except HyperparameterError as error:
        schedules.forget(value, step)
        raise HyperparameterError(f"{error} (from the schedule, at step {step})") from None


def check_fits(name: str, value: float, dtype: np.dtype) -> None:
    """Raise `HyperparameterError` if a number overflows in a dtype, or a positive one becomes 0."""
    largest = float(np.finfo(dtype).max)
    vanishes = name in (*POSITIVE, "eps") and 0 < value < 1 and dtype.type(value) == 0
    if largest < abs(value) < math.inf or vanishes:
        raise HyperparameterError(f"{name}: {value!r} does not fit in {dtype}")


def check_choice(settings: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> None:
    """Raise `HyperparameterError` unless ``settings[name]`` is in ``known``."""
    value = settings[name]
    if not (value is None or isinstance(value, (str, bool, np.bool_))) or value not in known:
        names = ", ".join(map(repr, known))
        raise HyperparameterError(f"{name}: got {value!r}, expected one of {names}")


def options(settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the names in `gpuadapt.kernels.options` that a group's settings need."""
    check_choice(settings, "decay", DECAYS)
    check_choice(settings, "maximize", (False, True))
    strength = settings["weight_decay"]
    decays = callable(strength) or number("weight_decay", strength) != 0
    chosen = {settings["decay"]} if decays else set()
    return frozenset(chosen | {"maximize"} if settings["maximize"] else chosen)
