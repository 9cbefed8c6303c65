"""States of TensorFlow 1's optimizers, as checkpoints name them; TensorFlow is not imported."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels import pieces, rules

from ..arrays import describe
from ..errors import StateError
from ..optimizer import Optimizer
from .states import (
    OTHER,
    Found,
    Method,
    agreed,
    count_of,
    load,
    method_of,
    methods,
    number_of,
    parameters_of,
    state_of,
)

RMSPROP = (rules.rmsprop, rules.rmsprop_velocity)
CENTERED = (rules.centered, rules.centered_velocity)

METHODS = [
    *methods("GradientDescentOptimizer", [rules.sgd]),
    *methods("MomentumOptimizer", [rules.momentum, rules.nesterov], b="Momentum"),
    *methods("AdagradOptimizer", [rules.adagrad.variant(root=pieces.without)], G="Adagrad"),
    *methods("RMSPropOptimizer", RMSPROP, G="RMSProp", b="RMSProp_1"),
    *methods("RMSPropOptimizer", CENTERED, G="RMSProp", M="RMSProp_1", b="RMSProp_2"),
    *methods("AdadeltaOptimizer", [rules.adadelta], G="Adadelta", U="Adadelta_1"),
    *methods(
        "AdamOptimizer",
        [rules.adam.variant(root=pieces.uncorrected)],
        m="Adam",
        v="Adam_1",
    ),
    *methods("FtrlOptimizer", [rules.ftrl], n="Ftrl", z="Ftrl_1"),
]
"""States have the names of slots: the optimizer's, then a number."""

UNUSED = {"rmsprop": "RMSProp_1", "centered": "RMSProp_2"}
"""By rule: the slot of the momentum, which TensorFlow also has where momentum is 0."""

SLOT = re.compile("(.+)/((?:Momentum|Adagrad|RMSProp|Adadelta|Adam|Ftrl)(?:_[0-9]+)?)")
POWERS = ("beta1_power", "beta2_power")
STEP = "global_step"


def from_tensorflow(
    state: Mapping[str, Any], optimizer: Optimizer, *, steps: int | None = None
) -> None:
    """Bring the states of a `tf.compat.v1.train` optimizer into one of gpuadapt.

    Parameters
    ----------
    state : dict
        Arrays by the names that a checkpoint has, such as "dense/kernel/Adam_1"; with ``reader =
        tf.train.load_checkpoint(path)`` it is ``{name: reader.get_tensor(name) for name in
        reader.get_variable_to_shape_map()}``. Variables that no optimizer has are left out.
    optimizer : Optimizer
        Made by the method of `ga.presets.tensorflow`, with the same settings, of parameters with
        TensorFlow's names ("dense/kernel"; "dense.kernel" counts as that). It takes over the
        states, in its own formats, and the count of steps. Schedules stay and continue from it.
    steps : int, optional
        The number of steps taken, if the checkpoint has no "global_step". Adam's is computed from
        the powers of its betas.

    Raises
    ------
    StateError
        A slot is missing or unknown, a shape differs, or there is no count. Settings are not among
        a checkpoint's variables, but for Adam's betas. Nothing has changed then.
    """
    method = method_of("tensorflow", METHODS, optimizer)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise StateError(f"state: got {describe(state)}, expected a dict of arrays by name")
    parameters = parameters_of(optimizer)
    names = {name.replace("/", "."): name for name in parameters}
    slots: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for key, array in state.items():
        if found := SLOT.fullmatch(key):
            name = names.get(found[1].replace("/", "."))
            if name is None:
                raise StateError(
                    f"got {key!r}, but this optimizer has no parameter {found[1]!r}; it has "
                    f"{', '.join(parameters)}"
                )
            slots[name][found[2]] = array
    states = {}
    for name, parameter in parameters.items():
        given = {letter: slots[name].pop(slot.name, None) for letter, slot in method.states.items()}
        slots[name].pop(UNUSED.get(method.rule.name, ""), None)
        if slots[name]:
            raise StateError(f"parameter {name!r}: unknown slot {min(slots[name])!r}; {OTHER}")
        states[name] = state_of(method, parameter, given)
    count = _steps(method, state, optimizer, steps)
    load(optimizer, Found(count, dict.fromkeys(parameters, count), states))


def _steps(
    method: Method, state: Mapping[str, Any], optimizer: Optimizer, steps: int | None
) -> int:
    """Return the number of steps."""
    counted = [count_of(STEP, state[STEP])] if STEP in state else []
    if method.name != "AdamOptimizer":
        return agreed(method, counted, steps)
    betas = {(group["beta1"], group["beta2"]) for group in optimizer.param_groups}
    if len(betas) > 1 or any(map(callable, *betas)):
        raise StateError("betas: TensorFlow has one pair of numbers for all parameters")
    powers = [_power(state, name) for name in POWERS]
    pair = [float(np.float32(beta)) for beta in betas.pop()]
    seen = [_exponent(power, beta) for power, beta in zip(powers, pair, strict=True)]
    known = [number for number in seen if number is not None]
    if any(abs(number - round(number)) > 0.25 for number in known) or any(
        abs(known[0] - number) > 0.5 for number in known
    ):
        raise StateError(
            f"{POWERS[0]} and {POWERS[1]}: got {powers}, which are no powers of this optimizer's "
            f"betas {tuple(pair)}; make it with TensorFlow's"
        )
    # They are those of the next step.
    return agreed(method, [*counted, *(round(number) - 1 for number in known[:1])], steps)


def _power(state: Mapping[str, Any], name: str) -> float:
    """Return one of Adam's two powers."""
    if name not in state:
        raise StateError(f"{name!r}: it is missing, AdamOptimizer keeps it; {OTHER}")
    return number_of(name, state[name])


def _exponent(power: float, beta: float) -> float | None:
    """Return log(power) / log(beta); None where float32 has too few bits left, or beta is 0."""
    smallest = float(np.finfo(np.float32).tiny)
    return math.log(power) / math.log(beta) if smallest < power < 1 and 0 < beta < 1 else None
