"""Formats of parameters, gradients and states: what they share with float32, and what not."""

import copy
import functools
import pickle
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import CASES
from conftest import BACKENDS, installed
from formats_by_numpy import Reference
from formats_table import GRADIENTS, PAIRS, PARAMETERS, ROWS, STATES, Kept, always, dtype, make
from lazy import merged

import gpuadapt as ga
from gpuadapt import state_formats
from gpuadapt.hyperparameters import INTERVALS
from gpuadapt.kernels.cpu import compile, multi_tensor
from gpuadapt.kernels.formats import BLOCK, bfloat16, random_bits, traffic
from gpuadapt.kernels.language.powers import not_of_gradients_size
from gpuadapt.kernels.language.precision import needs
from gpuadapt.optimizer import internals
from gpuadapt.oracle import evaluate, same_bits

SHAPE = (170, 301)
"""Rows of a block and a part of one, half of which begin with an odd number; more elements than
one thread works on alone."""

STEPS = 3
HYPER = {"lr": 0.02, "eps": 1e-3}
ADAM = functools.partial(ga.Adam, **HYPER)


def as_array(backend, values):
    """An array on a backend; of bfloat16 the bits, where the library has no such type."""
    if values.dtype.name != "bfloat16":
        return backend.array(values)
    placed = backend.array(values.view(np.uint16))
    return placed.view(values.dtype) if backend.name == "cpu" else placed


def contents(backend, optimizer, name="w"):
    """The parameter and everything that is kept of it."""
    arrays = internals(optimizer).parameters[name].arrays
    return [np.array(array) if backend.name == "cpu" else array.get() for array in arrays]


def assert_equal(got, want, where=""):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        same = a == b if a.dtype.kind == "u" else same_bits(a, b)
        assert same.all(), (where, a[~same][:4], b[~same][:4], (~same).mean())


def start(parameter, shape=SHAPE, seed=3):
    random = np.random.default_rng(seed)
    w = random.normal(size=shape).astype(parameter.dtype)
    gradients = random.normal(size=(STEPS, *shape))
    # Some rows of numbers that 8 bits beside the others' do not hold, and zeros of both signs.
    gradients[:, ::3] *= 10.0 ** -random.integers(0, 12, gradients[:, ::3].shape)
    gradients[:, 1::5, ::7] *= 0
    return w, list(gradients.astype(dtype(GRADIENTS[parameter.element])))


def rewrite(w, step, backend=None):
    """What an owner may do between steps: other numbers in some rows, zeros in others."""
    random = np.random.default_rng(step)
    other = (random.normal(size=(len(w), SHAPE[1])) * 10.0 ** random.integers(-3, 3)).astype(
        w.dtype
        if w.dtype.name in ("bfloat16", "float16", "float32", "float64")
        else dtype("bfloat16")
    )
    other[::2] = 0
    w[step::5] = other[step::5] if backend is None else as_array(backend, other[step::5])


def formats_of(optimizer):
    """The formats of an optimizer's only parameter."""
    (parameter,) = internals(optimizer).parameters.values()
    return parameter.formats


def trained(name, parameter, state, layout=lambda array: array, method=ADAM):
    """The contents after some dense steps on a backend, between which the owner writes."""
    with installed(name) as backend:
        w, gradients = start(parameter)
        w = as_array(backend, layout(w))
        optimizer = make(method, w, parameter, state)
        for step, gradient in enumerate(gradients):
            optimizer.step({"w": as_array(backend, layout(gradient))})
            if step < STEPS - 1:
                rewrite(w, step, backend)
        return contents(backend, optimizer)


def by_reference(parameter, state, method=ADAM):
    """As `trained`, by NumPy: loads, the rule's lines and stores, one after the other."""
    w, gradients = start(parameter)
    w = w.copy()
    optimizer = make(method, w, parameter, state)
    held, group = internals(optimizer).parameters["w"], internals(optimizer).groups[0]
    arrays, places, draw = iter(held.arrays), [], 0
    for form in held.formats.updated:
        found = [next(arrays) for _ in form.parts]
        places.append(Reference(form, found, SHAPE[1], draw))
        draw += form.random
    elements = np.arange(w.size, dtype=np.uint32).reshape(SHAPE)
    for t, gradient in enumerate(gradients, start=1):
        values = group.prepare(t - 1).values
        numbers = group.rule.evaluate(*(values[h] for h in group.rule.hyperparameters), t)
        g = state_formats.decoded(gradient).astype(held.compute_dtype)
        results = evaluate(
            group.rule, [places[0].read(), g, *(p.read() for p in places[1:])], numbers
        )
        seeds = np.array([held.random_key], np.int64).view(np.uint32)
        keys = [random_bits.key_of(seed, np.uint32(t)) for seed in seeds]
        if held.formats.paired:
            random = random_bits.random_bits(elements >> np.uint32(1), *keys)
            random <<= (elements & np.uint32(1)) << np.uint32(4)
        else:
            random = random_bits.random_bits(elements, *keys)
        for place, result in zip(places, results, strict=True):
            place.write(result, random)
        if t < STEPS:
            rewrite(w, t - 1)
    return held.arrays


