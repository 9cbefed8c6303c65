"""`LossScale`: how it adapts, the same on both backends, and what it refuses."""

import math

import numpy as np
import pytest

import gpuadapt as ga


def test_a_loss_scale_grows_and_shrinks(backend):
    scale = ga.LossScale(4.0, growth=3.0, backoff=0.25, interval=2)
    w = backend.array(np.ones(2, np.float32))
    optimizer, seen = ga.SGD(w, lr=0.5), []
    for bad in (0, 0, 0, 1, 0, 1, 0, 0):
        value = np.full(2, np.nan if bad else float(scale), np.float32)
        optimizer.step(backend.array(value), grad_scale=scale)
        assert optimizer.last.skipped == bad
        seen.append(float(scale))
    assert seen == [4, 12, 12, 3, 3, 0.75, 0.75, 2.25]
    assert optimizer.step_count == 6
    assert np.array_equal(backend.numpy(w), np.full(2, -2, np.float32))
    value = scale.value if backend.name == "cpu" else scale.value.get()
    assert value == 2.25
    other = ga.LossScale()
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == {"scale": 2.25, "since": 0}
    scale.load_state_dict({"scale": 8.0, "since": 1})
    optimizer.step(backend.array(np.full(2, 8, np.float32)), grad_scale=scale)
    assert float(scale) == 24
    assert "24.0" in repr(scale)


def test_a_loss_scale_stays_a_number(backend):
    w = backend.array(np.ones(1, np.float32))
    optimizer = ga.SGD(w)
    for start, gradient, end in ((2.0**127, 1.0, 2.0**127), (2.0**-126, np.inf, 2.0**-126)):
        scale = ga.LossScale(start, interval=1)
        optimizer.step(backend.array(np.array([gradient], np.float32)), grad_scale=scale)
        assert float(scale) == end


@pytest.mark.parametrize(
    "settings",
    [
        {"initial": 0.0},
        {"initial": 1e39},
        {"growth": 0.5},
        {"growth": math.inf},
        {"backoff": 1.0},
        {"backoff": 0.0},
        {"backoff": 1 - 1e-9},
        {"interval": 0},
        {"interval": 2.5},
        {"interval": True},
    ],
)
def test_bad_loss_scales(settings):
    with pytest.raises(ga.HyperparameterError, match=next(iter(settings))):
        ga.LossScale(**settings)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"scale": "x", "since": 0},
        {"scale": 0.0, "since": 0},
        {"scale": 1, "since": math.inf},
        3,
    ],
)
def test_bad_states_of_loss_scales(state):
    scale = ga.LossScale(2.0)
    with pytest.raises(ga.StateError):
        scale.load_state_dict(state)
    assert scale.value == 2.0
