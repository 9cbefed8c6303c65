"""Gradients of float64 where the arithmetic is float32: they are rounded last of all.

NumPy unscales, merges and clips in float64, rounds, and runs the rule.
"""

import itertools
import math
import warnings

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt.kernels import formats
from gpuadapt.kernels.options import STEP, compose
from gpuadapt.optimizer import internals
from gpuadapt.oracle import evaluate

SCALE, VALUE = 1e38, 20.0
"""What gradients of about 1e39 are divided by, and what then limits each element."""

ASKED = {"grad_scale": SCALE, "max_norm": 300.0, "clip_value": VALUE}

SHAPE = (40, 6)


def momentum(w, **more):
    return ga.SGD(w, lr=0.5, momentum=0.75, **more)


def drawn(random, shape=SHAPE):
    return random.normal(size=shape) * 1e40


def seen(gradient, factor=1.0, scale=SCALE, value=VALUE):
    """What a rule gets of a float64 gradient."""
    return np.clip(gradient / scale * factor, -value, value).astype(np.float32)


def merged(rows, values, duplicates, most=math.inf, scale=SCALE, shape=SHAPE):
    """The rows that occur, and their gradients, in float64."""
    found = {}
    for row, value in zip(rows.tolist(), values, strict=True):
        found.setdefault(row, []).append(value)
    total = np.zeros(shape)
    for row, every in found.items():
        total[row] = sum(every[1:], start=every[0])
        if duplicates == "mean":
            total[row] /= len(every)
        norm = math.sqrt(math.fsum((total[row] ** 2).tolist()))
        if norm > most * scale:
            total[row] *= most * scale / norm
    return sorted(found), total


def same(found, expected):
    assert np.isfinite(expected).all()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("strided", [False, True], ids=["many", "strided"])
def test_dense_gradients(strided, backend):
    """Two arrays, with a norm of both; ten times what float32 holds."""
    random = np.random.default_rng(0)
    wide = (SHAPE[0], 2 * SHAPE[1]) if strided else SHAPE
    kept = [backend.array(np.ones(wide, np.float32)) for _ in range(2)]
    arrays = [w[:, ::2] for w in kept] if strided else kept
    optimizer = momentum(arrays)
    rule = ga.rules.momentum
    expected = [(np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32))] * 2
    for step in range(1, 4):
        grads = [drawn(random) for _ in arrays]
        optimizer.step([backend.array(g) for g in grads], **ASKED)
        every = np.concatenate([g.ravel() / SCALE for g in grads])
        norm = math.sqrt(math.fsum((every**2).tolist()))
        assert optimizer.last.grad_norm == pytest.approx(norm, rel=1e-14)
        factor = optimizer.last.clip_factor
        assert factor == pytest.approx(300 / norm, rel=1e-14)
        numbers = rule.evaluate(*({"lr": 0.5, "momentum": 0.75, "dampening": 0.0}[n]
                                  for n in rule.hyperparameters), step)  # fmt: skip
        expected = [
            evaluate(rule, [p, seen(g, factor), b], numbers)
            for (p, b), g in zip(expected, grads, strict=True)
        ]
    for w, (p, _) in zip(kept, expected, strict=True):
        same(backend.numpy(w)[:, :: 1 + strided], p)


@pytest.mark.parametrize("duplicates", ["sum", "mean"])
def test_rows(duplicates, backend):
    """Frequent ones too, and limited ones: merged in float64, in order of occurrence."""
    random = np.random.default_rng(1)
    rows = random.integers(0, 30, 900)
    rows[::2] = 7
    values = drawn(random, (900, SHAPE[1])) / 8
    for most in (math.inf, 50.0):
        w = backend.array(np.ones(SHAPE, np.float32))
        optimizer = ga.SGD(w, lr=0.5, max_row_norm=most)
        given = backend.array(rows), backend.array(values)
        optimizer.step(ga.RowGrad(*given, duplicates=duplicates), **ASKED)
        touched, total = merged(rows, values, duplicates, most)
        factor = optimizer.last.clip_factor
        expected = np.ones(SHAPE, np.float32)
        expected[touched] -= np.float32(0.5) * seen(total[touched], factor)
        if most == math.inf:
            same(backend.numpy(w), expected)
        else:  # a sum of squares in another order
            assert np.allclose(backend.numpy(w), expected, rtol=1e-6, atol=1e-6)


def test_rows_that_occur_once_are_dense_ones(backend):
    random = np.random.default_rng(2)
    asked = ASKED | {"max_norm": 1e100}  # two norms may differ in their last bits
    arrays = [backend.array(np.ones(SHAPE, np.float32)) for _ in range(2)]
    dense, by_rows = momentum(arrays[0]), momentum(arrays[1])
    for _ in range(3):
        grad = drawn(random)
        order = random.permutation(SHAPE[0])
        dense.step(backend.array(grad), **asked)
        by_rows.step(ga.RowGrad(backend.array(order), backend.array(grad[order])), **asked)
    same(*map(backend.numpy, arrays))