def ids(pair):
    return f"{pair[0].name} with {pair[1]}"


@pytest.mark.parametrize("pair", PAIRS, ids=ids)
def test_every_backend_does_what_load_rule_and_store_say(pair):
    """Bit for bit, dense; with one thread and with all, and a parameter with gaps."""
    wanted = by_reference(*pair)
    for name in BACKENDS:
        assert_equal(trained(name, *pair), wanted, name)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert_equal(trained("cpu", *pair), wanted, "one thread")
    finally:
        numba.set_num_threads(before)
    got = trained("cpu", *pair, layout=lambda array: np.repeat(array, 2, axis=1)[:, ::2])
    assert_equal(got, wanted, "gaps")
    got = trained("cpu", *pair, layout=np.asfortranarray)
    assert_equal(got, wanted, "Fortran's order")


def summed(rows, values):
    """The gradient of a whole table, every row of which occurs."""
    found = merged(rows, values)
    return np.stack([found[row] for row in range(len(found))])


KINDS = ("momentum", "centered-momentum", "amsgrad", "ftrl")
"""Rules with states of either sign, up to three of them, and one that reads the parameter."""


@pytest.mark.parametrize("case", [c for c in CASES if c.name in KINDS], ids=lambda c: c.name)
def test_every_kind_of_rule_has_them(case):
    pair = Kept("bfloat16", {"rounding": "stochastic"}), "8bit"
    wanted = by_reference(*pair, case.optimizer)
    for name in BACKENDS:
        assert_equal(trained(name, *pair, method=case.optimizer), wanted, name)


@pytest.mark.parametrize("pair", ROWS, ids=ids)
@pytest.mark.parametrize("name", BACKENDS)
def test_rows_have_the_bits_of_the_dense_update(name, pair):
    """Duplicates summed; also rows of a table with gaps, and of many columns."""
    check_rows(name, *pair, SHAPE)


@pytest.mark.parametrize("parameter", [PARAMETERS[0], PARAMETERS[3]], ids=lambda kept: kept.name)
@pytest.mark.parametrize("name", BACKENDS)
def test_rows_of_whole_blocks_have_the_bits_of_the_dense_update(name, parameter):
    """Two blocks and a part of one, aligned, of which a GPU moves four elements at once."""
    check_rows(name, parameter, "8bit", (8, 2 * BLOCK + 4))


def check_rows(name, parameter, state, shape):
    random = np.random.default_rng(8)
    element = GRADIENTS[parameter.element]
    with installed(name) as backend:
        w, _ = start(parameter, shape)
        gapped = np.repeat(w, 2, axis=1)[:, ::2]
        arrays = [as_array(backend, array) for array in (w, w, gapped)]
        dense, *by_rows = [make(ADAM, array, parameter, state) for array in arrays]
        for _ in range(STEPS):
            every = np.arange(shape[0])
            rows = random.permutation(np.concatenate([every, every[::3]]))
            values = random.normal(size=(len(rows), shape[1])).astype(dtype(element))
            given = backend.array(rows), as_array(backend, values)
            for optimizer in by_rows:
                optimizer.step({"w": ga.RowGrad(*given)})
            # Duplicates are summed in the wider type of gradient and arithmetic.
            numbers = state_formats.decoded(values)
            numbers = numbers.astype(
                np.result_type(numbers, internals(dense).parameters["w"].compute_dtype)
            )
            dense.step({"w": backend.array(summed(rows, numbers))})
        wanted = contents(backend, dense)
        for optimizer in by_rows:
            assert_equal(contents(backend, optimizer), wanted)


def test_some_rows_of_a_table_with_gaps_have_the_bits_of_one_without():
    """Rows that occur are copied side by side, but their random bits go by where they were."""
    found = []
    for layout in (np.copy, lambda array: np.repeat(array, 2, axis=1)[:, ::2]):
        w = layout(np.ones((40, 64), dtype("bfloat16")))
        optimizer = ga.Adam({"w": w}, lr=2.0**-10, rounding="stochastic", state_dtype="bfloat16")
        rows, values = np.array([31, 7, 31, 12]), np.ones((4, 64), np.float32)
        optimizer.step({"w": ga.RowGrad(rows, values)})
        with installed("cpu") as backend:
            found.append(contents(backend, optimizer))
    assert_equal(found[1], found[0])
    assert len(np.unique(found[0][0][7])) == 2 and (found[0][0][7] != found[0][0][12]).any()


@ga.rule(nonnegative="v")
def yogi(p, g, m, v, h):
    m = h.beta1 * m + (1 - h.beta1) * g
    v = v - (1 - h.beta2) * sign(v - sq(g)) * sq(g)  # noqa: F821
    return p - h.lr * m / (sqrt(v) + h.eps), m, v  # noqa: F821


