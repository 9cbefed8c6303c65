"""Hypothesis: any shape, strides, hyperparameters and gradients."""

import contextlib

import hostcupy
import numpy as np
from cases import CASES, KINDS
from conftest import installed
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gpuadapt as ga

CASE = st.sampled_from(CASES)
KIND = st.sampled_from(KINDS)
DTYPE = st.sampled_from([np.float32, np.float64])
SHAPE = st.lists(st.integers(0, 6), max_size=4).map(tuple)
SEED = st.integers(0, 2**32 - 1)
FINITE = st.floats(-1e3, 1e3, width=32)


@st.composite
def views(draw, shape, dtype, seed):
    """A view of a shape with random strides: any order of axes, steps and directions."""
    order = draw(st.permutations(range(len(shape))))
    steps = draw(
        st.lists(st.sampled_from([1, 2, 3, -1, -2]), min_size=len(shape), max_size=len(shape))
    )
    random = np.random.default_rng(seed)
    base = random.normal(size=[shape[axis] * abs(steps[axis]) for axis in order]).astype(dtype)
    view = base.transpose(np.argsort(order))[(..., *(slice(None, None, s) for s in steps))]
    assert view.shape == shape
    return view


@given(st.data(), KIND, SHAPE, DTYPE, SEED)
@settings(max_examples=150)
def test_any_shape_and_strides_on_both_backends(data, case, shape, dtype, seed):
    parameter = data.draw(views(shape, dtype, seed))
    gradient = data.draw(views(shape, dtype, seed + 1))
    plain = np.array(parameter, order="C")
    reference = case.optimizer(plain)
    with installed("host") as backend:
        ours = backend.array(parameter)
        on_host = case.optimizer(ours)
        strided = case.optimizer(parameter)
        for _ in range(2):
            reference.step(np.array(gradient, order="C"))
            strided.step(gradient)
            on_host.step(hostcupy.ndarray(gradient))
        assert np.array_equal(parameter, plain)
        assert np.array_equal(backend.numpy(ours), plain)


@given(
    CASE,
    SEED,
    st.floats(0, 1),
    st.floats(0, 0.999),
    st.floats(0, 0.9999),
    st.floats(1e-10, 1),
    st.integers(1, 20),
)
@settings(max_examples=150)
def test_any_hyperparameters(case, seed, lr, beta1, beta2, eps, steps):
    """Against the reference in float64."""
    given_values = {"lr": lr, "rho": beta1, "momentum": beta1, "betas": (beta1, beta2), "eps": eps}
    hyper = {k: given_values.get(k, v) for k, v in case.hyper.items()}
    if hyper.get("momentum") == 0:
        hyper["momentum"] = 0.5
    # FTRL divides by lr; a variance over next to no time is nothing but rounding.
    assume(case.make is not ga.FTRL or lr > 1e-3)
    assume(not case.hyper.get("centered") or beta1 > 1e-2)
    varied = type(case)(case.name, case.make, case.method, hyper, case.options, case.form)
    random = np.random.default_rng(seed)
    w = random.normal(size=8)
    expected, state = w.copy(), {}
    optimizer, update = varied.optimizer(w), varied.update
    for t in range(1, steps + 1):
        gradient = random.normal(size=8)
        optimizer.step(gradient)
        expected = update(expected, gradient, state, t)
    np.testing.assert_allclose(w, expected, rtol=1e-9, atol=1e-9 * max(1, np.abs(expected).max()))


@given(KIND, st.lists(st.lists(FINITE, min_size=3, max_size=3), max_size=5), DTYPE)
@settings(max_examples=100)
def test_state_and_parameters_stay_finite(case, gradients, dtype):
    w = np.zeros(3, dtype)
    optimizer = case.optimizer({"w": w})
    for gradient in gradients:
        optimizer.step({"w": np.array(gradient, dtype)})
    assert np.isfinite(w).all()
    for state in optimizer.state["w"].values():
        assert np.isfinite(state).all()


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=3),
    st.just(np.zeros(3, int)),
    st.just(np.zeros((3, 1))),
    st.just(np.zeros(4)),
    st.just(np.zeros(3, np.float32)),
    st.dictionaries(st.sampled_from(["w", "x"]), st.none()),
)


@given(ANYTHING)
@settings(max_examples=200)
def test_any_gradient_is_taken_or_refused_with_our_error(gradient):
    w = np.ones(3)
    optimizer = ga.Adam({"w": w})
    for grads in (gradient, {"w": gradient}):
        with contextlib.suppress(ga.GradientError):
            optimizer.step(grads)
    assert np.array_equal(w, np.ones(3))
    assert not optimizer.state["w"]["m"].any()


@given(ANYTHING, st.sampled_from(["lr", "eps", "betas", "weight_decay", "decay", "maximize"]))
@settings(max_examples=300)
def test_any_hyperparameter_is_taken_or_refused_with_our_error(value, name):
    w = np.ones(3)
    try:
        ga.Adam(w, **{name: value}).step(np.ones(3))
    except ga.HyperparameterError:
        assert np.array_equal(w, np.ones(3))


@given(ANYTHING)
@settings(max_examples=200)
def test_any_parameters_are_taken_or_refused_with_our_error(params):
    for given_params in (params, [params], {"w": params}, [{"params": params}]):
        with contextlib.suppress(ga.ParameterError):
            ga.Adam(given_params)
