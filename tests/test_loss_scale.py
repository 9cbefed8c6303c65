"""`LossScale`: how it adapts, the same on both backends, and what it refuses."""

import copy
import math

import numpy as np
import pytest
from conftest import installed

import gpuadapt as ga


def test_a_loss_scale_grows_and_shrinks(backend):
    scale = ga.LossScale(4.0, growth=3.0, backoff=0.25, interval=2, minimum=0.5)
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
    assert other.state_dict() == {"scale": 2.25, "since": 0, "skipped": 0}
    scale.load_state_dict({"scale": 8.0, "since": 1})
    optimizer.step(backend.array(np.full(2, 8, np.float32)), grad_scale=scale)
    assert float(scale) == 24
    assert ("24.0" if backend.name == "cpu" else "on a GPU") in repr(scale)


def test_a_loss_scale_stays_a_number(backend):
    w = backend.array(np.ones(1, np.float32))
    optimizer = ga.SGD(w)
    for start, gradient, end in ((2.0**127, 1.0, 2.0**127), (2.0**-126, np.inf, 2.0**-126)):
        scale = ga.LossScale(start, interval=1, minimum=2.0**-126)
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
        {"minimum": 0.0},
        {"minimum": 1e6},
        {"minimum": 1.0, "initial": 0.5},
        {"patience": 0},
        {"patience": 1.5},
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
        {"scale": 0.5, "since": 0},  # below the minimum
        {"scale": 4.0, "since": 0, "skipped": -1},
        {"scale": 4.0, "since": 0.5},
        3,
    ],
)
def test_bad_states_of_loss_scales(state):
    scale = ga.LossScale(2.0)
    with pytest.raises(ga.StateError):
        scale.load_state_dict(state)
    assert scale.value == 2.0


def test_whole_numbers_of_any_type_in_a_state():
    scale = ga.LossScale()
    scale.load_state_dict({"scale": np.float32(4), "since": np.int64(3), "skipped": np.array(2)})
    assert scale.state_dict() == {"scale": 4.0, "since": 3, "skipped": 2}


@pytest.mark.parametrize("first", [np.inf, 1.0])
def test_two_optimizers_share_a_value(first):
    """Both divide by what their gradients were multiplied by; the scale adapts once."""
    scale = ga.LossScale(8.0, interval=1)
    a, b = np.zeros(2, np.float32), np.zeros(2, np.float32)
    one, two = ga.SGD(a, lr=1.0), ga.SGD(b, lr=1.0)
    expected, moved = 8.0, 0
    for k in range(4):
        value = scale.value
        assert value == expected
        bad = k == 1
        one.step(np.array([np.inf if bad else 1, 1], np.float32) * value, grad_scale=scale)
        repr(scale), scale.state_dict(), scale.skipped  # these hand nothing out
        two.step(np.full(2, first if k == 2 else 1, np.float32) * value, grad_scale=scale)
        expected = expected / 2 if bad or (k == 2 and first == np.inf) else expected * 2
        moved += not bad
    assert (a == -moved).all() and (b == -4 + (first == np.inf)).all()
    assert scale.value == expected and scale.skipped == 0


def test_a_value_that_was_read_once_stays_what_steps_divide_by():
    scale, w = ga.LossScale(8.0, interval=1), np.zeros(1, np.float32)
    optimizer, value = ga.SGD(w, lr=1.0), scale.value
    for _ in range(3):
        optimizer.step(np.ones(1, np.float32) * value, grad_scale=scale)
    assert w[0] == -3.0 and scale.value == 64.0


def test_a_live_scale_has_one_optimizer():
    with installed("host") as device:
        one, two = (ga.SGD(device.array(np.zeros(2, np.float32)), lr=1.0) for _ in range(2))
        w, g = np.zeros(2, np.float32), device.array(np.ones(2, np.float32))
        on_cpu = ga.SGD(w)
        for first, second, grads in ((one, two, (g, g)), (one, on_cpu, (g, w + 1)),
                                     (on_cpu, one, (w + 1, g))):  # fmt: skip
            scale = ga.LossScale(2.0)
            first.step(grads[0], grad_scale=scale)
            with pytest.raises(ga.HyperparameterError, match="this LossScale is another optimizer"):
                second.step(grads[1], grad_scale=scale)
            first.step(grads[0], grad_scale=scale)
        scale = ga.LossScale(2.0)
        one.step(g, grad_scale=scale)
        two.step(g, grad_scale=copy.deepcopy(scale))
        del one, first, second
        two.step(g, grad_scale=scale)  # nobody else has it any more


def test_skipped_steps_are_counted_and_said(backend):
    scale = ga.LossScale(8.0, minimum=2.0, patience=3)
    w = backend.array(np.ones(1, np.float32))
    optimizer, bad = ga.SGD(w), backend.array(np.full(1, np.nan, np.float32))
    good = backend.array(np.ones(1, np.float32))
    for k in range(1, 3):
        optimizer.step(bad, grad_scale=scale)
        assert scale.skipped == k and float(scale) == 8.0 / 2**k
    optimizer.step(bad, grad_scale=scale)
    with pytest.warns(RuntimeWarning, match="LossScale: 3 steps in a row were skipped"):
        assert float(scale) == 2.0
    optimizer.step(good, grad_scale=scale)
    assert scale.state_dict() == {"scale": 2.0, "since": 1, "skipped": 0}


def test_micro_batches_are_summed_under_a_scale(backend):
    """Unscaled by scale times their number, checked, skipped, adapted."""
    scale = ga.LossScale(8.0, interval=1)
    w = backend.array(np.zeros(2, np.float32))
    optimizer = ga.SGD(w, lr=1.0)
    for n, bad in ((4, False), (np.int64(3), True), (3, False), (1, False)):
        before, value = backend.numpy(w), float(scale)
        total = np.array([np.inf if bad else int(n) * value, int(n) * value * 2], np.float32)
        optimizer.step(backend.array(total), grad_scale=n * scale if n != 1 else scale * n)
        assert optimizer.last.skipped == bad
        assert np.array_equal(backend.numpy(w), before if bad else before - np.float32([1, 2]))
        assert float(scale) == (value / 2 if bad else value * 2)


@pytest.mark.parametrize("times", [0, -1, 1.5, True, "2", np.ones(2), np.float32(2), None])
def test_what_a_scale_is_not_multiplied_by(times):
    for product in (lambda: ga.LossScale() * times, lambda: times * ga.LossScale()):
        with pytest.raises(ga.HyperparameterError, match=r"write scale.value \* loss"):
            product()