@ga.rule(nonnegative="G")
def graves(p, g, G, M, h):
    M = h.rho * M + (1 - h.rho) * g
    G = h.rho * G + (1 - h.rho) * sq(g)  # noqa: F821
    return p - h.lr / sqrt(maximum(G - M * M, 0) + h.eps) * g, G, M  # noqa: F821


@ga.rule(nonnegative="s")
def belief(p, g, m, s, h):
    m = h.beta1 * m + (1 - h.beta1) * g
    s = h.beta2 * s + (1 - h.beta2) * sq(g - m)  # noqa: F821
    return p - h.lr * m / (sqrt(s) + h.eps), m, s  # noqa: F821


@ga.rule(nonnegative="V")
def by_hand(p, g, m, V, h):
    d = g - m
    V = h.rho * V + h.rho * (1 - h.rho) * (d * d)
    m = h.rho * m + (1 - h.rho) * g
    return p - h.lr / sqrt(V + h.eps) * g, m, V  # noqa: F821


@ga.rule
def crossing(p, g, a, b, h):
    a = h.beta1 * a + (1 - h.beta1) * g
    b = h.beta2 * b + (1 - h.beta2) * g
    return p - h.lr * (a - b), a, b


@ga.rule
def mixed(p, g, a, b, h):
    a = h.beta1 * a + (1 - h.beta1) * g
    b = h.beta2 * b + (1 - h.beta2) * g
    return p - h.lr * (a + h.momentum * b), a, b


@ga.rule
def of_unknown_sign(p, g, a, b, h):
    a = h.beta1 * a + (1 - h.beta1) * g
    b = h.beta2 * b + (1 - h.beta2) * g
    return p - h.lr * (a + h.unknown * b), a, b


@ga.rule(nonnegative=("a", "b"))
def rates_apart(p, g, a, b, h):
    a = h.beta1 * a + (1 - h.beta1) * sq(g)  # noqa: F821
    b = h.beta2 * b + (1 - h.beta2) * sq(g)  # noqa: F821
    return p - h.lr * (1 / sqrt(a) - 1 / sqrt(b)) * g, a, b  # noqa: F821


@ga.rule
def summed_up(p, g, s, h):
    s = s + g
    return p - h.lr * s, s


@ga.rule(nonnegative="v")
def not_by_sq(p, g, v, h):
    v = h.beta2 * v + (1 - h.beta2) * g * g
    return p - h.lr / (sqrt(v) + h.eps) * g, v  # noqa: F821


@ga.rule
def unknown_share(p, g, s, h):
    s = h.unknown * s + g
    return p - h.lr * s, s


@ga.rule
def signed_squares(p, g, s, h):
    s = h.beta1 * s + (1 - h.beta1) * g * abs(g)
    return p - h.lr * s, s


@ga.rule
def around(p, g, a, b, h):
    return p - h.lr * a, h.beta1 * a + b, h.beta1 * b + a + g


@ga.rule(nonnegative="v")
def careful(p, g, m, v, h):
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)  # noqa: F821
    u = m / (sqrt(v) + h.eps)  # noqa: F821
    return p - h.lr * where(u * g > 0, u, 0), m, v  # noqa: F821


NEEDS = {
    ga.rules.momentum: ({}, ""),
    ga.rules.nesterov_velocity: ({}, ""),
    ga.rules.adagrad: ({"G": 8}, "G"),
    ga.rules.rmsprop_momentum: ({}, "G"),
    ga.rules.centered: ({"M": 32}, "V"),
    ga.rules.adadelta: ({"G": 16, "U": 16}, "GU"),
    ga.rules.adam: ({}, "v"),
    ga.rules.amsgrad: ({"v": 16, "w": 16}, "vw"),
    ga.rules.adamax: ({}, "u"),
    ga.rules.nadam: ({}, "v"),
    ga.rules.radam: ({}, "v"),
    ga.rules.lion: ({}, ""),
    ga.rules.ftrl: ({"z": 32, "n": 32}, "zn"),
    yogi: ({"v": 32}, "v"),
    graves: ({"G": 32, "M": 32}, "G"),
    belief: ({"m": 32}, "s"),
    by_hand: ({"m": 32}, "V"),
    crossing: ({"a": 32, "b": 32}, ""),
    mixed: ({}, ""),
    of_unknown_sign: ({"a": 32, "b": 32}, ""),
    rates_apart: ({"a": 32, "b": 32}, "ab"),
    summed_up: ({"s": 32}, ""),
    not_by_sq: ({}, "v"),
    unknown_share: ({"s": 32}, ""),
    signed_squares: ({}, "s"),
    around: ({"a": 32, "b": 32}, ""),
    careful: ({}, "v"),
}
"""What states may not have fewer bits than, and those that float16 has no numbers for."""


