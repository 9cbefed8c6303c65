"""Gradients that are finite and that a rule cannot square: what a step is skipped for."""

import math

import numpy as np
import pytest
from cases import CASES

import gpuadapt as ga
from gpuadapt import launch
from gpuadapt.kernels import formats
from gpuadapt.kernels.commit import make
from gpuadapt.kernels.language.powers import squares
from gpuadapt.kernels.language.rule import rule
from gpuadapt.kernels.numerics.overflow import CHECKS, SQUARED, Measured, Verdict, check_of, decide
from gpuadapt.kernels.numerics.summation import CHUNK
from gpuadapt.kernels.options import compose
from gpuadapt.oracle import evaluate

FIRST = np.float32(SQUARED)
LAST = np.nextafter(FIRST, np.float32(0))
"""The first float32 whose square is infinite, and the last whose square is not."""

UNSQUARED = ("sgd", "momentum", "nesterov", "velocity", "adamax", "lion")


def test_the_first_number_whose_square_is_infinite():
    with np.errstate(over="ignore"):
        assert np.isinf(FIRST * FIRST) and np.isfinite(LAST * LAST)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_which_methods_square(case):
    assert squares(case.rule) == (not case.name.startswith(UNSQUARED))


def product(p, g, v, h):
    return p - h.lr * g, v + g * g


def with_the_past(p, g, m, h):
    return p - h.lr * g * m, g


def of_a_state(p, g, m, v, h):
    return p - h.lr * g, 0.5 * m + g, v + sq(m)  # noqa: F821


def quotient(p, g, h):
    return p - h.lr * g / (1 / (1 + abs(g)))


def in_a_comparison(p, g, h):
    return where(g * g > 1, p - h.lr, p)  # noqa: F821


def of_the_parameter(p, g, v, h):
    return p - h.lr * g / sqrt(1 + sq(p)), v  # noqa: F821


def normed(p, g, u, h):
    u = maximum(h.beta2 * u, abs(g))  # noqa: F821
    return p - h.lr * g / (u + h.eps), u


def geometric(p, g, m, h):
    m = sqrt(abs(m)) * sqrt(abs(g))  # noqa: F821
    return p - h.lr * m, m


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (product, True),
        (with_the_past, True),
        (of_a_state, True),
        (quotient, True),
        (in_a_comparison, True),
        (of_the_parameter, False),
        (normed, False),
        (geometric, True),  # it does not, but this is not shown
    ],
    ids=lambda of: getattr(of, "__name__", str(of)),
)
def test_which_rules_of_users_square(function, expected):
    assert squares(rule(function)) == expected


def test_rows_means_of_squares_are_squares():
    assert squares(ga.rules.adagrad.rowwise)


