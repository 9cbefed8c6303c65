"""States of Keras 3's optimizers, as their `variables` or `save_own_variables` have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpuadapt.kernels import pieces, rules

from ..arrays import describe
from ..errors import StateError
from ..optimizer import Optimizer
from .states import (
    OTHER,
    Found,
    Method,
    check_equal,
    check_product,
    count_of,
    load,
    method_of,
    methods,
    number_of,
    parameters_of,
    rate_differs,
    state_of,
)

ADAM = [rule.variant(root=pieces.uncorrected) for rule in (rules.adam, rules.amsgrad)]
RMSPROP = (rules.rmsprop, rules.rmsprop_velocity, rules.centered, rules.centered_velocity)

METHODS = [
    *methods("SGD", [rules.sgd, rules.velocity, rules.nesterov_velocity], b="-momentum"),
    *methods("Adagrad", [rules.adagrad], G="accumulator"),
    *methods("RMSprop", RMSPROP, G="velocity", b="momentum", M="average_gradient"),
    *methods("Adadelta", [rules.adadelta], G="accumulated_grad", U="accumulated_delta_var"),
    *methods("Adam", ADAM, m="momentum", v="velocity", w="velocity_hat"),
    *methods("Adamax", [rules.adamax], m="momentum", u="norm"),
    *methods("Nadam", [rules.nadam], m="momentum", v="velocity"),
    *methods("Ftrl", [rules.ftrl], n="accumulator", z="linear"),
    *methods("Lion", [rules.lion], m="momentum"),
]
"""AdamW is Adam with weight decay."""

BLOCKS = {"RMSprop": ("G", "b", "M"), "Adam": ("mv", "w")}
"""The order of variables: all states of a block for the first parameter, then for the next; by
default all are in one block."""


def from_keras(state: Any, optimizer: Optimizer) -> None:
    """Bring the states of a Keras optimizer into one of gpuadapt.

    Parameters
    ----------
    state : list of variables, or dict
        The optimizer's ``variables``, or what ``save_own_variables`` wrote: arrays by "0", "1",
        ... (in a file of weights below "optimizer/vars"). The former are safer: their names are
        checked.
    optimizer : Optimizer
        Made by the method of `ga.presets.keras`, with the same settings, of parameters in the
        order in which Keras has its trainable variables. It takes over the states, in its own
        formats, and the count of steps. Schedules stay and continue from that count.

    Raises
    ------
    StateError
        The learning rate, the number, name or shape of a variable differs. Nothing has changed
        then. Keras keeps no other settings among its variables.
    """
    method = method_of("keras", METHODS, optimizer)
    given = _listed(state)
    parameters = parameters_of(optimizer)
    expected = list(_layout(method, list(parameters)))
    product = ["variable"] if method.name == "Nadam" else []
    most = 2 + len(expected) + len(product)
    if len(given) not in (most, most - 1):
        raise StateError(
            f"got {len(given)} variables{_names(given)}, expected {most} of {method.name} with "
            f"{len(parameters)} parameters, or without a learning rate {most - 1}; averages "
            "(use_ema), gradient accumulators and loss scales have no place here; " + OTHER
        )
    heads = ["iteration"] + ["learning_rate"] * (len(given) == most)
    slots = [method.states[letter].name for _, letter in expected]
    _check_names(given, [*heads, *slots, *product])
    steps = count_of("iteration", given[0])
    _check_rate(optimizer, given[1] if len(given) == most else None)
    for group in optimizer.param_groups if product else ():
        check_product("keras", given[-1], group, steps)
    arrays: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for (name, letter), variable in zip(expected, given[len(heads) :], strict=False):
        arrays[name][letter] = variable
    states = {name: state_of(method, parameters[name], arrays[name]) for name in parameters}
    load(optimizer, Found(steps, dict.fromkeys(parameters, steps), states))


def _listed(state: Any) -> list[Any]:
    """Return the variables in order."""
    if not isinstance(state, Mapping):
        if not isinstance(state, (list, tuple)):
            raise StateError(
                f"state: got {describe(state)}, expected the optimizer's variables "
                "(optimizer.variables) or the dict of save_own_variables"
            )
        return list(state)
    keys = [str(number) for number in range(len(state))]
    if {*state} != {*keys}:
        raise StateError(f"state: got keys {sorted(map(str, state))}, expected '0', '1', ...")
    return [state[key] for key in keys]


def _layout(method: Method, names: list[str]) -> Iterator[tuple[str, str]]:
    """List (parameter, letter) in the order of Keras's variables."""
    for block in BLOCKS.get(method.name, ("".join(method.states),)):
        for name in names:
            for letter in block:
                if letter in method.states:
                    yield name, letter


def _names(given: list[Any]) -> str:
    """Return the names of variables for a message; "" for arrays."""
    names = [each for each in (getattr(one, "name", None) for one in given) if each]
    return f" ({', '.join(map(str, names))})" if names else ""


def _check_names(given: list[Any], expected: list[str]) -> None:
    """Check the names of variables; arrays have none."""
    for number, (variable, name) in enumerate(zip(given, expected, strict=True)):
        found = getattr(variable, "name", None)
        if isinstance(found, str) and not f"_{found}".endswith(f"_{name}"):
            raise StateError(f"variable {number}: got {found!r}, expected a {name!r}; {OTHER}")


def _check_rate(optimizer: Optimizer, variable: Any) -> None:
    """Check the learning rate of each group; None stands for a schedule in Keras."""
    ours = [group["lr"] for group in optimizer.param_groups]
    if variable is None:
        if not all(map(callable, ours)):
            raise StateError(
                "learning_rate: Keras has a schedule, which is no variable, this optimizer "
                f"{ours[0]!r}; make it with one of gpuadapt.schedules as learning_rate"
            )
        return
    theirs = number_of("learning_rate", variable)
    check_equal("keras", (("learning_rate", theirs, b) for b in ours if rate_differs(theirs, b)))