@pytest.mark.parametrize("rule", NEEDS, ids=lambda rule: rule.name)
def test_what_a_state_needs_is_found_in_the_lines_of_its_rule(rule):
    wanted, squares = NEEDS[rule]
    found = needs(rule.program, INTERVALS)
    assert {state: need.bits for state, need in found.items()} == wanted
    assert not_of_gradients_size(rule.program) == set(squares)


def test_states_that_need_more_are_kept_wider_if_all_are_given():
    values = dict.fromkeys(("lr", "beta1", "beta2", "eps"), 0.5)
    for kind, wanted in (("8bit", "8bit, signed"), ("float16", "float16, saturated")):
        for element in ("float32", "float64"):
            w = np.zeros((2, 16), element)
            formats = formats_of(ga.Optimizer(yogi, w, state_dtype=kind, **values))
            assert [form.name for form in formats.states] == [wanted, element]
    formats = formats_of(ga.Adam(np.zeros(3, np.float32), amsgrad=True, state_dtype="8bit"))
    assert [f.name for f in formats.states] == ["8bit, signed"] + 2 * ["bfloat16, stochastic"]


def test_rowwise_states_are_plain_and_backends_agree():
    found = []
    for name in BACKENDS:
        with installed(name) as backend:
            w = as_array(backend, np.ones((40, 70), dtype("bfloat16")))
            optimizer = ga.Adam({"w": w}, rowwise=True, state_dtype="8bit", rounding="stochastic")
            random = np.random.default_rng(1)
            for _ in range(STEPS):
                rows, values = random.integers(0, 40, 99), random.normal(size=(99, 70))
                optimizer.step({"w": ga.RowGrad(backend.array(rows), backend.array(values))})
            found.append(contents(backend, optimizer))
            assert isinstance(optimizer.state["w"]["m"], ga.Quantized)
            assert optimizer.state["w"]["v"].shape == (40,)
    for other in found[1:]:
        assert_equal(other, found[0])


def test_many_arrays_of_many_formats_are_as_each_alone():
    """Groups with formats of their own; the seed and the name decide, not the place."""
    random = np.random.default_rng(4)
    pairs = [
        (Kept("float32", {}), "8bit"),
        (Kept("bfloat16", {"rounding": "stochastic"}), "bfloat16"),
        (Kept("float32", {}), "bfloat16"),
    ]
    sizes = (1, 255, 257, 20_000)
    params, grads, alone = {}, {}, {}
    groups = []
    for k, (parameter, state) in enumerate(pairs):
        names = {f"{k}.{size}": random.normal(size=size).astype(parameter.dtype) for size in sizes}
        params |= names
        groups.append({"params": {n: w.copy() for n, w in names.items()}, "state_dtype": state,
                       **parameter.settings})  # fmt: skip
        for name, w in names.items():
            alone[name] = ga.Adam({name: w.copy()}, state_dtype=state, **parameter.settings)
    together = ga.Adam(groups)
    for _ in range(STEPS):
        grads = {name: random.normal(size=w.shape).astype(np.float32) for name, w in params.items()}
        together.step(grads)
        for name, optimizer in alone.items():
            optimizer.step({name: grads[name]})
    with installed("cpu") as backend:
        for name, optimizer in alone.items():
            got = contents(backend, together, name)
            assert_equal(got, contents(backend, optimizer, name))


@pytest.mark.parametrize("master", ["split", "float32"])
def test_a_master_has_the_bits_of_float32_parameters(master):
    """The parameter is what it rounds to; 16 bits beside it, or a copy."""
    parameter = Kept("bfloat16", {"master": master})
    w, gradients = start(parameter)
    plain, kept = w.astype(np.float32), w.copy()
    exact = ga.Adam({"w": plain}, state_dtype="bfloat16", lr=1e-4)
    optimizer = ga.Adam({"w": kept}, state_dtype="bfloat16", lr=1e-4, master=master)
    for gradient in gradients * 10:
        exact.step({"w": gradient})
        optimizer.step({"w": gradient})
    held = internals(optimizer).parameters["w"]
    whole = held.formats.parameter.decode([kept, *held.companions.values()])
    assert np.array_equal(whole, plain)
    off = np.abs(kept.astype(np.float32) - plain)
    assert (off <= np.abs(plain) * 2.0**-8).all()


REMEDIES = {
    "nearest": {},
    "stochastic": {"rounding": "stochastic"},
    "kahan": {"rounding": "kahan"},
    "split": {"master": "split"},
    "float32": {"master": "float32"},
}


