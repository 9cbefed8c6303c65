"""Equal bits: across backends, threads, strides and cuts, for every rule and option."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import CASES, KINDS, RULES
from conftest import crossed

import gpuadapt as ga
from gpuadapt.kernels.cpu import calling, compile, multi_tensor
from gpuadapt.oracle import any_bits, evaluate, same_bits

LARGE = calling.ALONE + multi_tensor.CHUNK + 37
"""Elements enough for several threads, and a remainder."""


def assert_same_bits(a, b, **where):
    assert a.dtype == b.dtype and a.shape == b.shape
    same = same_bits(a, b)
    assert same.all(), (where, a[~same][:5], b[~same][:5])


def some_coefficients(rule):
    """A number for each coefficient of a rule."""
    values = [0.9, 0.1, 0.5, 1e-3, 1.1, 0.01, 1.25, 2.0, 0.3, 1e-8, 0.7, 3e-4, 0.2, 4.0]
    assert len(rule.coefficients) <= len(values)
    return values[: len(rule.coefficients)]


def run(backend, rule, arrays, coefficients):
    """One update of (parameter, gradient, *states) on a backend; the new parameter and states."""
    from gpuadapt.kernels.formats import Operand, uniform
    from gpuadapt.launch import update_once

    parameter, gradient, *states = map(backend.array, arrays)
    where = "cpu" if backend.name == "cpu" else "cuda"
    operand = Operand((parameter, *states))
    update_once(rule, where, uniform(rule, parameter.dtype), operand, gradient, coefficients)
    return [backend.numpy(array) for array in (parameter, *states)]


@crossed(RULES, [case.rule for case in KINDS], always={("cpu", "float32"), ("host", "float32")})
def test_any_bit_pattern(item, backend, dtype):
    rule = item
    random = np.random.default_rng(7)
    arrays = [any_bits(random, 3001, dtype) for _ in rule.program.arguments]
    coefficients = some_coefficients(rule)
    expected = evaluate(rule, arrays, coefficients)
    for size in (len(arrays[0]), LARGE):
        repeated = [np.resize(a, size) for a in arrays]
        for got, want in zip(run(backend, rule, repeated, coefficients), expected, strict=True):
            assert_same_bits(got, np.resize(want, size), rule=rule.name, backend=backend.name)


@ga.rule
def every_function(p, g, a, b, h):
    """All that the language has."""
    low = minimum(p, g)  # noqa: F821
    high = maximum(a, b)  # noqa: F821
    signs = sign(p) * 0.5 - sign(-g)  # noqa: F821
    less = where(p < g, low, where(p <= a, high, signs))  # noqa: F821
    more = where(a > b, abs(a), where(a >= g, sqrt(abs(b)), sq(p)))  # noqa: F821
    early = where(h.t > 1, a, where(h.x < 2, b, p))  # noqa: F821
    same = where(a == b, less, where(p != g, more, h.x / 3 * early))  # noqa: F821
    return less + more / 7, low, same - 1 / 3 * high


def test_every_function_on_any_bit_pattern(backend, dtype):
    random = np.random.default_rng(3)
    arrays = [any_bits(random, 20001, dtype) for _ in range(4)]
    arrays[3][::3] = arrays[2][::3]
    coefficients = every_function.evaluate(1.5, 1)
    expected = evaluate(every_function, arrays, coefficients)
    for got, want in zip(run(backend, every_function, arrays, coefficients), expected, strict=True):
        assert_same_bits(got, want, backend=backend.name)


def train(case, backend, parameters, gradients, steps=3):
    """Parameters after a few steps, from NumPy arrays whose strides are kept."""
    ours = [backend.array(parameter) for parameter in parameters]
    optimizer = case.optimizer(ours)
    for step in range(steps):
        optimizer.step([backend.array(gradient[step]) for gradient in gradients])
    states = [s for of in optimizer.state.values() for s in of.values()]
    return [backend.numpy(array) for array in (*ours, *states)]


LAYOUTS = {
    "fortran": lambda a: np.asfortranarray(a),
    "transposed": lambda a: a.T.copy().T,
    "every other column": lambda a: spread(a, 2, 0)[:, ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "offset by one element": lambda a: spread(a, 1, 1)[:, 1:],
    "three dimensions": lambda a: np.ascontiguousarray(
        a.reshape(a.shape[0], -1, 3).transpose(2, 0, 1)
    ).transpose(1, 2, 0),
}


def spread(a, step, offset):
    wide = np.zeros((a.shape[0], a.shape[1] * step + offset), a.dtype)
    wide[:, offset::step] = a
    return wide


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["parameter", "gradient", "both"])
def test_strides_do_not_matter(layout, which, backend, dtype):
    random = np.random.default_rng(2)
    case = next(case for case in CASES if case.name == "adamw")
    start = random.normal(size=(11, 6)).astype(dtype)
    gradients = random.normal(size=(3, 11, 6)).astype(dtype)
    shape = LAYOUTS[layout](start).shape
    expected = train(case, backend, [start.reshape(shape)], [gradients.reshape(3, *shape)])
    arranged = LAYOUTS[layout](start) if which != "gradient" else start.reshape(shape)
    pushed = [LAYOUTS[layout](g) if which != "parameter" else g.reshape(shape) for g in gradients]
    got = train(case, backend, [arranged], [pushed])
    for a, b in zip(got, expected, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case.name)
def test_cuts_do_not_matter(case, backend, dtype):
    random = np.random.default_rng(4)
    start = random.normal(size=LARGE).astype(dtype)
    gradients = random.normal(size=(2, LARGE)).astype(dtype)
    whole = train(case, backend, [start], [gradients], steps=2)
    cuts = [0, 1, 6, 1000, multi_tensor.CHUNK + 3, LARGE]
    parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    cut = train(case, backend, [start[s] for s in parts], [gradients[:, s] for s in parts], steps=2)
    count = len(parts)
    assert np.array_equal(np.concatenate(cut[:count]), whole[0])
    for k, state in enumerate(whole[1:]):
        states = cut[count + k :: len(whole) - 1]
        assert np.array_equal(np.concatenate(states), state)


THREADS = """
import sys
import numpy as np
from cases import KINDS
for case in KINDS:
    random = np.random.default_rng(5)
    w = random.normal(size=int(sys.argv[1])).astype(np.float32)
    optimizer = case.optimizer(w)
    for _ in range(2):
        optimizer.step(random.normal(size=w.size).astype(np.float32))
    sys.stdout.buffer.write(w.tobytes())
