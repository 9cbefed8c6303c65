"""What a step does besides the update: unscale, check, measure, clip, skip."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuadapt as ga
from gpuadapt.kernels.cpu import calling
from gpuadapt.kernels.numerics.summation import CHUNK, LANES, total

SIZES = (1, 5, LANES - 1, LANES + 1, CHUNK, 2 * CHUNK + 3, calling.ALONE)


def gradients(dtype, sizes=SIZES, seed=0):
    random = np.random.default_rng(seed)
    return [(10.0 ** (k % 3) * random.normal(size=n)).astype(dtype) for k, n in enumerate(sizes)]


def norm(backend, grads, scale=None):
    """As a step has it that changes nothing."""
    given = [backend.array(g) for g in grads]
    optimizer = ga.SGD([backend.array(np.zeros_like(g)) for g in grads], lr=0.0)
    optimizer.step(given, max_norm=math.inf, grad_scale=scale)
    return optimizer.last.grad_norm


def exact(grads):
    """Correctly rounded, of the numbers as they are."""
    return math.sqrt(math.fsum(float(x) ** 2 for g in grads for x in g.ravel().tolist()))


def test_the_norm_is_exact_and_the_same_everywhere(backend, dtype):
    grads = gradients(dtype)
    found = norm(backend, grads)
    assert found == pytest.approx(exact(grads), rel=1e-14)
    random = np.random.default_rng(1)
    for _ in range(3):
        assert norm(backend, [grads[k] for k in random.permutation(len(grads))]) == found
    from conftest import installed

    with installed("cpu") as cpu:
        assert norm(cpu, grads) == found


def test_the_norm_does_not_depend_on_strides(backend, dtype):
    grad = gradients(dtype, (3 * CHUNK,))[0].reshape(-1, 96)
    wide = np.zeros((grad.shape[0], 2 * grad.shape[1]), dtype)
    wide[:, ::2] = grad
    assert norm(backend, [wide[:, ::2]]) == norm(backend, [grad])


NORM = """
import sys, math
import numpy as np
from test_scaling import gradients, norm
from conftest import installed
import numba
with installed("cpu") as cpu:
    print(norm(cpu, gradients(np.float32)).hex(), numba.get_num_threads())
