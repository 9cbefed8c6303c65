"""What the methods are known for."""

import numpy as np
import pytest

import gpuadapt as ga


def test_adagrad_rates_only_fall(backend, dtype):
    random = np.random.default_rng(0)
    optimizer = ga.Adagrad({"w": backend.array(np.zeros(50, dtype))}, lr=0.1)
    before = np.full(50, np.inf)
    for step in range(30):
        optimizer.step({"w": backend.array(random.normal(size=50).astype(dtype) * (step % 3))})
        rates = backend.numpy(optimizer.effective_lr("w"))
        assert (rates <= before).all()
        before = rates
    assert (rates < 0.1).all()


def test_rmsprop_rates_rise_again(backend, dtype):
    optimizer = ga.RMSprop({"w": backend.array(np.zeros(5, dtype))})
    rates = []
    for size in (10.0, 0.1):
        for _ in range(100):
            optimizer.step({"w": backend.array(np.full(5, size, dtype))})
        rates.append(backend.numpy(optimizer.effective_lr("w")))
    assert (rates[1] > 10 * rates[0]).all()


def descend(make, scale=1.0, unit=1.0):
    """A path on a bent quadratic: the loss times ``scale``, the parameter in units of ``unit``."""
    curvature = np.array([1.0, 30.0, 0.1])
    x = np.array([1.0, 2.0, -3.0]) / unit
    optimizer = make(x)
    path = []
    for _ in range(200):
        optimizer.step(scale * unit * curvature * np.tanh(x * unit))
        path.append(x * unit)
    return np.array(path)


@ga.rule
def adadelta_two_eps(p, g, G, U, h):
    """Adadelta, with an eps in the unit of the gradient and one in the unit of the step."""
    G = h.rho * G + (1 - h.rho) * sq(g)  # noqa: F821
    u = sqrt(U + h.eps_u) / sqrt(G + h.eps_g) * g  # noqa: F821
    U = h.rho * U + (1 - h.rho) * sq(u)  # noqa: F821
    return p - u, G, U


def adadelta(x):
    return ga.Adadelta(x, rho=0.9, eps=1e-6)


def adadelta_in(*, gradient=1.0, parameter=1.0):
    """Adadelta with each eps in the units given."""
    eps = {"eps_g": 1e-6 * gradient**2, "eps_u": 1e-6 * parameter**2}
    return lambda x: ga.Optimizer(adadelta_two_eps, x, rho=0.9, **eps)


def path_of(make, **units):
    path = descend(make, **units)
    assert np.abs(path[-1] - path[0]).max() > 0.1
    return path


@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_adadelta_does_not_see_the_scale_of_the_loss(scale):
    """Zeiler 2012, section 3.2; up to eps."""
    scaled = path_of(adadelta_in(gradient=scale), scale=scale)
    np.testing.assert_allclose(scaled, path_of(adadelta), rtol=1e-9)
    # With its one eps: the same as far as eps is small beside the gradient.
    np.testing.assert_allclose(
        path_of(adadelta, scale=1e3), path_of(adadelta, scale=1e5), rtol=1e-3
    )
    sgd = [descend(lambda x: ga.SGD(x, lr=1e-3), scale=s) for s in (scale, 1.0)]
    assert np.abs(sgd[0] - sgd[1]).max() > 0.1


@pytest.mark.parametrize("unit", [1e-2, 1e2])
def test_adadelta_steps_in_the_parameters_unit(unit):
    """Zeiler 2012, section 3.2: metres or centimetres, the same path, up to eps."""
    changed = path_of(adadelta_in(gradient=unit, parameter=1 / unit), unit=unit)
    np.testing.assert_allclose(changed, path_of(adadelta), rtol=1e-9)
    adam = [descend(lambda x: ga.Adam(x, lr=0.01), unit=u) for u in (unit, 1.0)]
    assert np.abs(adam[0] - adam[1]).max() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("deviation", [1e-3, 1e-5, 0.0])
def test_a_variance_keeps_its_digits(deviation, dtype):
    """Of gradients that vary little beside their mean; as a difference it would have none left."""
    random, rho = np.random.default_rng(0), 0.9
    gradients = 1 + deviation * random.standard_normal((400, 500))
    gradients = gradients.astype(dtype).astype(np.float64)
    weights = (1 - rho) * rho ** np.arange(399, -1, -1)
    mean = weights @ gradients
    variance = weights @ (gradients - mean) ** 2 + rho**400 * mean**2  # M begins at 0
    w = np.zeros(500, dtype)
    optimizer = ga.RMSprop(w, centered=True, rho=rho)
    for gradient in gradients.astype(dtype):
        optimizer.step(gradient)
    # The mean is 1, and its rounding error is all that the deviation from it may be wrong by.
    kept, error = np.sqrt(optimizer.state["0"]["V"]), 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(kept, np.sqrt(variance), rtol=10 * error, atol=error)


