"""A step that is refused, or interrupted at any line, leaves nothing behind for later ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from conftest import Backend
from interruptions import check_every_line

import gpuadapt as ga

TYPES = {"float32": np.float32, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16}
SHAPE = (6, 4)
NAMES = ("a", "b", "state of a", "state of b", "count")


def gradients(kind: str) -> dict[str, Any]:
    """Of two parameters."""
    dtype = TYPES[kind]
    values = np.linspace(-1, 1, 24).reshape(SHAPE).astype(dtype)
    return {"a": values, "b": values[::-1].copy()}


def wrong_type(optimizer: ga.Optimizer, kind: str) -> None:
    optimizer.step(gradients(kind) | {"b": np.ones(SHAPE, int)})


def wrong_shape(optimizer: ga.Optimizer, kind: str) -> None:
    optimizer.step(gradients(kind) | {"b": np.ones(3, TYPES[kind])})


def wrong_row(optimizer: ga.Optimizer, kind: str) -> None:
    outside = ga.RowGrad(np.array([0, 6]), np.ones((2, 4), TYPES[kind]))
    optimizer.step(gradients(kind) | {"b": outside})


def shared_memory(optimizer: ga.Optimizer, kind: str) -> None:
    optimizer.step(gradients(kind) | {"b": optimizer.state["a"]["b"]})


def wrong_rate(optimizer: ga.Optimizer, kind: str) -> None:
    (group,) = optimizer.param_groups
    before, group["lr"] = group["lr"], -1.0
    try:
        optimizer.step(gradients(kind))
    finally:
        group["lr"] = before


def wrong_option(optimizer: ga.Optimizer, kind: str) -> None:
    optimizer.step(gradients(kind), max_norm=-1.0)


REFUSED = (wrong_type, wrong_shape, wrong_row, shared_memory, wrong_rate, wrong_option)


def run(steps: list[Callable[[ga.Optimizer], None]]) -> list[np.ndarray]:
    """All arrays, and the counts, after steps of a new optimizer."""
    params = {name: np.ones(SHAPE, np.float32) for name in "ab"}
    optimizer = ga.SGD(params, lr=0.5, momentum=0.5)
    for step in steps:
        step(optimizer)
    states = [optimizer.state[name]["b"] for name in params]
    return [*params.values(), *states, np.array(optimizer.step_count)]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda f: f.__name__)
def test_a_refused_step_is_as_if_it_had_not_been(refused: Callable[..., None]) -> None:
    def bad(kind: str) -> Callable[[ga.Optimizer], None]:
        def step(optimizer: ga.Optimizer) -> None:
            with pytest.raises(ga.Error):
                refused(optimizer, kind)

        return step

    for first, of, then in itertools.product(TYPES, repeat=3):
        good = [lambda o, k=kind: o.step(gradients(k)) for kind in (first, then, then)]
        for before in (0, 1):  # nothing has been laid out yet, or a step has been taken
            steps = [*good[:before], bad(of), *good[before:]]
            for name, a, b in zip(NAMES, run(steps), run(good), strict=True):
                assert np.array_equal(a, b), f"{refused.__name__} {first} {of} {then} {name}"


def rows(k: int) -> ga.RowGrad:
    return ga.RowGrad(np.array([k % 3, 2]), np.full((2, 4), 1.0 + k, np.float32))


def dense(k: int, kind: str = "float32") -> np.ndarray:
    return np.full(SHAPE, 1.0 + k, TYPES[kind])


Step = Callable[[int, ga.LossScale], dict[str, Any]]
"""The arguments of the k-th step: ``grads``, of NumPy arrays, a rate ``lr``, and keywords."""


def plainly(k: int, _: ga.LossScale) -> dict[str, Any]:
    return {"grads": {"a": dense(k), "b": dense(k)}}


def of_rows(k: int, _: ga.LossScale) -> dict[str, Any]:
    return {"grads": {"a": rows(k), "b": rows(k + 1)}}


def scaled(k: int, scale: ga.LossScale) -> dict[str, Any]:
    return plainly(k, scale) | {"grad_scale": scale}


def skipped(k: int, scale: ga.LossScale) -> dict[str, Any]:
    return {"grads": {"a": np.full(SHAPE, np.inf, "f"), "b": dense(k)}, "grad_scale": scale}


class Scenario(NamedTuple):
    """Steps, the last of which fails."""

    steps: list[Step]
    settings: dict[str, Any] = {}
    """Of the optimizer."""
    back: bool = False
    """The step after the failure is also tried as the first one was, not only as the last."""


SCENARIOS = {
    "first": Scenario([plainly]),
    "repeated": Scenario([lambda k, s: {"grads": {"a": dense(0), "b": dense(k)}}] * 2),
    "another type": Scenario(
        [plainly, lambda k, s: {"grads": {"a": dense(k), "b": dense(k, "float64")}}],
    ),
    "another set": Scenario(
        [
            lambda k, s: {"grads": {"a": dense(k), "b": None}},
            lambda k, s: {"grads": {"a": None, "b": dense(k)}},
        ],
        back=True,
    ),
    "another option": Scenario(
        [plainly, lambda k, s: plainly(k, s) | {"grad_scale": 2.0, "max_norm": 3.0}],
        back=True,
    ),
    "rows": Scenario([plainly, lambda k, s: {"grads": {"a": rows(k), "b": dense(k)}}]),
    "exact rows": Scenario(
        [lambda k, s: {"grads": {"a": rows(0), "b": rows(k)}}, of_rows],
        {"sparse": "exact", "exactness": "bits"},
    ),
    "exact rows in closed form": Scenario([of_rows, of_rows], {"sparse": "exact"}),
    "norm of rows": Scenario([of_rows, lambda k, s: of_rows(k, s) | {"max_norm": np.inf}]),
    "loss scale": Scenario([scaled, scaled]),
    "loss scale, skipped": Scenario([scaled, skipped]),
    # After a step that was skipped, only a GPU knows the number of steps.
    "another rate": Scenario(
        [scaled, skipped, lambda k, s: scaled(k, s) | {"lr": 0.25}],
        back=True,
    ),
    "another limit": Scenario(
        [
            lambda k, s: scaled(k, s) | {"clip_value": 0.5},
            lambda k, s: skipped(k, s) | {"clip_value": 0.5},
            lambda k, s: scaled(k, s) | {"clip_value": 0.25},
        ],
        back=True,
    ),
}


class Run:
    """An optimizer, and its loss scale, after all steps of a scenario but the last."""

    def __init__(self, backend: Backend, scenario: Scenario) -> None:
        *before, self.step = self.steps = scenario.steps
        self.backend, self.scale = backend, ga.LossScale(4.0, interval=2, minimum=2.0**-10)
        self.params = {name: backend.array(np.ones(SHAPE, np.float32)) for name in "ab"}
        self.optimizer = ga.SGD(self.params, lr=0.5, momentum=0.5, **scenario.settings)
        for k, step in enumerate(before):
            self.take(step, k)

    def given(self, grad: Any) -> Any:
        if isinstance(grad, ga.RowGrad):
            return ga.RowGrad(self.backend.array(grad.rows), self.backend.array(grad.values))
        return None if grad is None else self.backend.array(grad)

    def take(self, step: Step, k: int) -> None:
        arguments = step(k, self.scale)
        self.optimizer.param_groups[0]["lr"] = arguments.pop("lr", 0.5)
        grads = {name: self.given(grad) for name, grad in arguments.pop("grads").items()}
        self.optimizer.step(grads, **arguments)

    def after(self, back: bool) -> list[Any]:
        """Arrays, counts and the scale after three more steps.

        With ``back``, the first of them is as the scenario began.
        """
        for k, step in enumerate([self.steps[0] if back else self.step, self.step, self.step]):
            self.take(step, k)
        self.optimizer.flush()
        snapshot = self.optimizer.state_dict()
        counts = [snapshot["state"][name]["updates"] for name in self.params]
        arrays = [*self.params.values(), *(self.optimizer.state[name]["b"] for name in self.params)]
        scale = self.scale.state_dict()
        found = [self.backend.numpy(array) for array in arrays]
        return [*found, snapshot["step_count"], *counts, *scale.values()]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_step_may_be_interrupted_at_any_line(name: str, backend: Backend) -> None:
    """The state is the one before it, or the one after it."""
    scenario = SCENARIOS[name]
    for back in (False, True) if scenario.back else (False,):
        taken = Run(backend, scenario)
        taken.take(taken.step, 0)
        wanted = Run(backend, scenario).after(back), taken.after(back)

        def begin(back: bool = back) -> tuple[Callable[[], Any], Callable[[], list[Any]]]:
            run = Run(backend, scenario)
            return lambda: run.take(run.step, 0), lambda: run.after(back)

        check_every_line(begin, wanted, [KeyboardInterrupt])