@pytest.mark.parametrize("element", ["bfloat16", "float16"])
def test_small_updates_vanish_unless_they_are_helped(element):
    """Steps of 1e-4 of the weight, 300 of them, from 1: it should arrive near 0.97."""
    wanted = 1 - 300 * 1e-4
    for name, settings in REMEDIES.items():
        if (element, name) == ("float16", "split"):
            continue
        w = np.ones((64, 64), dtype(element))
        optimizer = ga.SGD({"w": w}, lr=1e-4, **settings)
        for _ in range(300):
            optimizer.step({"w": np.ones((64, 64), np.float32)}, stats=["w"])
        mean, stats = w.astype(np.float64).mean(), optimizer.stats("w")
        if name == "nearest":
            assert mean == 1 and stats.lost == 1 and stats.ratio == 0
        else:
            place = 2.0 ** -(8 if element == "bfloat16" else 11)
            assert abs(mean - wanted) < place / 2 + 2e-3, (name, mean)
            kept = name != "stochastic"
            assert stats.lost == 0 if kept else 0.6 < stats.lost < 1
            assert stats.ratio == pytest.approx(1.03e-4, rel=0.1) if kept else stats.ratio > 1e-4


def test_running_means_of_few_bits_do_not_stop_moving():
    """A second moment that decays by 1 in 1000: to the nearest it would stay for ever."""
    for state in ("bfloat16", "float16", "8bit"):
        w = np.zeros((16, 256), np.float32)
        optimizer = ga.Adam({"w": w}, state_dtype=state)
        optimizer.step({"w": np.ones_like(w)})
        began = np.asarray(state_formats.decoded(optimizer.state["w"]["v"]), float).mean()
        for _ in range(500):
            optimizer.step({"w": np.zeros_like(w)})
        v = np.asarray(state_formats.decoded(optimizer.state["w"]["v"]), float).mean()
        assert v == pytest.approx(began * 0.999**500, rel=0.03), state


def test_float16_with_infinities_and_a_small_eps():
    w = np.ones(1000, np.float16)
    optimizer = ga.Adam({"w": w}, eps=1e-8, lr=1e-2, state_dtype="float16", master="float32")
    gradient = np.full(1000, 1e-3, np.float16)
    gradient[7] = np.inf
    optimizer.step({"w": gradient}, skip_nonfinite=True, grad_scale=8.0)
    assert optimizer.last.skipped and (w == 1).all() and optimizer.step_count == 0
    gradient[7] = 0  # a weight without a gradient: 0 / (0 + eps), not 0 / 0
    optimizer.step({"w": gradient}, skip_nonfinite=True, grad_scale=8.0)
    assert not optimizer.last.skipped and w[7] == 1
    norm = np.sqrt(999) * float(np.float16(1e-3)) / 8
    assert optimizer.last.grad_norm == pytest.approx(norm, rel=1e-6)
    assert np.allclose(w[:7].astype(float), 0.99, atol=1e-3)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_block_with_what_8_bits_do_not_hold_keeps_its_neighbours(name):
    """They are as they would be beside a zero, bit for bit; the element itself is a number."""
    with installed(name) as backend:
        found = []
        for lost in (0.0, np.inf, np.nan):
            w = backend.array(np.zeros((2, 301), np.float32))
            optimizer = ADAM({"w": w}, state_dtype="8bit")
            gradient = np.random.default_rng(0).normal(size=(2, 301)).astype(GRADIENT)
            for step in range(2):
                gradient[0, 100] = gradient[0, 280] = lost if step == 0 else 1
                optimizer.step({"w": as_array(backend, gradient)})
            found.append(contents(backend, optimizer)[1:])
        for one in found[1:]:
            for array, wanted in zip(one, found[0], strict=True):
                same = np.array(array == wanted)
                if array.dtype == np.uint8:
                    same[0, [100, 280]] = True
                assert same.all()
        decoded = ga.Quantized(*found[1][2:4], False).decoded()
        assert np.isfinite(decoded).all()


GRADIENT = dtype(GRADIENTS["float32"])

WRITTEN = [pair for pair in PAIRS if pair[0].element in ("bfloat16", "float16")]


NANS = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFC00000], np.uint32).view(np.float32)
"""What arithmetic makes of infinities on ARM, on NVIDIA's GPUs and on x86."""


@pytest.mark.parametrize("pair", PAIRS, ids=ids)
def test_the_bits_of_a_nan_reach_no_number(pair):
    """Backends make NaN with other signs and payloads: it stays NaN, and all else is equal."""
    parameter, state = pair
    results = []
    for nan in NANS:
        w, gradients = start(parameter)
        optimizer = make(ADAM, w, parameter, state)
        for step, grad in enumerate(gradients):
            if step == 1:
                grad[[0, -1], [2, 1]] = nan
            optimizer.step({"w": grad})
        arrays = {"w": w} | dict(optimizer.state["w"])
        found = {name: np.asarray(a).astype(np.float64) for name, a in arrays.items()}
        if "compensation" in found:  # as bits, NaN among them
            found["compensation"][np.isnan(found["w"])] = 0
        results.append(found)
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, other[name], name)
    assert np.argwhere(np.isnan(results[0]["w"])).tolist() == [[0, 2], [len(w) - 1, 1]]
    for name in "mv":
        assert np.isnan(results[0][name]).sum() == (0 if state == "8bit" else 2)


