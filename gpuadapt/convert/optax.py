"""States of optax's transformations, found by the names of their tuples; optax is not imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels import pieces, rules
from gpuadapt.kernels.array_types import HostArray

from ..arrays import describe
from ..errors import ParameterError, StateError
from ..optimizer import Optimizer
from ..tree import opened, read
from .states import (
    OTHER,
    Found,
    Method,
    agreed,
    check_equal,
    count_of,
    held,
    load,
    method_of,
    methods,
    number_of,
    parameters_of,
    rate_differs,
    state_of,
)

ROOTS = (pieces.outside, pieces.both)


def _rooted(*known: Any) -> list[Any]:
    """Return rules of Adam's family, without and with eps_root."""
    return [rule.variant(root=root) for rule in known for root in ROOTS]


RMSPROP = [
    rule.variant(root=root)
    for rule in (rules.rmsprop, rules.rmsprop_velocity, rules.centered, rules.centered_velocity)
    for root in (pieces.inside, pieces.outside)
]

METHODS = [
    *methods("sgd", [rules.sgd, rules.momentum, rules.nesterov], b="trace"),
    *methods("adagrad", [rules.adagrad], G="sum_of_squares"),
    *methods("rmsprop", RMSPROP, G="nu", M="mu", b="-trace"),
    *methods("adadelta", [rules.adadelta], G="e_g", U="e_x"),
    *methods("adam", _rooted(rules.adam), m="mu", v="nu"),
    *methods("amsgrad", _rooted(rules.amsgrad_corrected), m="mu", v="nu", w="nu_max"),
    *methods("adamax", [rules.adamax_floor], m="mu", u="nu"),
    *methods("nadam", _rooted(rules.nadam), m="mu", v="nu"),
    *methods("radam", _rooted(rules.radam), m="mu", v="nu"),
    *methods("lion", [rules.lion], m="mu"),
]
"""Those whose name ends in w are the same with weight decay."""

TREES = {
    "TraceState": ("trace",),
    "ScaleByRssState": ("sum_of_squares",),
    "ScaleByRmsState": ("nu",),
    "ScaleByRStdDevState": ("mu", "nu"),
    "ScaleByAdaDeltaState": ("e_g", "e_x"),
    "ScaleByAdamState": ("mu", "nu"),
    "ScaleByAmsgradState": ("mu", "nu", "nu_max"),
    "ScaleByLionState": ("mu",),
}
"""By type: the fields that are trees of states. Another field of these is "count"."""

COUNTS = {"ScaleByScheduleState": (), "InjectHyperparamsState": ("inner_state",),
          "InjectStatefulHyperparamsState": ("inner_state",)}  # fmt: skip
"""Types that have no states of their own: the fields in which to look further."""

WITHOUT = ("EmptyState",)

REFUSED = {
    "MultiStepsState": "it keeps gradients of several steps; pass its inner_opt_state, after a "
    "whole round",
    "PartitionState": "it has a state for each label; convert each of inner_states into an "
    "optimizer of its own",
    "MaskedState": "masked parameters have no states; pass its inner_state, to an optimizer of the "
    "others",
    "EmaState": "averages of parameters are not converted",
    "ScaleByRmsWithCountState": "gpuadapt has no RMSprop with bias_correction",
    "ScaleByRStdDevWithCountState": "gpuadapt has no RMSprop with bias_correction",
}
"""By type: why it cannot be converted."""

OURS = {
    "learning_rate": "lr", "b1": "beta1", "b2": "beta2", "decay": "rho", "rho": "rho",
    "momentum": "momentum", "eps": "eps", "eps_root": "eps_root",
    "weight_decay": "weight_decay", "threshold": "threshold",
}  # fmt: skip
"""From optax's name of a hyperparameter to ours."""


class Nodes(NamedTuple):
    """What is in an opt_state."""

    trees: dict[str, Any]
    """By name of field."""
    counts: list[Any]
    hyperparameters: dict[str, Any]
    """Of `optax.inject_hyperparams`, by optax's name."""


def from_optax(state: Any, optimizer: Optimizer, *, steps: int | None = None) -> None:
    """Bring the state of an optax optimizer into one of gpuadapt.

    Parameters
    ----------
    state : tuple
        The ``opt_state`` of one of the optimizers that `ga.presets.optax` has, also in a chain with
        transformations without a state (such as ``clip_by_global_norm``, which is
        ``step(max_norm=...)`` here) or in ``inject_hyperparams``.
    optimizer : Optimizer
        Made by the method of `ga.presets.optax`, with the same settings, of parameters in the same
        containers: parameters are matched by their path. It takes over the states, in its own
        formats, and the count of steps. Schedules stay and continue from that count.
    steps : int, optional
        The number of steps taken. sgd, adagrad, rmsprop and adadelta need it, which count only with
        a schedule.

    Raises
    ------
    StateError
        A state is missing or unknown, a path or shape differs, or there is no count. So does a
        setting of ``inject_hyperparams``; other settings are not in optax's state. Nothing has
        changed then.
    """
    method = method_of("optax", METHODS, optimizer)
    nodes = _nodes(method, state)
    counted = [count_of("count", one) for one in nodes.counts]
    count = agreed(method, counted, steps)
    _check_settings(nodes.hyperparameters, optimizer)
    parameters = parameters_of(optimizer)
    by_letter = {
        letter: _by_path(slot.name, nodes.trees[slot.name], [*parameters])
        for letter, slot in method.states.items()
    }
    states = {
        name: state_of(
            method, parameter, {letter: tree[name] for letter, tree in by_letter.items()}
        )
        for name, parameter in parameters.items()
    }
    load(optimizer, Found(count, dict.fromkeys(parameters, count), states))


