"""States of `torch.optim`, as its `state_dict` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from gpuadapt.kernels import pieces, rules

from .. import presets
from ..errors import Error, StateError
from ..optimizer import Optimizer
from ..signatures import own_names
from .states import (
    OTHER,
    Found,
    Method,
    agreed,
    check_equal,
    check_product,
    count_of,
    held,
    load,
    method_of,
    methods,
    mu_product,
    number_of,
    parameters_of,
    state_of,
    zeros,
)

ADAM = {"m": "exp_avg", "v": "exp_avg_sq", "w": "max_exp_avg_sq"}
RMSPROP = (rules.rmsprop, rules.rmsprop_momentum, rules.centered, rules.centered_momentum)

METHODS = [
    *methods("SGD", [rules.sgd, rules.momentum, rules.nesterov], b="momentum_buffer"),
    *methods("Adagrad", [rules.adagrad.variant(root=pieces.outside)], G="sum"),
    *methods(
        "RMSprop",
        [rule.variant(root=pieces.outside) for rule in RMSPROP],
        G="square_avg",
        M="grad_avg",
        b="momentum_buffer",
    ),
    *methods("Adadelta", [rules.adadelta], G="square_avg", U="acc_delta"),
    *methods("Adam", [rules.adam, rules.amsgrad], **ADAM),
    *methods("SparseAdam", [rules.adam.variant(root=pieces.uncorrected)], **ADAM),
    *methods("Adamax", [rules.adamax_floor], m="exp_avg", u="exp_inf"),
    *methods("NAdam", [rules.nadam], **ADAM),
    *methods("RAdam", [rules.radam.variant(root=pieces.uncorrected)], **ADAM),
]
"""AdamW is Adam with decoupled weight decay."""

UNCOUNTED = "SGD"
FILLED = "Adagrad"
"""The method whose states are there before the first step."""

LATER = ("decoupled_weight_decay",)
"""Settings that older versions of torch do not have."""

MU_PRODUCT = "mu_product"


def from_torch(state: Mapping[str, Any], optimizer: Optimizer, *, steps: int | None = None) -> None:
    """Bring the states of a `torch.optim` optimizer into one of gpuadapt.

    Parameters
    ----------
    state : dict
        The ``state_dict()`` of `SGD`, `Adagrad`, `RMSprop`, `Adadelta`, `Adam`, `AdamW`,
        `SparseAdam`, `Adamax`, `NAdam` or `RAdam`, or ``torch.load(path, weights_only=True)``
        of it.
    optimizer : Optimizer
        Made by the method of `ga.presets.torch`, with the same settings and groups. Parameters
        are matched by name if torch has the same names (``param_names``), otherwise by their
        order. It takes over the states, in its own formats, and the counts of updates. Schedules
        stay and continue from that count.
    steps : int, optional
        The number of steps that torch has taken. Only SGD needs it, which does not count.

    Raises
    ------
    StateError
        A setting, group, shape or name of a state differs, a state or count is missing. Nothing
        has changed then.

    Examples
    --------
    >>> import numpy as np, torch, gpuadapt as ga
    >>> w = torch.ones(2, requires_grad=True)
    >>> theirs = torch.optim.Adam([w], lr=0.1)
    >>> w.sum().backward()
    >>> theirs.step()
    >>> ours = ga.presets.torch.Adam([w.detach().numpy()], lr=0.1)
    >>> ga.convert.from_torch(theirs.state_dict(), ours)
    >>> ours.step_count
    1
    """
    method = method_of("torch", METHODS, optimizer)
    groups, entries = _parts(state)
    places = _places(groups, optimizer)
    for number, group in enumerate(groups):
        _check_settings(method, group, optimizer, number)
    found = Found(0, {}, {})
    for name, parameter in parameters_of(optimizer).items():
        entry = {k: v for k, v in entries.pop(places[name], {}).items() if v is not None}
        by_letter = {letter: entry.pop(slot.name, None) for letter, slot in method.states.items()}
        absent = not entry and all(array is None for array in by_letter.values())
        if absent and method.name != FILLED:
            found.updates[name], found.states[name] = 0, zeros(method, parameter)
            continue
        found.states[name] = state_of(method, parameter, by_letter)
        group = optimizer.param_groups[parameter.group]
        found.updates[name] = _updates(method, group, name, entry, steps)
        if entry:
            raise StateError(f"parameter {name!r}: unknown state {min(entry)!r}; {OTHER}")
    if entries:
        raise StateError(f"state: got {[*entries]}, which no group of param_groups has")
    counted = [] if method.name == UNCOUNTED else [max(found.updates.values(), default=0)]
    load(optimizer, found._replace(step_count=agreed(method, counted, steps)))


def _parts(state: Any) -> tuple[list[Mapping[str, Any]], dict[Any, Mapping[str, Any]]]:
    """Return the groups and the states by index of a torch state_dict."""
    try:
        groups, entries = list(state["param_groups"]), dict(state["state"])
        for group in groups:
            list(group["params"])
        return groups, {index: dict(entry) for index, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"not a state_dict() of torch.optim: {error!r}") from None


def _places(groups: list[Mapping[str, Any]], optimizer: Optimizer) -> dict[str, Any]:
    """Return torch's index of each parameter."""
    ours = [[*group["params"]] for group in optimizer.param_groups]
    theirs = [[*group["params"]] for group in groups]
    if [*map(len, ours)] != [*map(len, theirs)]:
        raise StateError(
            f"groups: torch has {[*map(len, theirs)]} parameters in {len(theirs)}, this optimizer "
            f"{[*map(len, ours)]} in {len(ours)}; make it with torch's groups"
        )
    titles = [[*group.get("param_names", ())] for group in groups]
    named = [*map(sorted, titles)] == [*map(sorted, ours)]
    if not named and sorted(chain(*titles)) == sorted(chain(*ours)):
        raise StateError(f"groups: torch has {titles}, this optimizer {ours}; give it torch's")
    return {
        name: index
        for names, indices in zip(titles if named else ours, theirs, strict=True)
        for name, index in zip(names, indices, strict=True)
    }