@pytest.mark.parametrize("pair", WRITTEN, ids=ids)
def test_a_step_begins_with_what_the_owner_has_written(pair):
    """A step of length 0 leaves it; the lower half of a split number is worth half a unit."""
    parameter, state = pair
    w, gradients = start(parameter)
    optimizer = make(ADAM, w, parameter, state)
    optimizer.step({"w": gradients[0]})
    random = np.random.default_rng(1)
    other = random.normal(size=SHAPE) * 10.0 ** random.integers(-3, 3, SHAPE)
    w[...] = other.astype(w.dtype)
    w[::2, ::3] = 0
    wanted = w.astype(np.float32)
    held = internals(optimizer).parameters["w"]
    seen = held.formats.parameter.decode([w, *held.companions.values()])
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step({"w": gradients[1]})
    half = np.abs(wanted) * 2.0 ** -(8 if parameter.element == "bfloat16" else 11) + 2.0**-133
    assert (np.abs(seen - wanted) <= half).all()
    if {"kahan", "split"} & set(parameter.settings.values()):
        # What lies in the middle may be rounded to the neighbour.
        assert (np.abs(w.astype(np.float32) - wanted) <= 2 * half).all()
    else:
        assert np.array_equal(w.astype(np.float32), wanted)


def test_a_step_after_a_resume_has_the_same_bits():
    pair = Kept("bfloat16", {"rounding": "stochastic"}), "8bit"
    w, gradients = start(pair[0])
    optimizer = make(ga.Adam, w, *pair, seed=7)
    optimizer.step({"w": gradients[0]})
    again = w.copy()
    other = make(ga.Adam, again, *pair, seed=7)
    other.load_state_dict(optimizer.state_dict())
    third = pickle.loads(pickle.dumps(copy.deepcopy(optimizer)))
    assert formats_of(third) == formats_of(optimizer)
    for one in (optimizer, other, third):
        one.step({"w": gradients[1]})
    with installed("cpu") as backend:
        wanted = contents(backend, optimizer)
        for one in (other, third):
            assert_equal(contents(backend, one), wanted)
    for changed in ({"seed": 8}, {"rounding": "nearest"}, {"state_dtype": "bfloat16"}):
        given = {"state_dtype": pair[1], **pair[0].settings, "seed": 7} | changed
        with pytest.raises(ga.HyperparameterError, match="but the states are made for"):
            ga.Adam({"w": w.copy()}, **given).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("state", ["float32", "bfloat16", "8bit"])
def test_elements_beyond_32_bits_have_random_bits_of_their_own(state):
    """The loop itself, across a multiple of 2^32 (of pairs 2^33), which no array here reaches."""
    optimizer = ga.SGD(
        np.zeros(1, dtype("bfloat16")), momentum=0.5, rounding="stochastic", state_dtype=state
    )
    rule, formats = optimizer.rule, formats_of(optimizer)
    size, shift = 2 * BLOCK, 33 if formats.paired else 32
    begin = 2**shift - BLOCK
    module = compile.load(rule.name, multi_tensor.source(rule, formats))
    arrays = [np.zeros(n, kind) for form in formats.every for kind, n in (
        (kind, 2 if part == "scale" else size) for part, kind in form.parts)]  # fmt: skip
    arrays[0][:] = 0x3F80  # one
    given = {"h_lr": np.float32(2.0**-10)}
    numbers = [given.get(name, np.float32(1)) for name in rule.coefficients]
    arrays[1][:] = 0x3F80
    keys = np.uint32(5), np.uint32(7)
    buffers = [np.zeros(BLOCK, np.float32)] * formats.block
    # What Python cannot call is compiled anew.
    update_span = numba.njit(module.update_span.py_func, error_model="numpy")
    update_span(tuple(arrays), tuple(numbers), np.int64(begin), keys, tuple(buffers))
    number = begin + np.arange(size)
    element, page = [(number >> by).astype(np.uint32) for by in (shift - 32, shift)]
    random = random_bits.random_bits(element, *(random_bits.key_on(k, page) for k in keys))
    if formats.paired:
        random <<= ((number & 1) << 4).astype(np.uint32)
    down = bfloat16.bfloat16_random(np.full(size, np.float32(1 - 2.0**-10)),
                                           random >> np.uint32(16))  # fmt: skip
    assert np.array_equal(arrays[0], down) and len(np.unique(down)) == 2


def test_random_bits_depend_on_seed_name_step_and_element():
    def rounded(seed=0, name="w", steps=1):
        w = np.ones(4096, dtype("bfloat16"))
        optimizer = ga.SGD({name: w}, lr=2.0**-10, rounding="stochastic", seed=seed)
        for _ in range(steps):
            w[...] = 1
            optimizer.step({name: np.ones(4096, np.float32)})
        return w.view(np.uint16).copy()

    first = rounded()
    assert np.array_equal(first, rounded())
    assert (first != rounded()[::-1]).mean() > 0.2
    for other in (rounded(seed=1), rounded(name="u"), rounded(steps=2)):
        assert 0.2 < (first != other).mean() < 0.5