"""


def test_the_norm_does_not_depend_on_threads():
    found = set()
    for count in (1, 2, 4):
        run = subprocess.run(
            [sys.executable, "-c", NORM],
            cwd=Path(__file__).parent,
            env={**os.environ, "NUMBA_NUM_THREADS": str(count)},
            capture_output=True,
            text=True,
            check=True,
        )
        bits, used = run.stdout.split()
        assert int(used) == count
        found.add(bits)
    assert len(found) == 1


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1e290), max_size=50), st.randoms())
def test_totals_do_not_depend_on_their_order(numbers, random):
    found = total(np.array(numbers))
    if found < math.inf:
        assert found == pytest.approx(math.fsum(numbers), rel=1e-14, abs=0)
    random.shuffle(numbers)
    assert total(np.array(numbers)) == found


def test_totals_of_what_is_not_finite():
    assert total(np.array([1.0, math.inf])) == math.inf
    assert math.isnan(total(np.array([math.inf, math.nan, 1.0])))
    assert total(np.zeros(0)) == 0
    assert total(np.full(7, 5e-324)) == 7 * 5e-324


@pytest.mark.parametrize(
    ("scale", "limit", "most"),
    [(1024.0, None, None), (None, 0.05, None), (None, None, 1.5), (None, None, 1e6),
     (3.7, 0.05, 1.5)],
)  # fmt: skip
def test_as_if_gradients_had_been_prepared(scale, limit, most, backend):
    """The same bits as a plain step with gradients that NumPy divided, scaled and clipped."""
    dtype = np.dtype(np.float32)
    grads = gradients(dtype, (5, 300), seed=3)
    arrays, twins = ([backend.array(np.ones_like(g)) for g in grads] for _ in range(2))
    ours, theirs = (ga.Adam(of, lr=0.1, weight_decay=0.1, maximize=True) for of in (arrays, twins))
    for _ in range(2):
        ours.step(
            [backend.array(g) for g in grads], grad_scale=scale, max_norm=most, clip_value=limit
        )
        prepared = [g / dtype.type(scale or 1) for g in grads]
        assert (ours.last.grad_norm is None) == (most is None)
        if most is not None:
            assert ours.last.grad_norm == pytest.approx(exact(prepared), rel=1e-14)
            factor = min(1.0, most / ours.last.grad_norm)
            assert ours.last.clip_factor == factor
            prepared = [g * dtype.type(factor) for g in prepared]
        if limit is not None:
            prepared = [np.clip(g, -dtype.type(limit), dtype.type(limit)) for g in prepared]
        theirs.step([backend.array(g) for g in prepared])
    for a, b in zip(arrays, twins, strict=True):
        assert np.array_equal(backend.numpy(a), backend.numpy(b))


def test_rows_are_measured_when_merged(backend, dtype):
    """Duplicates summed first, rows out of range left out; with a dense one beside them."""
    random = np.random.default_rng(5)
    rows = np.array([3, 99, 3, 1, 3, 8, 1, -1])
    values = random.normal(size=(8, 5)).astype(dtype)
    table, w = backend.array(np.ones((9, 5), dtype)), backend.array(np.ones(7, dtype))
    gradient = ga.RowGrad(backend.array(rows), backend.array(values))
    merged = np.zeros((9, 5), dtype)
    for row, value in zip(rows, values, strict=True):
        if 0 <= row < 9:
            merged[row] += value
    grad = random.normal(size=7).astype(dtype)
    optimizer = ga.SGD({"t": table, "w": w}, lr=1.0, check="skip")
    optimizer.step({"t": gradient, "w": backend.array(grad)}, max_norm=0.5, grad_scale=2.0)
    assert optimizer.skipped_rows == 2
    expected = exact([merged / 2, grad / 2])
    assert optimizer.last.grad_norm == pytest.approx(expected, rel=1e-6)
    factor = dtype.type(optimizer.last.clip_factor)
    eps = 4 * np.finfo(dtype).eps
    assert np.allclose(backend.numpy(table), 1 - merged / 2 * factor, rtol=eps, atol=eps)
    assert np.allclose(backend.numpy(w), 1 - grad / 2 * factor, rtol=eps, atol=eps)


def test_rows_are_measured_alike_everywhere(backend):
    """Frequent rows, more rows than a span, rows wider than lanes, means: the CPU's bits."""
    random = np.random.default_rng(6)
    from conftest import installed

    for shape, n in (((50, 3), 2000), ((40_000, 2), CHUNK + 500), ((6, 300), 30)):
        rows = random.integers(0, shape[0], n)
        rows[: n // 3] = 4
        values = random.normal(size=(n, *shape[1:])).astype(np.float32)
        found = []
        for name in ("cpu", backend.name):
            with installed(name) as where:
                optimizer = ga.SGD({"t": where.array(np.zeros(shape, np.float32))}, lr=0.0)
                for duplicates in ("sum", "mean"):
                    given = where.array(rows), where.array(values)
                    gradient = ga.RowGrad(*given, duplicates=duplicates)
                    optimizer.step({"t": gradient}, max_norm=math.inf, grad_scale=3.0)
                    found.append(optimizer.last.grad_norm)
        assert found[:2] == found[2:]


def test_a_rows_norm_is_that_of_the_unscaled_gradient(backend):
    random = np.random.default_rng(7)
    values = random.normal(size=(4, 3)).astype(np.float32)
    arrays = [backend.array(np.zeros((4, 3), np.float32)) for _ in range(2)]
    for w, g, scale in zip(arrays, (values, 8 * values), (None, 8.0), strict=True):
        ga.SGD(w, lr=1.0, max_row_norm=0.5).step(backend.array(g), grad_scale=scale)
    assert np.array_equal(*map(backend.numpy, arrays))
    assert np.linalg.norm(backend.numpy(arrays[0]), axis=1).max() <= 0.5 + 1e-6


BAD = {"inf": math.inf, "minus inf": -math.inf, "nan": math.nan}


@pytest.mark.parametrize("where", ["dense", "rows", "merged rows"])
@pytest.mark.parametrize("bad", BAD)
def test_a_skipped_step_changes_nothing(bad, where, backend, dtype):
    random = np.random.default_rng(8)

    def drawn():
        rows = backend.array(np.array([2, 0, 2]))
        return {
            "w": random.normal(size=700).astype(dtype),
            "t": ga.RowGrad(rows, backend.array(random.normal(size=(3, 4)).astype(dtype))),
        }

    def given(grads):
        return {**grads, "w": backend.array(grads["w"])}

    def made():
        start = {"w": np.ones(700, dtype), "t": np.ones((5, 4), dtype)}
        arrays = {name: backend.array(w) for name, w in start.items()}
        return arrays, ga.Adam(arrays, lr=0.1, check="skip")

    (ours, optimizer), (theirs, twin) = made(), made()
    first, spoiled, last = drawn(), drawn(), drawn()
    if where == "dense":
        spoiled["w"][699] = BAD[bad]
    else:
        values = np.ones((3, 4), dtype)
        values[0, 3] = BAD[bad]
        if where == "merged rows":  # each finite, their sum not
            largest = math.copysign(np.finfo(dtype).max, BAD[bad])
            values[[0, 2], 3] = largest
        spoiled["t"] = ga.RowGrad(backend.array(np.array([2, 9, 2])), backend.array(values))
    for grads in (first, spoiled, last):
        optimizer.step(given(grads), skip_nonfinite=True)
    assert not optimizer.last.skipped
    for grads in (first, last):
        twin.step(given(grads))
    assert optimizer.step_count == twin.step_count == 2
    assert optimizer.skipped_rows == 0
    for name in ours:
        assert np.array_equal(backend.numpy(ours[name]), backend.numpy(theirs[name]))
        entries = [o.state_dict()["state"][name] for o in (optimizer, twin)]
        assert entries[0]["updates"] == entries[1]["updates"] == 2
        for letter in "mv":
            assert np.array_equal(*(backend.numpy(entry[letter]) for entry in entries))


def test_what_is_not_finite_without_skipping(backend):
    """NaN stays what it is; with a limit on the norm it is every gradient's."""
    for most, spoiled in ((None, [True, False]), (1.0, [True, True])):
        w = [backend.array(np.ones(1)) for _ in range(2)]
        ga.SGD(w).step([backend.array(np.array([x])) for x in (np.nan, 1.0)], max_norm=most)
        assert [bool(np.isnan(backend.numpy(x))[0]) for x in w] == spoiled


def test_skipping_and_missing_gradients(backend):
    """The GPU alone knows of a skipped step until other parameters have gradients."""
    random = np.random.default_rng(9)
    arrays, twins = ([backend.array(np.ones(4)) for _ in range(2)] for _ in range(2))
    seen = []
    ours = ga.Adam(arrays, lr=lambda step: seen.append(step) or 0.1 / (1 + step))
    theirs = ga.Adam(twins, lr=lambda step: 0.1 / (1 + step))
    for which, bad in [("ab", 0), ("ab", 1), ("a", 0), ("a", 1), ("b", 1), ("ab", 0), ("b", 0)]:
        grads = [random.normal(size=4) if name in which else None for name in "ab"]
        if bad:
            grads["ab".index(which[0])][2] = np.inf
        ours.step([g if g is None else backend.array(g) for g in grads], skip_nonfinite=True)
        if not bad:
            theirs.step([g if g is None else backend.array(g) for g in grads])
    assert ours.step_count == theirs.step_count == 4
    assert max(seen) <= 6
    for a, b in zip(arrays, twins, strict=True):
        assert np.array_equal(backend.numpy(a), backend.numpy(b))
    counts = [[e["updates"] for e in o.state_dict()["state"].values()] for o in (ours, theirs)]
    assert counts == [[3, 3], [3, 3]]


def test_many_skipped_steps_in_a_row(backend):
    w, twin = (backend.array(np.ones(3)) for _ in range(2))
    ours, theirs = ga.Adam(w, lr=0.1), ga.Adam(twin, lr=0.1)
    good, bad = backend.array(np.ones(3)), backend.array(np.full(3, np.nan))
    for step in range(150):
        ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.1 / (1 + step)
        ours.step(good if step % 50 == 49 else bad, skip_nonfinite=True)
        if step % 50 == 49:
            theirs.step(good)
    assert ours.step_count == 3
    assert np.array_equal(backend.numpy(w), backend.numpy(twin))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grad_scale": 0.0}, "grad_scale: got 0.0"),
        ({"grad_scale": -2.0}, "grad_scale"),
        ({"grad_scale": math.inf}, "grad_scale"),
        ({"grad_scale": "2"}, "grad_scale"),
        ({"grad_scale": np.ones(2)}, "grad_scale"),
        ({"grad_scale": 1e-50}, "grad_scale: 1e-50 does not fit in float32"),
        ({"clip_value": 1e39}, "clip_value: 1e.39 does not fit in float32"),
        ({"clip_value": 0}, "clip_value: got 0"),
        ({"max_norm": 0.0}, "max_norm: got 0.0"),
        ({"max_norm": math.nan}, "max_norm"),
        ({"skip_nonfinite": "yes"}, "skip_nonfinite: got 'yes'"),
        ({"skip_nonfinite": 0}, "skip_nonfinite: got 0"),
        ({"skip_nonfinite": np.zeros(2, bool)}, "skip_nonfinite"),
    ],
)
def test_bad_options_change_nothing(options, message):
    w = np.ones(3, np.float32)
    optimizer = ga.Adam(w)
    with pytest.raises(ga.HyperparameterError, match=message):
        optimizer.step(np.ones(3, np.float32), **options)
    assert optimizer.step_count == 0 and optimizer.last is None and (w == 1).all()