@pytest.mark.parametrize(("amsgrad", "low", "high"), [(False, 0.93, 0.96), (True, -1.0, -0.99)])
def test_adam_does_not_converge_and_amsgrad_does(amsgrad, low, high):
    """Reddi, Kale & Kumar 2018, section 3: a rare large gradient points the right way.

    On [-1, 1] the sum of these losses has its minimum at -1.
    """
    x = np.zeros(1)
    optimizer = ga.Adam(x, lr=0.01, betas=(0.9, 0.99), amsgrad=amsgrad)
    often, seldom = np.array([-10.0]), np.array([1010.0])
    for t in range(1, 300_001):
        optimizer.step(seldom if t % 101 == 1 else often)
        x[0] = min(max(x[0], -1.0), 1.0)
    assert low < x[0] < high


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e6])
def test_adams_first_step_has_length_lr(scale, backend, dtype):
    w = backend.array(np.zeros(100, dtype))
    gradient = np.random.default_rng(0).uniform(0.5, 1, 100) * np.resize([1, -1], 100)
    ga.Adam(w, lr=0.25, eps=1e-20).step(backend.array((scale * gradient).astype(dtype)))
    np.testing.assert_allclose(
        backend.numpy(w), -0.25 * np.sign(gradient), rtol=1e-5 if dtype == np.float32 else 1e-12
    )


@pytest.mark.parametrize("make", [ga.Adagrad, ga.RMSprop, ga.Adam])
def test_rare_features_get_the_larger_rate(make, backend, dtype):
    """Duchi et al. 2011, section 1: the reason for adaptive rates."""
    optimizer = make({"w": backend.array(np.zeros(2, dtype))})
    for step in range(200):
        gradient = np.array([1.0, float(step % 20 == 0)], dtype)
        optimizer.step({"w": backend.array(gradient)})
    common, rare = backend.numpy(optimizer.effective_lr("w"))
    assert rare > 1.5 * common


def test_effective_rates(backend, dtype):
    """lr / (sqrt(.) + eps), by hand, for each method and place of eps."""
    g = np.array([0.5, -2.0, 0.0, 1e-3], dtype)

    def rate(make, **hyper):
        optimizer = make({"w": backend.array(np.ones(4, dtype))}, **hyper)
        for _ in range(2):
            optimizer.step({"w": backend.array(g)})
        got = optimizer.effective_lr("w")
        states = {k: backend.numpy(a).astype(float) for k, a in optimizer.state["w"].items()}
        return backend.numpy(got), states

    close = {"rtol": 1e-5 if dtype == np.float32 else 1e-12}
    got, _ = rate(ga.SGD, lr=0.3)
    np.testing.assert_allclose(got, np.full(4, 0.3), **close)
    got, s = rate(ga.Adagrad, lr=0.3, eps=1e-2)
    np.testing.assert_allclose(got, 0.3 / np.sqrt(s["G"] + 1e-2), **close)
    got, s = rate(ga.RMSprop, lr=0.3, eps=1e-2, eps_mode="outside")
    np.testing.assert_allclose(got, 0.3 / (np.sqrt(s["G"]) + 1e-2), **close)
    got, s = rate(ga.Adadelta, lr=1.0, eps=1e-2)
    np.testing.assert_allclose(got, np.sqrt(s["U"] + 1e-2) / np.sqrt(s["G"] + 1e-2), **close)
    got, s = rate(ga.Adam, lr=0.3, betas=(0.5, 0.75), eps=1e-2)
    vhat = s["v"] / (1 - 0.75**2)
    np.testing.assert_allclose(got, 0.3 / (np.sqrt(vhat) + 1e-2), **close)
    got, s = rate(ga.Adagrad, lr=0.3, eps=1e-2, weight_decay=0.5)
    np.testing.assert_allclose(got, 0.3 / np.sqrt(s["G"] + 1e-2), **close)


def test_asking_for_rates_changes_nothing(backend):
    w = backend.array(np.ones(6))
    optimizer = ga.Adam({"w": w})
    assert np.allclose(backend.numpy(optimizer.effective_lr("w")), 1e-3 / 1e-8)
    optimizer.step({"w": backend.array(np.arange(6.0))})
    before = {k: backend.numpy(a) for k, a in optimizer.state["w"].items()}, backend.numpy(w)
    optimizer.effective_lr("w")
    after = {k: backend.numpy(a) for k, a in optimizer.state["w"].items()}, backend.numpy(w)
    np.testing.assert_equal(after, before)


@ga.rule
def reused(p, g, G, h):
    """A state's name reused for something else; what is stored is in another variable."""
    G = G + sq(g)  # noqa: F821
    keep = G
    G = sqrt(G) + h.eps  # noqa: F821
    rate = h.lr / G
    return p - rate * g, keep


@ga.rule
def temporary(p, g, G, h):
    """A temporary with two meanings, the first of them not a matter of state."""
    x = g * 2
    G = G + x
    x = G + 1
    rate = h.lr / x
    return p - rate * g, G


def test_rates_follow_values_not_names():
    with pytest.raises(ga.RuleError, match="'reused' depends on more than its states"):
        reused.rate
    w = np.zeros(3)
    optimizer = ga.Optimizer(temporary, {"w": w}, lr=0.5)
    optimizer.step({"w": np.array([0.0, 1.0, 2.0])})
    assert np.array_equal(optimizer.effective_lr("w"), 0.5 / np.array([1.0, 3.0, 5.0]))
    assert np.array_equal(w, -np.array([0.0, 1.0, 2.0]) * optimizer.effective_lr("w"))