def steps(backend, make, shape, dtype=np.float32, by_rows=False, **options):
    """What tells whether a step with one element of such a size is skipped."""
    w = backend.array(np.zeros(shape, np.float32))
    optimizer = make(w)

    def skipped(size, **asked):
        values = np.full(shape, 0.1, dtype)
        values.flat[values.size // 2] = size
        given = backend.array(values)
        if by_rows:
            given = ga.RowGrad(backend.array(np.arange(len(values))), given, **options)
        before = optimizer.step_count
        optimizer.step(given, skip_nonfinite=True, **asked)
        assert optimizer.step_count == before + (not optimizer.last.skipped)
        assert math.isfinite(optimizer.last.grad_norm)
        finite = (np.isfinite(backend.numpy(s)).all() for s in optimizer.state["0"].values())
        assert all(finite)
        return optimizer.last.skipped

    return skipped


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("by_rows", [False, True], ids=["dense", "rows"])
def test_a_step_that_cannot_square_its_gradient_is_skipped(by_rows, sign, backend):
    shape = (9, 40)
    adam = steps(backend, ga.Adam, shape, by_rows=by_rows)
    momentum = steps(backend, lambda w: ga.SGD(w, momentum=0.9), shape, by_rows=by_rows)
    for size, expected in ((LAST, False), (FIRST, True), (1e20, True), (1e19, False)):
        assert adam(sign * size) == expected, size
    assert not momentum(sign * np.float32(1e37))


def test_where_the_gradient_is_large_does_not_matter(backend):
    """Any lane of any span, with gaps or not; float64 squares what float32 cannot."""
    random = np.random.default_rng(0)
    w, wide = (backend.array(np.zeros(2 * CHUNK + 3, dtype)) for dtype in (np.float32, np.float64))
    ours, twin = ga.Adam(w, lr=0.0), ga.Adam(wide, lr=0.0)
    for at in (0, 1, CHUNK - 1, CHUNK, *random.integers(0, 2 * CHUNK, 4), 2 * CHUNK + 2):
        grad = np.zeros((2 * CHUNK + 3, 2), np.float32)
        grad[at, 0] = -FIRST
        for given in (grad[:, 0].copy(), grad[:, 0]):
            ours.step(backend.array(given), skip_nonfinite=True)
            assert ours.last.skipped, at
        twin.step(backend.array(grad[:, 0].astype(np.float64)), skip_nonfinite=True)
        assert not twin.last.skipped
    assert ours.step_count == 0


def test_parameters_beside_each_other(backend):
    """Each by its own rule: float32 and float64, dense and rows, with a gradient and without."""
    arrays = [backend.array(np.zeros(6, np.float32)), backend.array(np.zeros(6)),
              backend.array(np.zeros((3, 2), np.float32))]  # fmt: skip
    optimizer = ga.Adam(arrays)
    small, large = np.ones(6, np.float32), np.full(6, 1e25)

    def step(*grads):
        optimizer.step(list(grads), skip_nonfinite=True)
        return optimizer.last.skipped

    rows = backend.array(np.array([1]))
    fits, not_ = (
        ga.RowGrad(rows, backend.array(np.full((1, 2), x, np.float32))) for x in (LAST, FIRST)
    )
    small, wide = backend.array(small), backend.array(large)
    assert not step(small, wide, fits)
    assert step(small, wide, not_)
    assert step(backend.array(large.astype(np.float32)), wide, fits)
    assert step(None, wide, not_)
    assert not step(None, wide, None)


@pytest.mark.parametrize("duplicates", ["sum", "mean"])
def test_rows_count_as_they_are_merged_and_clipped(duplicates, backend):
    table = backend.array(np.zeros((5, 3), np.float32))
    rows = np.array([4, 1, 4, 4])
    half, third = np.float32(2.0**63), np.float32(2.0**62)
    for values, expected in (
        ([third, third, half, third], duplicates == "sum"),
        ([third, third, third, third], False),
        ([0.0, FIRST, 0.0, 0.0], True),
        ([FIRST, 0.0, FIRST, FIRST], True),
    ):
        given = backend.array(np.repeat(np.array(values, np.float32)[:, None], 3, axis=1))
        gradient = ga.RowGrad(backend.array(rows), given, duplicates=duplicates)
        optimizer = ga.Adam(table, lr=0.0)
        optimizer.step(gradient, skip_nonfinite=True)
        assert optimizer.last.skipped == expected, values
        optimizer = ga.Adam(table, lr=0.0, max_row_norm=1e19)
        optimizer.step(gradient, skip_nonfinite=True)
        assert not optimizer.last.skipped, values


@pytest.mark.parametrize(
    "asked", [(), ("clip_norm",), ("clip_value",), ("clip_norm", "clip_value")]
)
def test_what_is_judged_is_what_the_rule_sees(asked, backend):
    """On either backend, as NumPy runs a rule, around the first number that is too large."""
    composed = compose(rule(product), frozenset(asked))
    random = np.random.default_rng(1)
    scalars = launch.step_scalars(backend.name if backend.name == "cpu" else "cuda")
    seen = []
    for _ in range(60):
        # Limits that leave gradients about as large as can be squared.
        norm = float(10 ** random.uniform(19, 30))
        most = float(SQUARED * 10 ** random.uniform(-1, 1)) if "clip_norm" in asked else math.inf
        shares = 0.5, 1 - 2.0**-24, 1, 2
        limit = float(SQUARED * random.choice(shares)) if "clip_value" in asked else math.inf
        factor = min(1.0, most / norm)
        close = random.integers(-3, 4) * 2.0**-24 * random.integers(0, 2)
        peak = float(np.float32(min(SQUARED / factor * (1 + close), 3e38)))
        values = {"lr": 1.0, "clip_factor": factor, "clip_value": limit}
        numbers = composed.evaluate(*(values[name] for name in composed.hyperparameters), 1)
        arrays = [np.zeros(1, np.float32), np.array([peak], np.float32), np.zeros(1, np.float32)]
        _, v = evaluate(composed, arrays, numbers)
        sums = np.zeros(5)
        sums[1] = norm**2
        given = np.concatenate([sums, [0, peak, 1, 0, 0]])
        measured = Measured(backend.array(given), (3, 3, 4))
        scalars.restart(0)
        scalars.load(0, [[0.0, 1.0]])
        calls = scalars.select_step(None, (), 1, True)
        make(calls + scalars.finish_norm(measured, None, most, limit, True, [], None)[1])
        found, by, skipped = scalars.result()
        verdict = Verdict(found, by, not skipped)
        assert decide([Measured(given, (3, 3, 4))], most, limit) == verdict
        if by == factor:
            assert skipped == np.isinf(v[0]), (peak, factor, limit)
            seen.append(skipped)
    assert set(seen) == {True, False}


def test_kinds_of_launches():
    """What is looked at: nothing where the norm says it all."""
    adam, sgd = ga.rules.adam, ga.rules.sgd
    for of, compute, gradient, expected in (
        (adam, "float32", "float32", 0),
        (adam, "float32", "bfloat16", 0),
        (sgd, "float32", "float32", CHECKS),
        (adam, "float32", "float64", 1),
        (sgd, "float32", "float64", 2),
        (adam, "float64", "float32", CHECKS),
        (adam, "float64", "float64", CHECKS),
    ):
        kept = formats.uniform(of, np.dtype(compute))._replace(gradient=formats.PLAIN[gradient])
        assert check_of(of, kept) == expected


def test_a_loss_scale_that_is_too_large(backend):
    """Unscaled gradients count; a step that is skipped halves the scale."""
    w = backend.array(np.zeros(3, np.float32))
    optimizer, scale = ga.Adam(w), ga.LossScale(8.0)
    for size, expected in ((4 * FIRST, False), (16 * FIRST, True), (2 * FIRST, False)):
        grad = np.ones(3, np.float32)
        grad[1] = size
        optimizer.step(backend.array(grad), grad_scale=scale)
        assert optimizer.last.skipped == expected
    assert scale.state_dict()["scale"] == 4.0
