"""A step that is refused, or fails before it writes, leaves nothing behind for later ones."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

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


SCENARIOS: dict[str, tuple[dict[str, Any], list[Callable[..., None]]]] = {
    "first": ({}, [lambda o, k: o.step({"a": dense(k), "b": dense(k)})]),
    "repeated": ({}, [lambda o, k: o.step({"a": dense(0), "b": dense(k)})] * 2),
    "another type": (
        {},
        [
            lambda o, k: o.step({"a": dense(k), "b": dense(k)}),
            lambda o, k: o.step({"a": dense(k), "b": dense(k, "float64")}),
        ],
    ),
    "another set": (
        {},
        [
            lambda o, k: o.step({"a": dense(k), "b": None}),
            lambda o, k: o.step({"a": None, "b": dense(k)}),
        ],
    ),
    "another option": (
        {},
        [
            lambda o, k: o.step({"a": dense(k), "b": dense(k)}),
            lambda o, k: o.step({"a": dense(k), "b": dense(k)}, grad_scale=2.0, max_norm=3.0),
        ],
    ),
    "rows": (
        {},
        [
            lambda o, k: o.step({"a": dense(k), "b": dense(k)}),
            lambda o, k: o.step({"a": rows(k), "b": dense(k)}),
        ],
    ),
    "exact rows": (
        {"sparse": "exact", "exactness": "bits"},
        [
            lambda o, k: o.step({"a": rows(0), "b": rows(k)}),
            lambda o, k: o.step({"a": rows(k), "b": rows(k + 1)}),
        ],
    ),
}


SOURCES = str(Path(ga.__file__).parent)


UPDATES = tuple(
    os.path.join("kernels", "cpu", f"{name}.py")
    for name in ("multi_tensor", "strided", "rows", "exact_rows")
)
"""The modules whose updates write to arrays."""


class Failure(Exception):
    """Raised in the middle of a step."""


def fails_at(line: int, step: Callable[[], None]) -> bool:
    """Run a step that fails at the n-th line of gpuadapt's Python before anything is written.

    False if fewer lines came before that.
    """
    left = line

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        code = frame.f_code
        if not code.co_filename.startswith(SOURCES):
            return None
        if code.co_name == "__call__" and code.co_filename.endswith(UPDATES):
            left = -1  # from here on kernels write
        if event == "line" and left >= 0:
            left -= 1
            if left < 0:
                raise Failure
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    except Failure:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_step_may_fail_at_any_line_before_it_writes(scenario: str) -> None:
    settings, steps = SCENARIOS[scenario]
    *before, last = steps

    def made() -> tuple[dict[str, np.ndarray], ga.Optimizer]:
        params = {name: np.ones(SHAPE, np.float32) for name in "ab"}
        optimizer = ga.SGD(params, lr=0.5, momentum=0.5, **settings)
        for k, step in enumerate(before):
            step(optimizer, k)
        return params, optimizer

    def after(params: dict[str, np.ndarray], optimizer: ga.Optimizer) -> list[Any]:
        for k in range(3):
            last(optimizer, k)
        optimizer.flush()
        snapshot = optimizer.state_dict()
        counts = [snapshot["state"][name]["updates"] for name in params]
        states = [optimizer.state[name]["b"] for name in params]
        return [*params.values(), *states, snapshot["step_count"], *counts]

    wanted = after(*made())
    for line in itertools.count():
        params, optimizer = made()
        if not fails_at(line, lambda o=optimizer: last(o, 0)):
            break
        for found, expected in zip(after(params, optimizer), wanted, strict=True):
            assert np.array_equal(found, expected), f"{scenario}, line {line}"
    assert line > 20
