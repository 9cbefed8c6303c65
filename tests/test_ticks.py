"""The ticks of docs/combinations.md: with every format a method moves as far as in float32.

Every method, with every way to keep its parameter and its states, takes 1,500 steps with noisy
gradients and with steady ones. The root mean square of the distances that its weights have moved is
within 10 % of float32's. All of them by NumPy, from the rules' lines and the loads and stores that
kernels have too (test_formats says so, bit for bit); some of them by kernels, or all
(GPUADAPT_EVERY_FORMAT=1).
"""

import runpy
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from formats_by_numpy import Reference
from formats_table import BY_ROWS, EVERY, GRADIENTS, PARAMETERS, ROWS, STATES, Kept, dtype

import gpuadapt as ga
from gpuadapt import state_formats
from gpuadapt.optimizer import internals
from gpuadapt.oracle import evaluate

STEPS, WIDTH = 1500, 128
LIMIT = 0.1
FLOAT32 = Kept("float32", {})
FORMS = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "combinations.py"))["FORMS"]
METHODS = [(name, form) for name in ga.optimizers.__all__ for form in ({}, *FORMS.get(name, []))]

# Rounding to the nearest is the one that loses small updates: test_formats shows how, and
# docs/formats.md says so.
KEPT = [(p, "float32") for p in PARAMETERS if p.settings or p.element == "float32"]
PAIRS = KEPT + [(FLOAT32, state) for state in STATES if state != "float32"]


def ids(method):
    return f"{method[0]}({', '.join(f'{k}={v!r}' for k, v in method[1].items())})"


def gradients(random):
    """A row of noisy ones and a row of steady ones."""
    noise = random.normal(size=(2, WIDTH))
    return np.stack([0.3 + noise[0], 1 + 0.1 * noise[1]]).astype(np.float32)


def start():
    """Weights that every format holds."""
    w = np.random.default_rng(1).normal(size=(2, WIDTH))
    return w.astype(ml_dtypes.bfloat16).astype(np.float32)


def made(method, parameter, state, **more):
    """An optimizer; without states there are none to keep in fewer bits."""
    name, form = method
    given = {} if state == "float32" else {"state_dtype": state}
    w = start().astype(parameter.dtype)
    return getattr(ga, name)({"w": w}, **form, **given, **parameter.settings, **more)


def moved(w):
    """How far each row of weights has moved, by the root of the mean of squares."""
    return np.sqrt(np.square(w.astype(float) - start()).mean(axis=1))


class Stack:
    """All that is kept in one format, in one array for each of its parts."""

    def __init__(self, form):
        self.form, self.first, self.random = form, [], np.random.default_rng(2)

    def add(self, values):
        self.first.append(values)
        return len(self.first) - 1

    def begin(self):
        values = np.stack(self.first)
        shapes = {"scale": (2 * len(values), 1)}
        arrays = [
            np.zeros(shapes.get(part, values.shape), dtype) for part, dtype in self.form.parts
        ]
        self.place = Reference(self.form, arrays, WIDTH, 0)
        self.write(values)
        self.read()

    def read(self):
        self.values = np.asarray(self.place.read(), np.float32)
        self.new = np.empty_like(self.values)

    def write(self, values):
        random = self.random.integers(0, 2**32, values.shape, np.uint32)
        self.place.write(values, random if self.form.random else np.uint32(0))