def _nodes(method: Method, state: Any) -> Nodes:
    """Collect the tuples of an opt_state, and check that they are those of a method."""
    nodes = Nodes({}, [], {})
    for kind, node in _walk(state):
        fields = TREES.get(kind, ())
        for field in fields:
            if field in nodes.trees:
                raise StateError(f"state: two tuples have {field!r}; pass the state of one method")
            nodes.trees[field] = getattr(node, field)
        if "count" in node._fields:
            nodes.counts.append(node.count)
        if "hyperparams" in node._fields:
            nodes.hyperparameters.update(node.hyperparams)
    wanted = {slot.name for slot in method.states.values()}
    if wanted != nodes.trees.keys():
        raise StateError(
            f"state: got {sorted(nodes.trees) or 'no states'}, expected {sorted(wanted)} of "
            f"{method.name} ({method.rule.name}); {OTHER}"
        )
    return nodes


def _walk(state: Any) -> Iterator[tuple[str, Any]]:
    """List the named tuples of an opt_state, with the names of their types."""
    kind = type(state).__name__
    if kind in WITHOUT or (isinstance(state, (tuple, list)) and not state):
        return
    if kind in TREES:
        yield kind, state
    elif kind in COUNTS:
        yield kind, state
        for field in COUNTS[kind]:
            yield from _walk(getattr(state, field))
    elif type(state) in (tuple, list):
        for part in state:
            yield from _walk(part)
    else:
        why = REFUSED.get(kind, "gpuadapt has no method with it")
        raise StateError(f"state: got {describe(state)}, which cannot be converted: {why}")


def _by_path(field: str, tree: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the arrays of a tree by their paths."""
    try:
        _, pairs = read(tree, 0)
    except ParameterError as error:
        raise StateError(f"{field}: {error}") from None
    found = dict(pairs)
    if found.keys() != {*names}:
        raise StateError(
            f"{field}: got arrays at {sorted(found)}, expected {sorted(names)}; give this "
            "optimizer its parameters in the containers that optax has them in"
        )
    return found


def _check_settings(hyperparameters: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Check the settings of ``inject_hyperparams``, which are numbers or arrays of float32."""
    differences = []
    for group in optimizer.param_groups:
        for name, value in hyperparameters.items():
            ours = group.get(OURS.get(name, ""), 0.0)
            if name in OURS and rate_differs(theirs := number_of(name, value), ours):
                differences.append((name, theirs, ours))
    check_equal("optax", differences)


def to_optax(optimizer: Optimizer, like: Any) -> Any:
    """Return the state of an optimizer for optax.

    Parameters
    ----------
    optimizer : Optimizer
        Of a method that `ga.presets.optax` has. Parameters must have had a gradient in each step,
        because optax has one count for all.
    like : tuple
        The state that ``init(params)`` of optax's optimizer returns: made with the same settings,
        of parameters in the same containers.

    Returns
    -------
    tuple
        As ``like``, with new arrays of the same types and dtypes, and counts.

    Raises
    ------
    StateError
        ``like`` is of another method or of other parameters, or counts of parameters differ.
    """
    method = method_of("optax", METHODS, optimizer)
    nodes = _nodes(method, like)
    _check_settings(nodes.hyperparameters, optimizer)
    found = held(method, optimizer)
    different = {*found.updates.values(), found.step_count}
    if len(different) > 1:
        raise StateError(
            f"parameters have had {sorted(different)} updates; optax has one count for all"
        )
    letters = {slot.name: letter for letter, slot in method.states.items()}
    for field, tree in nodes.trees.items():
        for name, leaf in _by_path(field, tree, found.states).items():
            numbers = found.states[name][letters[field]]
            if np.shape(leaf) != numbers.shape:
                raise StateError(
                    f"parameter {name!r}, {field!r}: got shape {np.shape(leaf)} in like, expected "
                    f"{numbers.shape}"
                )

    def array(field: str, path: str | None, leaf: Any) -> Any:
        return _as(leaf, found.states["0" if path is None else path][letters[field]])

    return _replaced(like, array, found.step_count)


def _replaced(state: Any, array: Callable[[str, str | None, Any], Any], steps: int) -> Any:
    """Return an opt_state with other arrays and counts."""
    kind = type(state).__name__
    if kind in TREES or kind in COUNTS:
        new = {
            field: _mapped(field, None, getattr(state, field), array)
            for field in TREES.get(kind, ())
        }
        new |= {
            field: _replaced(getattr(state, field), array, steps) for field in COUNTS.get(kind, ())
        }
        if "count" in state._fields:
            new["count"] = _as(state.count, np.asarray(steps))
        return state._replace(**new)
    if type(state) in (tuple, list) and state:
        return type(state)(_replaced(part, array, steps) for part in state)
    return state


def _mapped(field: str, path: str | None, tree: Any, array: Callable[..., Any]) -> Any:
    """Return a tree of the same containers with other arrays, by their paths."""
    inside = opened(tree)
    if inside is None:
        return array(field, path, tree)
    keys, parts = inside
    names = keys if keys is not None else map(str, range(len(parts)))
    new = [
        _mapped(field, key if path is None else f"{path}.{key}", part, array)
        for key, part in zip(names, parts, strict=True)
    ]
    kind = type(tree)
    if hasattr(tree, "_fields"):
        return kind(*new)
    return kind(new) if keys is None else kind(zip(keys, new, strict=True))


def _as(leaf: Any, numbers: HostArray) -> Any:
    """Return numbers as an array of a leaf's library and dtype."""
    if isinstance(leaf, (int, float)):
        return type(leaf)(numbers)
    values = np.array(numbers, np.dtype(leaf.dtype))
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(leaf, jax.Array):
        return jax.numpy.asarray(values)
    return values
