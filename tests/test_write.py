"""Numbers that a parameter is given: what 16 bits leave out is kept where there is room for it."""

import ml_dtypes
import numpy as np
import pytest
from conftest import installed
from formats_table import PARAMETERS
from test_exact import METHODS
from test_exact import arrays as arrays_of

import gpuadapt as ga
from gpuadapt import state_formats
from gpuadapt.optimizer import internals

FULL = np.random.default_rng(0).normal(size=(7, 33)) * 10.0 ** np.arange(-3, 4)[:, None]
ALLOWED = {"master": 0.0, "low": 0.0, "compensation": 2.0**-17}
"""The relative distance from the float32 numbers, by what is kept beside the parameter."""


def given(backend, values):
    """An array of the backend; CuPy has bfloat16 as bits."""
    bits = values.dtype == ml_dtypes.bfloat16 and backend.name != "cpu"
    return backend.array(values.view(np.uint16) if bits else values)


def seen(optimizer, name="w"):
    """What the next step starts from, and the parameter alone."""
    parameter = internals(optimizer).parameters[name]
    parts = [parameter.array, *parameter.companions.values()]
    return parameter.formats.parameter.decode(parts), state_formats.decoded(parameter.array)


@pytest.mark.parametrize("kept", PARAMETERS, ids=lambda kept: kept.name)
@pytest.mark.parametrize("source", ["float32", "float64", "bfloat16"])
def test_a_parameter_holds_what_it_is_given(kept, source, backend):
    """After another start, and from an array of either backend."""
    kind = np.dtype(ml_dtypes.bfloat16 if source == "bfloat16" else source)
    values = FULL.astype(kind)
    wide = values.astype(np.float64 if kept.element == "float64" else np.float32)
    for where in (given(backend, values), values):
        w = np.full(FULL.shape, 3.0).astype(kept.dtype)
        optimizer = ga.SGD({"w": given(backend, w)}, momentum=0.5, **kept.settings)
        state = next(iter(optimizer.state["w"].values()))
        state[...] = given(backend, np.full(FULL.shape, 2.0).astype(state.dtype))
        optimizer.write("w", where)
        effective, narrow = seen(optimizer)
        (beside,) = internals(optimizer).parameters["w"].companions or ("",)
        rounded = wide.astype(kept.dtype).astype(wide.dtype)
        assert np.array_equal(narrow, rounded), kept.name
        limit = ALLOWED.get(beside, 0.0) * np.abs(wide)
        if beside == "compensation" and kept.element == "float16":
            limit = np.maximum(limit, 2.0**-25)  # its smallest number
        expected = wide if beside else rounded
        assert (np.abs(effective - expected) <= limit).all(), kept.name
        assert (backend.numpy(state) == 2).all()


def test_exact_rows_take_what_they_have_missed_before(backend):
    """States are those of dense steps, before and after; so are rows that are missed later."""
    random = np.random.default_rng(1)
    make = METHODS["momentum"]
    table, new = random.normal(size=(2, 8, 3)).astype(np.float32)
    whole, ours = table.copy(), backend.array(table)
    dense = make({"table": whole}, lr=0.1)
    exact = make({"table": ours}, lr=0.1, sparse="exact", exactness="bits")
    for step in range(6):
        rows, values = random.integers(8, size=2), random.normal(size=(2, 3)).astype(np.float32)
        gradient = ga.RowGrad(rows, values)
        dense.step({"table": gradient.to_dense(table.shape)})
        exact.step({"table": ga.RowGrad(backend.array(rows), backend.array(values))})
        if step == 3:
            dense.write("table", new)
            exact.write("table", new)
            assert np.array_equal(whole, new) and np.array_equal(backend.numpy(ours), new)
    exact.flush()
    with installed("cpu") as cpu:
        expected = arrays_of(dense, cpu)
    for a, b in zip(arrays_of(exact, backend), expected, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0, 3.0], "values of 'w': got list, expected float64, float32, float16, bfloat16"),
        (np.ones(4, np.float32), r"values of 'w': got NumPy float32.*of shape \(3,\)"),
        (np.ones(3, int), "values of 'w': got NumPy int64"),
        (np.ma.masked_less(np.ones(3), 0), "values of 'w': got numpy.ma"),
        (np.array([1.0, 1e5, 2.0]), "values of 'w': 100000.0 does not fit in float16"),
        (np.array([1.0, 1e300, 2.0]), "values of 'w': 1e.300 does not fit in float16"),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"master": "float32"}, {"rounding": "kahan"}], ids=str)
def test_values_that_are_refused_change_nothing(values, message, settings):
    w = np.ones(3, np.float16)
    optimizer = ga.SGD({"w": w}, **settings)
    before = {k: v.copy() for k, v in optimizer.state["w"].items()}
    with pytest.raises(ga.ParameterError, match=message):
        optimizer.write("w", values)
    assert (w == 1).all()
    assert all(np.array_equal(v, before[k]) for k, v in optimizer.state["w"].items())
    with pytest.raises(ga.ParameterError, match="no parameter 'x'"):
        optimizer.write("x", values)