BYTES = {
    "float32": 12, "bfloat16 state": 8, "8-bit state": 6, "all bfloat16": 6,
    "all bfloat16, split": 8, "all bfloat16, master": 10, "bfloat16, 8-bit state": 4,
}  # fmt: skip
"""Of a parameter with Adam's states, as docs/formats.md has them; scales are 1.6 % of a byte."""


def test_memory_per_parameter_is_what_the_documentation_says():
    size = 256 * 100
    settings = {
        "float32": ("float32", {}), "bfloat16 state": ("float32", {"state_dtype": "bfloat16"}),
        "8-bit state": ("float32", {"state_dtype": "8bit"}),
        "all bfloat16": ("bfloat16", {"state_dtype": "bfloat16", "rounding": "stochastic"}),
        "all bfloat16, split": ("bfloat16", {"state_dtype": "bfloat16", "master": "split"}),
        "all bfloat16, master": ("bfloat16", {"state_dtype": "bfloat16", "master": "float32"}),
        "bfloat16, 8-bit state": ("bfloat16", {"state_dtype": "8bit", "rounding": "stochastic"}),
    }  # fmt: skip
    text = (Path(__file__).parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")
    for name, (element, given) in settings.items():
        w = np.zeros(size, dtype(element))
        optimizer = ga.Adam(w, **given)
        kept = w.nbytes + sum(state.nbytes for state in optimizer.state["0"].values())
        scales = sum(8 / 512 * 2 for state in optimizer.state["0"].values()
                     if isinstance(state, ga.Quantized)) / 2  # fmt: skip
        assert kept / size == pytest.approx(BYTES[name] + scales)
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        moved = traffic(formats_of(optimizer)) - 2 * scales
        assert [int(cell) for cell in row.split("|")[2:4]] == [BYTES[name], moved]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: ga.Adam(w, state_dtype="int8"), "state_dtype: got 'int8', expected one of None"),
        (lambda w: ga.Adam(w, state_dtype={"k": "8bit"}), "state_dtype: no state 'k', but"),
        (lambda w: ga.Adam(w, state_dtype={"m": 8}), "state_dtype: got 8"),
        (lambda w: ga.Adam(w, state_dtype="float64"), "got 'float64' for 'm' of '0'"),
        (lambda w: ga.Adam(w, master="bfloat16"), "master: got 'bfloat16', expected one of None"),
        (lambda w: ga.Adam(w, rounding="up"), "rounding: got 'up', expected one of 'nearest'"),
        (lambda w: ga.Adam(w, rounding="kahan", master="split"), "rounding: got 'kahan' with"),
        (lambda w: ga.Adam(w, seed=-1), "seed: got -1, expected a whole number from 0"),
        (lambda w: ga.Adam(w, seed=True), "seed: got True"),
        (lambda w: ga.Adam(w, rowwise=True, state_dtype={"v": "8bit"}), "'v' has one number"),
        (
            lambda w: ga.Adam(w, initial={"v": 1e6}, state_dtype={"v": "float16"}),
            "initial v: 1000000.0 does",
        ),
        (lambda w: ga.Adam(w, initial={"v": 1e60}, state_dtype="8bit"), "initial v: 1e\\+60 does"),
        (lambda w: ga.Adam(w, initial={"v": 3.3e38}, state_dtype="8bit"), "3.3e\\+38 does not"),
        (lambda w: ga.Adam(w, initial={"m": 1e-9}, state_dtype="float16"), "1e-09 does not fit"),
        (lambda w: ga.Adam(w, initial={"v": 1e-60}), "initial v: 1e-60 does not fit in float32"),
        (lambda w: ga.Adagrad(w, initial={"G": -0.1}), "initial G: got -0.1, expected a num"),
        (lambda w: ga.Adam(w, amsgrad=True, initial={"w": -1.0}), "initial w: got -1.0, expected"),
        (lambda w: ga.Adam(w, initial={"m": np.nan}), "initial m: got nan, expected"),
        (lambda w: ga.Adam(w, initial={"m": np.inf}), "initial m: got inf, expected"),
        (lambda w: ga.FTRL(w, state_dtype={"z": "bfloat16"}), "'z' of 'ftrl', which takes float32"),
        (lambda w: ga.FTRL(w.astype(float), state_dtype={"z": "float32"}), "which takes float64"),
        (lambda w: ga.Adadelta(w, state_dtype={"G": "8bit"}), "which takes bfloat16: it goes into"),
        (lambda w: ga.Adagrad(w, state_dtype={"G": "float16"}), "which takes bfloat16 or 8bit"),
        (lambda w: ga.RMSprop(w, centered=True, state_dtype={"M": "8bit"}), "'M' of 'centered'"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(ga.HyperparameterError, match=message):
        call(np.zeros((3, 16), np.float32))


def test_what_parameters_cannot_be():
    with pytest.raises(ga.ParameterError, match="'0': float16 is no half of a float32"):
        ga.Adam(np.zeros(3, np.float16), master="split")

    @ga.rule
    def low(p, g, low, h):
        """low <- g"""
        return p - h.lr * low, g

    with pytest.raises(ga.ParameterError, match="the rule has a state 'low' itself"):
        ga.Optimizer(low, np.zeros(3, dtype("bfloat16")), lr=1.0, master="split")

    @ga.rule
    def counted(p, g, updates, h):
        return p - h.lr * updates, g

    with pytest.raises(ga.ParameterError, match="rule has a state 'updates' itself"):
        ga.Optimizer(counted, np.zeros(3), lr=1.0)
    narrow = ga.Adam({"w": np.zeros((9, 4), np.float32)}, state_dtype="8bit")
    with pytest.raises(ga.GradientError, match="rows of 4 elements share scales"):
        narrow.step({"w": ga.RowGrad(np.array([1]), np.zeros((1, 4), np.float32))})
    assert narrow.step_count == 0
    with pytest.raises(ga.ParameterError, match="no stats of 'w': take a step with"):
        narrow.stats("w")
    with pytest.raises(ga.ParameterError, match="no parameter 'v'; there are w"):
        narrow.step({"w": np.zeros((9, 4), np.float32)}, stats=["v"])
    assert narrow.step_count == 0


def test_states_begin_as_they_are_told_and_rates_are_of_what_is_kept():
    for state in STATES:
        w = np.zeros((3, 20), np.float32)
        optimizer = ga.Adagrad({"w": w}, lr=1.0, initial={"G": 0.1}, state_dtype=state)
        kept = state_formats.decoded(optimizer.state["w"]["G"])
        assert np.allclose(kept, 0.1, rtol=0.07) and (kept == kept[0, 0]).all()
        optimizer.step({"w": np.full_like(w, 2)})
        kept = state_formats.decoded(optimizer.state["w"]["G"])
        assert np.allclose(optimizer.effective_lr("w"), 1 / np.sqrt(kept + np.float32(1e-8)))
        assert np.array_equal(state_formats.decoded(optimizer.state["w"]["G"]), kept)


def test_stats_are_of_rows_on_every_backend_and_of_no_step_that_was_skipped():
    found = []
    for name in BACKENDS:
        with installed(name) as backend:
            w = as_array(backend, np.ones((40, 16), dtype("bfloat16")))
            optimizer = ga.Adam({"w": w}, lr=1e-2, check="skip", rounding="stochastic")
            rows, values = backend.array(np.array([3, 99, 3])), backend.array(np.ones((3, 16)))
            optimizer.step({"w": ga.RowGrad(rows, values)}, stats=["w"])
            found.append(optimizer.stats("w"))
            optimizer.step(
                {"w": ga.RowGrad(rows, backend.array(np.full((3, 16), np.inf)))},
                stats=["w"], skip_nonfinite=True,
            )  # fmt: skip
            with pytest.raises(ga.ParameterError, match="no stats of 'w'"):
                optimizer.stats("w")
    assert len(set(map(repr, found))) == 1 and found[0].ratio > 0


def test_stats_of_rows_and_of_rowwise_states():
    w = np.ones((40, 16), np.float32)
    optimizer = ga.Adam({"w": w, "b": np.ones(3)}, lr=1e-4, rowwise=True)
    rows, values = np.array([3, 3, 5]), np.ones((3, 16), np.float32)
    optimizer.step({"w": ga.RowGrad(rows, values), "b": None}, stats=["w", "b"])
    stats = optimizer.stats("w")
    assert stats.lost == 0 and stats.ratio == pytest.approx(1e-4, rel=1e-2)
    assert stats.rates[0.05] == pytest.approx(5e-5) and stats.rates[0.95] == pytest.approx(1e-4)
    with pytest.raises(ga.ParameterError, match="no stats of 'b'"):
        optimizer.stats("b")


def test_other_gradients_make_other_tables_and_the_same_step():
    """Types of gradients may change from step to step; each is taken as it is."""
    w, v = np.ones(300, np.float32), np.ones(300, np.float32)
    optimizer, exact = ga.SGD({"w": w}, lr=0.1), ga.SGD({"w": v}, lr=0.1)
    for element in ("float32", "bfloat16", "bfloat16", "float64", "float16", "float32"):
        gradient = np.linspace(-1, 1, 300).astype(dtype(element))
        optimizer.step({"w": gradient})
        exact.step({"w": gradient.astype(np.float32)})
        assert np.array_equal(w, v)


def test_every_pair_is_tried_by_someone():
    chosen = [(p, s) for p in PARAMETERS for s in STATES if always(p, s)]
    assert all(sum(one == p for one, _ in chosen) >= 1 for p in PARAMETERS)
    assert all(sum(one == s for _, one in chosen) >= 2 for s in STATES)
    assert "ml_dtypes" in sys.modules