def test_a_schedule_of_the_longest_row_and_skipped_steps(backend):
    """The host asks the GPU which step it is."""
    w = backend.array(np.zeros((2, 2)))
    optimizer = ga.SGD(w, lr=1.0, max_row_norm=lambda step: 1.0 + step)
    for value in (np.nan, np.nan, 10.0):
        optimizer.step(backend.array(np.full((2, 2), value)), skip_nonfinite=True)
    assert np.allclose(np.linalg.norm(backend.numpy(w), axis=1), 1.0)


def test_settings_of_skipped_steps_are_not_those_of_later_ones(backend):
    w, good, bad = np.zeros(2), np.full(2, 10.0), np.full(2, np.nan)
    w, good, bad = (backend.array(array) for array in (w, good, bad))
    optimizer = ga.SGD(w, lr=1.0)
    for limit in (0.5, 0.5):
        optimizer.step(bad, skip_nonfinite=True, clip_value=limit)
    assert optimizer.step_count == 0
    optimizer.step(bad, skip_nonfinite=True, clip_value=0.1)
    optimizer.step(good, skip_nonfinite=True, clip_value=0.5)
    assert np.array_equal(backend.numpy(w), [-0.5, -0.5])


def test_an_infinite_limit_is_none(backend):
    w = backend.array(np.ones(2))
    optimizer = ga.SGD(w)
    optimizer.step(backend.array(np.array([np.nan, 1.0])), max_norm=math.inf)
    assert math.isnan(optimizer.last.grad_norm) and optimizer.last.clip_factor == 1


def test_totals_of_subnormal_numbers_do_not_depend_on_their_order():
    random = np.random.default_rng(0)
    numbers = random.random(64) * 2.0**-1023
    assert len({total(random.permutation(numbers)) for _ in range(50)}) == 1


@pytest.mark.parametrize("stream", [3, "default"])
def test_what_is_not_a_stream(stream):
    w = np.ones(2)
    with pytest.raises(ga.BackendError, match="stream: got"):
        ga.SGD(w).step(np.ones(2), stream=stream)
    assert (w == 1).all()