def test_a_parameter_that_is_read_only_now():
    w = np.ones(3, np.float16)
    optimizer = ga.SGD({"w": w}, master="float32")
    w.setflags(write=False)
    with pytest.raises(ga.ParameterError, match="'w': the array has been made read-only"):
        optimizer.write("w", np.zeros(3))
    assert (w == 1).all() and (optimizer.state["w"]["master"] == 1).all()


def test_what_is_not_finite_is_written_as_it_is():
    w = np.ones(3, np.float16)
    ga.SGD({"w": w}, master="float32").write("w", np.array([np.inf, np.nan, -np.inf]))
    assert np.array_equal(w, np.array([np.inf, np.nan, -np.inf], np.float16), equal_nan=True)


FTRL = {
    "plain": {"beta": 0.0, "initial_accumulator": 0.1},
    "l1": {"lr": 0.3, "l1": 0.4, "beta": 1.0},
    "l2": {"lr": 0.05, "l1": 0.1, "l2": 3.0, "beta": 0.0},
    "rowwise": {"lr": 0.3, "l1": 0.4, "initial_accumulator": 2.0},
}


@pytest.mark.parametrize("name", FTRL)
def test_ftrl_keeps_weights(name, dtype, by_numpy):
    """A zero gradient leaves them, those of other groups too; without it they become zero."""
    start = np.array([[-2.0, -1e-3, 0.0], [1e-3, 0.7, 30.0]], dtype)
    for keep in (False, True):
        a, b = start.copy(), start.copy()
        groups = [{"params": {"a": a}}, {"params": {"b": b}, "lr": 0.7, "l2": 1.0}]
        optimizer = ga.FTRL(groups, keep_weights=keep, **FTRL[name])
        optimizer.step([{"a": np.zeros_like(a)}, {"b": np.zeros_like(b)}])
        for got in (a, b):
            away = np.abs(got - start) / np.spacing(np.abs(start) + (start == 0))
            # A small weight is the difference of z and l1.
            small = (FTRL[name].get("l1", 0.0) > 0) * (np.abs(start) < 0.01)
            assert (away[small == 0] <= 2).all() if keep else (got == 0).all(), name
            assert np.allclose(got, start, rtol=1e-4) or not keep, name
    moved = start.copy()
    ga.FTRL(moved, keep_weights=True, **FTRL[name]).step(np.ones_like(start))
    assert (moved < start).all()


def test_ftrl_starts_alike_in_every_format(backend):
    """z comes from the weights as they are, whatever their type and backend."""
    start = FULL.astype(ml_dtypes.bfloat16)
    make = {"lr": 0.2, "l1": 0.1, "keep_weights": True}
    wide = ga.FTRL(start.astype(np.float32), **make).state["0"]["z"]
    for settings in ({}, {"master": "float32"}, {"rowwise": True}, {"sparse": "exact"}):
        z = ga.FTRL({"w": given(backend, start)}, **make, **settings).state["w"]["z"]
        assert np.array_equal(backend.numpy(z), wide) and wide.any(), settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": lambda step: 0.1}, "keep_weights: lr is a schedule"),
        ({"l1": lambda step: 0.1}, "keep_weights: l1 is a schedule"),
        ({"beta": 0.0}, "keep_weights: .* it takes lr > 0, and one of"),
        ({"lr": 0.0}, "keep_weights: .* it takes lr > 0"),
        ({"initial": {"z": 1.0}}, "initial z: keep_weights says what z is"),
        ({"keep_weights": 1}, "keep_weights: got 1, expected one of False, True"),
        ({"lr": -1.0}, "lr: got -1.0"),
    ],
)
def test_what_ftrl_cannot_keep(settings, message):
    w = np.ones(3)
    with pytest.raises(ga.HyperparameterError, match=message):
        ga.FTRL(w, **{"keep_weights": True, **settings})
    assert (w == 1).all()


def test_ftrl_keeps_weights_that_come_later(by_numpy):
    """Of `add`, with the settings of their group; and of the new rows of a table that grows."""
    a, b = np.array([[0.5], [-2.0]]), np.array([3.0, -1.0])
    optimizer = ga.FTRL({"a": a}, keep_weights=True, l1=0.1)
    optimizer.step({"a": np.ones_like(a)})
    optimizer.add({"b": b}, lr=0.7)
    larger = np.concatenate([a, [[7.0]]])
    optimizer.grow("a", larger)
    before = larger.copy()
    optimizer.step({"a": np.zeros_like(larger), "b": np.zeros_like(b)})
    assert np.allclose(larger, before, rtol=1e-14) and np.allclose(b, [3.0, -1.0], rtol=1e-14)
    assert (larger[:2] != [[0.5], [-2.0]]).all()


def test_an_optimizer_without_parameters_takes_some_later(by_numpy):
    optimizer = ga.SGD({}, lr=1.0)
    optimizer.step({})
    w = np.ones(2)
    optimizer.add({"w": w})
    optimizer.step({"w": np.ones(2)})
    assert (w == 0).all() and optimizer.step_count == 2