def test_every_tick_is_earned():
    stacks, runs, groups = {}, [], []
    for method in METHODS:
        seen, members = set(), []
        for parameter, state in PAIRS:
            if state != "float32" and not made(method, FLOAT32, "float32").rule.states:
                continue
            optimizer = made(method, parameter, state)
            formats = internals(optimizer).parameters["w"].formats
            if formats.updated in seen:
                continue
            seen.add(formats.updated)
            first = [start(), *(np.zeros((2, WIDTH), np.float32) for _ in formats.states)]
            for letter, values in zip(optimizer.rule.states, first[1:], strict=True):
                values[...] = state_formats.decoded(optimizer.state["w"][letter])
            places = [
                (stacks.setdefault(form, Stack(form)), values)
                for form, values in zip(formats.updated, first, strict=True)
            ]
            members.append([(stack, stack.add(values)) for stack, values in places])
            runs.append((method, parameter, state, members[-1][0]))
        groups.append((internals(made(method, FLOAT32, "float32")).groups[0], members))
    for stack in stacks.values():
        stack.begin()
    random = np.random.default_rng(3)
    for t in range(1, STEPS + 1):
        g = gradients(random)
        for group, members in groups:
            values = group.prepare(t - 1).values
            numbers = group.rule.evaluate(*(values[h] for h in group.rule.hyperparameters), t)
            given = [np.stack([stack.values[k] for stack, k in column])
                     for column in zip(*members, strict=True)]  # fmt: skip
            every = np.broadcast_to(g, given[0].shape)
            results = evaluate(group.rule, [given[0], every, *given[1:]], numbers)
            for column, result in zip(zip(*members, strict=True), results, strict=True):
                for (stack, k), one in zip(column, result, strict=True):
                    stack.new[k] = one
        for stack in stacks.values():
            stack.write(stack.new)
            stack.read()
    wanted, wrong = {}, []
    for method, parameter, state, (stack, k) in runs:
        got = moved(stack.values[k])
        wanted.setdefault(ids(method), got)  # float32 comes first
        if not (np.abs(got / wanted[ids(method)] - 1) <= LIMIT).all():
            wrong.append((ids(method), parameter.name, state, got / wanted[ids(method)] - 1))
    assert len(wanted) == len(METHODS) and not wrong, wrong


TRAVERSALS = ("dense", "rows", "exact") if EVERY else ("dense", "rows")
FEW = [
    pair for pair in ROWS if ([pair[0].element, *pair[0].settings.values()][-1], pair[1]) in BY_ROWS
]
"""Those whose kernels test_formats compiles too, with gradients of the same type."""


def stepped(optimizer, traversal, element):
    random = np.random.default_rng(3)
    for _ in range(STEPS):
        g = gradients(random).astype(dtype(element))
        optimizer.step({"w": g if traversal == "dense" else ga.RowGrad(np.arange(2), g)})
    return moved(state_formats.decoded(optimizer.params["w"]))


def in_float32(method, element):
    """The same by NumPy, in float32."""
    group, random = internals(made(method, FLOAT32, "float32")).groups[0], np.random.default_rng(3)
    parameter = internals(made(method, FLOAT32, "float32")).parameters["w"]
    arrays = [start(), *(state_formats.decoded(state) for state in parameter.states.values())]
    for t in range(1, STEPS + 1):
        values = group.prepare(t - 1).values
        numbers = group.rule.evaluate(*(values[h] for h in group.rule.hyperparameters), t)
        g = state_formats.decoded(gradients(random).astype(dtype(element)))
        arrays = evaluate(group.rule, [arrays[0], g, *arrays[1:]], numbers)
    return moved(arrays[0])


@pytest.mark.parametrize("pair", PAIRS if EVERY else FEW, ids=lambda p: f"{p[0].name}, {p[1]}")
@pytest.mark.parametrize("method", METHODS if EVERY else [("Adam", {})], ids=ids)
def test_kernels_earn_them_too(method, pair):
    if pair[1] != "float32" and not made(method, FLOAT32, "float32").rule.states:
        pytest.skip("there are no states")
    element = GRADIENTS[pair[0].element]
    wanted = in_float32(method, element)
    for traversal in TRAVERSALS:
        more = {"sparse": "exact"} if traversal == "exact" else {}
        optimizer = made(method, *pair, **more)
        got = stepped(optimizer, traversal, element)
        assert (np.abs(got / wanted - 1) <= LIMIT).all(), (traversal, got / wanted - 1)