@pytest.mark.parametrize(
    ("backend", "exactness"), [("cpu", "bits"), ("host", "bits"), ("host", "close")],
    indirect=["backend"],
)  # fmt: skip
def test_exact_rows(exactness, backend):
    """As those of gradients that NumPy has scaled and rounded, however many steps are missed."""
    random = np.random.default_rng(3)
    arrays = [backend.array(np.ones(SHAPE, np.float32)) for _ in range(2)]
    more = {"sparse": "exact", "exactness": exactness}
    ours, twin = (momentum(w, **more) for w in arrays)
    for step in range(45):
        rows = np.array([0, 1 + step % 3, 30]) if step != 44 else np.arange(SHAPE[0])
        values = drawn(random, (rows.size, SHAPE[1]))
        given = ga.RowGrad(backend.array(rows), backend.array(values))
        # 1e39 has no float32.
        ours.step(given, grad_scale=1e39, clip_value=VALUE)
        twin.step(ga.RowGrad(backend.array(rows), backend.array(seen(values, scale=1e39))))
    for optimizer in (ours, twin):
        plan = internals(optimizer).parameters["0"].history.plan
        assert (plan is None) == (exactness == "bits")
        optimizer.flush()
    same(*map(backend.numpy, arrays))


@pytest.mark.parametrize("kept", [{"state_dtype": "8bit"}, {"rowwise": True}], ids=str)
def test_other_traversals_and_formats(kept, backend):
    """Blocks of 8 bits and states of a row, as from gradients that NumPy has prepared."""
    random = np.random.default_rng(4)
    arrays = [backend.array(np.ones((8, 64), np.float32)) for _ in range(2)]
    ours, twin = (ga.Adagrad(w, lr=0.1, **kept) for w in arrays)
    for _ in range(2):
        grad = drawn(random, (8, 64))
        ours.step(backend.array(grad), grad_scale=SCALE, clip_value=VALUE)
        twin.step(backend.array(seen(grad)))
    same(*map(backend.numpy, arrays))


@pytest.mark.parametrize("names", [
    names for n in range(4) for names in itertools.combinations(STEP, n)
], ids="+".join)  # fmt: skip
def test_the_oracle_rounds_last(names):
    random = np.random.default_rng(5)
    values = {"lr": 0.5, "grad_scale": 1e39, "clip_factor": 0.3, "clip_value": 7.0}
    for base in (ga.rules.sgd, ga.rules.adagrad.rowwise):
        rule = compose(base, frozenset(names))
        assert rule.program.scaling == len(names)
    rule = compose(ga.rules.sgd, frozenset(names))
    p, g = np.ones(50, np.float32), random.normal(size=50) * 1e40
    g = g if "unscale" in names else g / 1e39
    expected = g / (1e39 if "unscale" in names else 1)
    expected = expected * (0.3 if "clip_norm" in names else 1)
    expected = np.clip(expected, -7, 7) if "clip_value" in names else expected
    (found,) = evaluate(rule, [p, g], rule.evaluate(*(values[n] for n in rule.hyperparameters), 1))
    same(found, p - np.float32(0.5) * expected.astype(np.float32))


@pytest.mark.parametrize("backend_name", ["cpu", "cuda"])
@pytest.mark.parametrize("traversal", ["many", "rows", "exact"])
def test_the_text_of_other_gradients_is_what_it_was(traversal, backend_name):
    """A step that asks for nothing, or whose gradients are not wider, has no trace of this."""
    for names, kind, traced in (
        (STEP, "float64", True),
        ((), "float64", False),
        (STEP, "float32", False),
        (STEP, "bfloat16", False),
    ):
        rule = compose(ga.rules.adam, frozenset(names))
        kept = formats.uniform(rule, np.dtype(np.float32))
        kept = kept._replace(gradient=formats.PLAIN[kind])
        assert ("scaled__" in rule.source(backend_name, traversal, kept)) == traced


def test_what_is_too_large_for_float32(backend):
    """A wide gradient that has no float32 once scaled counts as not finite, whatever the rule."""
    w = backend.array(np.zeros(3, np.float32))
    for make, largest in ((ga.SGD, float(np.finfo(np.float32).max)), (ga.Adam, 1.8446743e19)):
        optimizer = make(w, lr=0.0)
        for size, expected in ((largest, False), (largest * 1.001, True), (1e140, True)):
            grad = backend.array(np.array([1, -size, 1.0]) * 1e4)
            optimizer.step(grad, grad_scale=1e4, skip_nonfinite=True)
            assert optimizer.last.skipped == expected, size
            assert math.isfinite(optimizer.last.grad_norm)


def test_numbers_that_only_wide_gradients_can_be_scaled_by():
    """Refused where any gradient of the step is not of float64; nothing has changed then."""
    w, v = np.ones(3, np.float32), np.ones(2, np.float32)
    optimizer = ga.SGD({"w": w, "v": v}, lr=1.0)
    wide = np.full(3, 1e40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for asked in ({"grad_scale": 1e39}, {"clip_value": 1e39, "grad_scale": SCALE}):
            for other in (np.ones(2, np.float32), ga.RowGrad([1], np.ones(1, np.float32))):
                with pytest.raises(ga.HyperparameterError, match=r"1e\+39 does not fit in float32"):
                    optimizer.step({"w": wide, "v": other}, **asked)
            assert (w == 1).all() and optimizer.step_count == 0
        optimizer.step({"w": wide, "v": np.ones(2)}, grad_scale=1e39)
    same(w, np.full(3, -9, np.float32))
    table = ga.SGD(np.ones((3, 1), np.float32), momentum=0.9, sparse="exact")
    gradient = ga.RowGrad([1], np.ones((1, 1)) * 1e-50)
    with pytest.raises(ga.HyperparameterError, match="1e-50 does not fit in float32"):
        table.step(gradient, grad_scale=1e-50)
