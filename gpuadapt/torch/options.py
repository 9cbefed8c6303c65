"""The keywords that gpuadapt's optimizers have beside those of torch's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, get_args

from torch import Tensor

from ..choices import Master, Rounding, StateDtype, TorchSparse
from ..errors import BackendError, HyperparameterError, KeywordError
from ..hyperparameters import check_choice, check_known, number, whole
from ..launch import Threads, check_threads

TorchParams: TypeAlias = Iterable[Tensor | tuple[str, Tensor] | dict[str, Any]]
"""What torch calls ``ParamsT``; groups may be written with params of several kinds."""

DEFAULTS: dict[str, Any] = {
    "rounding": "nearest",
    "master": None,
    "state_dtype": None,
    "rowwise": False,
    "sparse": None,
    "max_row_norm": None,
    "seed": 0,
    "max_norm": None,
    "clip_value": None,
    "skip_nonfinite": False,
    "threads": None,
}
"""All keywords. A group has an entry for those that differ from these values."""

WHOLE = ("max_norm", "clip_value", "skip_nonfinite", "threads")
"""Keywords for all groups together."""


class Options(TypedDict, total=False):
    """The keywords of `gpuadapt.torch`, see `gpuadapt.torch.Optimizer`."""

    rounding: Rounding
    master: Master | None
    state_dtype: StateDtype | Mapping[str, StateDtype] | None
    rowwise: bool
    sparse: TorchSparse | None
    max_row_norm: float | None
    seed: int
    max_norm: float | None
    clip_value: float | None
    skip_nonfinite: bool
    threads: Threads


def changed(given: Mapping[str, Any], torchs: Iterable[str]) -> dict[str, Any]:
    """Return the keywords that differ from their defaults, checked.

    Parameters
    ----------
    given : mapping
        What is not among torch's own keywords.
    torchs : iterable of str
        Those.

    Raises
    ------
    HyperparameterError, KeywordError
    """
    if "average" in given:
        raise KeywordError(
            "average: gpuadapt.torch keeps no averages; torch.optim.swa_utils.AveragedModel does, "
            "or an optimizer such as gpuadapt.Adam over the module's parameters"
        )
    # AdamW has a setting of Adam's among its own, which its constructor does not take.
    check_known(given, (*[name for name in torchs if name not in given], *DEFAULTS))
    check({**DEFAULTS, **given})
    return {name: value for name, value in given.items() if value != DEFAULTS[name]}


def of_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return all keywords of a group."""
    return {name: group.get(name, default) for name, default in DEFAULTS.items()}


def own_settings(group: Mapping[str, Any]) -> list[str]:
    """Return the keywords of a group that torch's own step does not know."""
    return [name for name, default in DEFAULTS.items() if group.get(name, default) != default]


def of_all(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keywords of `WHOLE`, which all groups must agree about.

    Raises
    ------
    HyperparameterError
    """
    first = of_group(groups[0])
    for name in WHOLE:
        for group in groups:
            if group.get(name, DEFAULTS[name]) != first[name]:
                raise HyperparameterError(
                    f"{name}: got {first[name]!r} and {group.get(name)!r} in two groups, but it is "
                    "for all gradients together: give every group the same value"
                )
    return {name: first[name] for name in WHOLE}


def check(settings: Mapping[str, Any]) -> None:
    """Check all keywords of a group.

    Raises
    ------
    HyperparameterError
    """
    check_choice(settings, "rounding", get_args(Rounding))
    check_choice(settings, "master", (None, *get_args(Master)))
    check_choice(settings, "rowwise", (False, True))
    check_choice(settings, "sparse", (None, *get_args(TorchSparse)))
    check_choice(settings, "skip_nonfinite", (False, True))
    wanted = settings["state_dtype"]
    for kind in wanted.values() if isinstance(wanted, Mapping) else (wanted,):
        check_choice({"state_dtype": kind}, "state_dtype", (None, *get_args(StateDtype)))
    if settings["master"] is not None and settings["rounding"] != "nearest":
        raise HyperparameterError(
            f"rounding: got {settings['rounding']!r} with master={settings['master']!r}, which has "
            "all bits already; leave one of the two out"
        )
    for name in ("max_norm", "clip_value", "max_row_norm"):
        if settings[name] is not None:
            number(name, settings[name])
    seed = whole(settings["seed"])
    if seed is None or seed < 0:
        raise HyperparameterError(f"seed: got {settings['seed']!r}, expected a whole number from 0")
    try:
        check_threads(settings["threads"])
    except BackendError as error:
        raise HyperparameterError(str(error)) from None


def refuse_function(name: str, value: Any) -> None:
    """Raise `HyperparameterError` for a schedule: torch's optimizers have numbers."""
    if callable(value):
        raise HyperparameterError(
            f"{name}: got {value!r}, expected a number, which torch's schedulers change: make the "
            "optimizer with lr=1.0, and torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)"
        )


def row_norm_limit(group: Mapping[str, Any]) -> float:
    """Return ``max_row_norm``, infinity without one."""
    given = group.get("max_row_norm")
    return math.inf if given is None else float(given)
