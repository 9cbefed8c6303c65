"""Every rule, on every backend, against plain NumPy float64 written from the papers."""

import numpy as np
import pytest
import reference
from cases import CASES, KINDS
from conftest import crossed

from gpuadapt.hyperparameters import DECAYS

STEPS = 12
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
"""Of the movement; a float32 step rounds parameter, state and movement."""


@crossed(CASES, KINDS, always={("cpu", "float64")})
def test_matches_the_paper(item, backend, dtype):
    """Where it is not run, bits are those of a kernel that it is run for (test_bits)."""
    case = item
    random = np.random.default_rng(1)
    start = random.normal(size=(7, 5)).astype(dtype)
    expected, state = start.astype(np.float64), {}
    parameter = backend.array(start)
    optimizer = case.optimizer({"w": parameter})
    for t in range(1, STEPS + 1):
        gradient = gradient_of_step(random, t).astype(dtype)
        optimizer.step({"w": backend.array(gradient)})
        expected = case.update(expected, gradient.astype(np.float64), state, t)
    moved = np.abs(expected - start).max()
    assert moved > 0.01
    error = np.abs(backend.numpy(parameter) - expected).max()
    assert error <= TOLERANCE[str(dtype)] * max(moved, 1), error / moved
    for letter, array in optimizer.state["w"].items():
        np.testing.assert_allclose(
            backend.numpy(array), state[letter], rtol=TOLERANCE[str(dtype)], atol=1e-8
        )


def gradient_of_step(random, t):
    """Magnitudes from 1e-6 to 1, an element that never has one, a step without any."""
    gradient = random.normal(size=(7, 5)) * 10.0 ** random.integers(-6, 1, size=(7, 5))
    gradient[0, 0] = 0
    return gradient * (t != 5)


def test_every_option_is_used_by_every_method():
    by_method = {}
    for case in CASES:
        used = by_method.setdefault(case.method, set())
        used |= {case.options.get("decay")} | (
            {"maximize"} if case.options.get("maximize") else set()
        )
    for method, used in by_method.items():
        assert "maximize" in used and used & set(DECAYS), method
    assert set().union(*by_method.values()) >= {"maximize", *DECAYS}


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_quotient_of_zeros_is_zero(kind):
    numbers = [0.0, -0.0, 1.5, -3.0, 1e-30, np.inf, np.nan]
    a, b = (half.astype(kind) for half in np.meshgrid(numbers, numbers))
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = a / b
        got = reference.over(a, b)
    assert got.dtype == kind
    assert np.array_equal(got, np.where((a == 0) & (b == 0), 0, plain), equal_nan=True)
    with np.errstate(all="raise"):
        zeros = reference.over(np.array([0, -0.0, 3], kind), np.array([-0.0, 0, 2], kind))
    assert zeros.tobytes() == np.array([0, 0, 1.5], kind).tobytes()
