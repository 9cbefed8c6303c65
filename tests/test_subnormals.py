"""States below the smallest normal number of the arithmetic become +0, in every update."""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, KINDS, RULES
from formats_table import STATES
from formats_table import dtype as dtype_of
from test_bits import assert_same_bits, run
from test_formats import ADAM, as_array

import gpuadapt as ga
from gpuadapt import state_formats
from gpuadapt.optimizer import internals
from gpuadapt.oracle import evaluate

SMALLEST = {np.dtype("f4"): 1.1754943508222875e-38, np.dtype("f8"): 2.2250738585072014e-308}
SHAPE = (40, 12)
IDLE = 6
"""Steps with zeros for the gradient, or without one."""

TRAVERSALS = {
    "many": {},
    "strided": {},
    "rows": {},
    "row-wise": {"rowwise": True},
    "exact": {"sparse": "exact", "exactness": "bits"},
}


def named(*names):
    return [case for case in CASES if case.name in names]


EACH = [(case, "many") for case in KINDS] + [
    (case, traversal)
    for traversal, names in (
        ("strided", ("adam",)),
        ("rows", ("momentum", "adam")),
        ("row-wise", ("adam",)),
        ("exact", ("momentum", "adam")),
    )
    for case in named(*names)
]


def gradients(dtype):
    """Of all sizes whose squares, or which themselves, are about the smallest normal number."""
    random = np.random.default_rng(1)
    lowest = np.log10(SMALLEST[dtype])
    sizes = 10.0 ** random.uniform(lowest - 1, lowest / 2 + 3, SHAPE)
    return (sizes * np.sign(random.normal(size=SHAPE))).astype(dtype)


def started(case):
    """With states of zeros: what an accumulator begins with hides small squares."""
    return {name: 0.0 for name in ("initial_accumulator", "initial_square") if name in case.hyper}


def train(case, traversal, backend, gradient):
    """The table and the states after a step, and steps without any gradient that counts."""
    table = np.zeros(SHAPE, gradient.dtype)
    wide = np.zeros((SHAPE[0], 2 * SHAPE[1]), gradient.dtype)
    ours = backend.array(wide[:, ::2] if traversal == "strided" else table)
    optimizer = case.optimizer({"table": ours}, **TRAVERSALS[traversal], **started(case))
    every = backend.array(np.arange(SHAPE[0]))
    for step in range(1 + IDLE):
        values = backend.array(gradient if step == 0 else table * 0)
        if traversal not in ("rows", "row-wise", "exact"):
            given = values
        elif step == 0 or traversal != "exact":
            given = ga.RowGrad(every, values)
        else:
            given = ga.RowGrad(every[:0], values[:0])
        optimizer.step({"table": given})
    optimizer.flush()
    return [backend.numpy(a) for a in (ours, *optimizer.state["table"].values())]


def by_hand(case, gradient):
    """As `train`, of every element: by the rule's lines without what is around new states."""
    optimizer = case.optimizer({"table": np.zeros(SHAPE, gradient.dtype)}, **started(case))
    group = internals(optimizer).groups[0]
    rule = group.rule
    bare = replace(rule, results=tuple(one.removeprefix("_normal") for one in rule.results))
    found = [np.zeros_like(gradient)] * (1 + len(rule.states))
    for step in range(1 + IDLE):
        values = group.prepare(step).values
        numbers = rule.evaluate(*(values[name] for name in rule.hyperparameters), step + 1)
        given = gradient if step == 0 else gradient * 0
        found = evaluate(bare, [found[0], given, *found[1:]], numbers)
        found[1:] = [np.where(np.abs(x) < SMALLEST[x.dtype], 0, x) for x in found[1:]]
    return found


@pytest.mark.parametrize(
    ("case", "traversal"), EACH, ids=[f"{case.name}-{traversal}" for case, traversal in EACH]
)
def test_they_are_zero_after_a_step(case, traversal, backend):
    dtype = np.dtype(np.float32)
    found = train(case, traversal, backend, gradients(dtype))
    where = {"rule": case.name, "traversal": traversal, "backend": backend.name}
    for state in found[1:]:
        size = np.abs(state)
        assert ((size == 0) | (size >= SMALLEST[dtype])).all(), where
        assert not np.signbit(state[state == 0]).any(), where
        assert state.any(), where
    if traversal != "row-wise":
        for a, b in zip(found, by_hand(case, gradients(dtype)), strict=True):
            assert_same_bits(a, b, **where)


def test_of_every_kind_of_number(backend, dtype):
    """Parameters keep theirs; NaN, infinities and the smallest normal number stay in states."""
    smallest = dtype.type(SMALLEST[dtype])
    below, least = np.nextafter(smallest, dtype.type(0)), np.finfo(dtype).smallest_subnormal
    state = np.array([smallest, 1, np.inf, np.nan, below, least, 0], dtype)
    wanted = np.where(np.arange(7) < 4, state, dtype.type(0))
    state, wanted = np.append(state, -state), np.append(wanted, -wanted + dtype.type(0))
    rule, given = ga.rules.momentum, {"momentum": 1.0, "dampening": 0.0, "lr": 0.0}
    numbers = rule.evaluate(*(given[name] for name in rule.hyperparameters), 2)
    parameter = np.full_like(state, below)
    new, kept = run(backend, rule, [parameter, parameter * 0, state], numbers)
    assert_same_bits(kept, wanted, backend=backend.name)
    assert (new == below)[np.isfinite(state)].all()


@pytest.mark.parametrize("state", STATES)
def test_of_every_format(state, backend):
    """By the arithmetic's type: float16 has numbers too small for itself, and keeps them."""
    gradient = np.repeat(np.float32([[1e-6, 1e-36, 1e-37]]), SHAPE[0], axis=0)
    optimizer = ADAM({"w": backend.array(gradient * 0)}, state_dtype=state)
    optimizer.step({"w": as_array(backend, gradient.astype(dtype_of("bfloat16")))})
    m = state_formats.decoded(optimizer.state["w"]["m"]).astype(np.float32)
    assert m[:, 0].all()
    assert m[:, 1].all() == (state in ("float32", "bfloat16"))
    assert not m[:, 2].any()


def test_effective_rates_leave_states_as_they_are():
    """Also those below, such as a snapshot may have."""
    for rule in RULES:
        assert rule.results[1:] != rule.states or not rule.states, rule.name
        assert rule.rate.results[1:] == rule.states, rule.name