def _check_settings(
    method: Method, group: Mapping[str, Any], optimizer: Optimizer, number: int
) -> None:
    """Check that a group of torch has this method's settings, and the values of ours."""
    asked = _settings_of(method.name)
    others = {name for each in METHODS for name in _settings_of(each.name)} - {*asked, *LATER}
    if wrong := sorted(others & group.keys()):
        raise StateError(f"param_groups: {method.name} has no {wrong[0]!r}; {OTHER}")
    if missing := [name for name in asked if name not in group and name not in LATER]:
        raise StateError(f"param_groups: {missing[0]!r} is missing, {method.name} has it; {OTHER}")
    given = {name: _plain(name, group[name]) for name in (*asked, "maximize") if name in group}
    ours = optimizer.param_groups[number]
    if "decoupled_weight_decay" in asked and "decoupled_weight_decay" not in group:
        given["decoupled_weight_decay"] = ours["decay"] == "decoupled"
    try:
        expected = getattr(presets.torch, method.name)(np.zeros(1, np.float32), **given)
    except Error as error:
        raise StateError(f"param_groups: {error}") from None
    if expected.rule.digest != method.rule.digest:
        raise StateError(
            f"torch's settings {given} make the rule {expected.rule.name!r}, this optimizer has "
            f"{method.rule.name!r}; make it with ga.presets.torch.{method.name} and these settings"
        )
    theirs = expected.param_groups[0]
    names = [*method.rule.hyperparameters, "weight_decay", "maximize"]
    names += ["decay"] if theirs["weight_decay"] else []
    check_equal("torch", _differences(names, theirs, ours, group))


def _settings_of(name: str) -> list[str]:
    """Return the names of a method's settings in torch."""
    return own_names(getattr(presets.torch, name))[1:]


def _plain(name: str, value: Any) -> Any:
    """Return a setting, which may be a tensor of one number or a pair of these."""
    if isinstance(value, (tuple, list)):
        return tuple(number_of(name, one) for one in value)
    return number_of(name, value) if hasattr(value, "item") else value


def _differences(
    names: list[str],
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    group: Mapping[str, Any],
) -> Iterator[tuple[str, Any, Any]]:
    """List settings that differ; schedules have no value, and tensors are float32."""
    tensors = any(hasattr(value, "item") for value in group.values())
    for name in names:
        a, b = theirs[name], ours[name]
        if callable(b):
            continue
        same = a == b or (tensors and not isinstance(a, str) and np.float32(a) == np.float32(b))
        if not same:
            yield name, a, b


def _updates(
    method: Method,
    group: Mapping[str, Any],
    name: str,
    entry: dict[str, Any],
    steps: int | None,
) -> int:
    """Take the count of updates from a parameter's entry, and check NAdam's product."""
    if method.name == UNCOUNTED:
        return agreed(method, (), steps)
    if "step" not in entry:
        raise StateError(f"parameter {name!r}, 'step': it is missing, {method.name} keeps it")
    updates = count_of(f"parameter {name!r}, 'step'", entry.pop("step"))
    if method.name == "NAdam":
        check_product("torch", entry.pop(MU_PRODUCT, None), group, updates)
    return updates


def to_torch(optimizer: Optimizer, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of an optimizer for `torch.optim`.

    Parameters
    ----------
    optimizer : Optimizer
        Of a method that `ga.presets.torch` has.
    like : dict
        The ``state_dict()`` of torch's optimizer that shall continue, made with the same settings
        and groups. Its states may be empty.

    Returns
    -------
    dict
        For torch's ``load_state_dict``. Tensors are new, on the CPU, of float32 or, for parameters
        of float64, float64; torch moves them. Settings are those of ``like``.

    Raises
    ------
    StateError
        A setting or group differs, or torch has no such method.
    """
    import torch

    method = method_of("torch", METHODS, optimizer)
    groups, _ = _parts(like)
    places = _places(groups, optimizer)
    for number, group in enumerate(groups):
        _check_settings(method, group, optimizer, number)
    found = held(method, optimizer)
    state: dict[Any, dict[str, Any]] = {}
    for name, parameter in parameters_of(optimizer).items():
        updates = found.updates[name]
        if updates == 0 and method.name != FILLED:
            continue
        entry: dict[str, Any] = {}
        if method.name == "SparseAdam":
            entry["step"] = updates
        elif method.name != UNCOUNTED:
            entry["step"] = torch.tensor(float(updates))
        if method.name == "NAdam":
            group = optimizer.param_groups[parameter.group]
            entry[MU_PRODUCT] = torch.tensor(mu_product(group, updates))
        for letter, slot in method.states.items():
            numbers = found.states[name][letter].astype(parameter.compute_dtype)
            entry[slot.name] = torch.from_numpy(numbers)
        if entry:
            state[places[name]] = entry
    order = sorted(state, key=[index for group in groups for index in group["params"]].index)
    return {
        "state": {index: state[index] for index in order},
        "param_groups": [dict(group) for group in groups],
    }