import numba
assert numba.get_num_threads() == int(sys.argv[2])
"""


def test_threads_do_not_matter():
    def bits(threads):
        return subprocess.run(
            [sys.executable, "-c", THREADS, str(LARGE), str(threads)],
            cwd=Path(__file__).parent,
            env={**os.environ, "NUMBA_NUM_THREADS": str(threads)},
            capture_output=True,
            check=True,
        ).stdout

    one = bits(1)
    assert len(one) == len(KINDS) * LARGE * 4
    assert one == bits(2) == bits(4)


@pytest.mark.parametrize("prefetched", [False, True])
def test_prefetching_does_not_matter(dtype, prefetched, monkeypatch):
    """Beyond the size from which it is used, against the same array in pieces."""
    monkeypatch.setattr(multi_tensor, "PREFETCHED", prefetched)
    monkeypatch.setattr(multi_tensor, "kernel", multi_tensor.kernel.__wrapped__)
    assert (
        "update_prefetched" in ga.Adam(np.ones(1)).rule.source("cpu", "dense", dtype)
    ) == prefetched
    size = multi_tensor.CACHED // dtype.itemsize + multi_tensor.CHUNK + 37
    random = np.random.default_rng(6)
    start, gradient = random.normal(size=(2, size)).astype(dtype)
    whole, pieces = start.copy(), start.copy()
    ga.Adam(whole, lr=0.1).step(gradient)
    ga.Adam(np.array_split(pieces, 7), lr=0.1).step(np.array_split(gradient, 7))
    assert np.array_equal(whole, pieces)
    assert (whole != start).all()


def test_where_a_cache_line_begins_does_not_matter(dtype):
    """Spans are laid out by the parameter's address: every element belongs to just one."""
    random = np.random.default_rng(7)
    start, gradient = random.normal(size=(2, LARGE)).astype(dtype)
    expected = start.copy()
    ga.Adam(expected, lr=0.1).step(gradient)
    for offset in range(compile.LINE // dtype.itemsize + 1):
        for size in (LARGE, calling.ALONE + 1, calling.ALONE + multi_tensor.CHUNK - offset):
            w = np.empty(offset + size, dtype)[offset:]
            w[:] = start[:size]
            ga.Adam(w, lr=0.1).step(gradient[:size])
            assert np.array_equal(w, expected[:size]), (offset, size)


def test_a_mask_on_threads_is_respected():
    w = np.ones(LARGE, np.float32)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        ga.Adam(w).step(w.copy())
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
