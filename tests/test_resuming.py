"""Runs that go on from a file have the bits of runs that were not interrupted."""

from functools import partial

import ml_dtypes
import numpy as np
import pytest
import torch
from conftest import BACKENDS, installed
from test_bits import assert_same_bits

import gpuadapt as ga

BF16 = ml_dtypes.bfloat16


def some(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arrays(optimizer, backend):
    """All parameters and states, as NumPy arrays."""
    found = [optimizer.params, *optimizer.state.values()]
    every = [array for each in found for array in each.values()]
    parts = [[one.codes, one.scales] if hasattr(one, "codes") else [one] for one in every]
    return [backend.numpy(array) for part in parts for array in part]


def compare(make, first, grads, backend, path, after=3):
    """Take steps, save, load into a new optimizer, and take the other steps beside the first."""
    straight = make({"w": backend.array(first)})
    for gradient in grads[:after]:
        straight.step({"w": gradient})
    straight.save(path)
    resumed = make({"w": backend.array(np.zeros_like(first))})
    assert not any(resumed.load(path))
    for gradient in grads[after:]:
        straight.step({"w": gradient})
        resumed.step({"w": gradient})
    straight.flush()
    resumed.flush()
    assert resumed.step_count == straight.step_count == len(grads)
    for one, other in zip(*(arrays(each, backend) for each in (straight, resumed)), strict=True):
        assert_same_bits(one, other)
    return straight


def method(where):
    """Return a class of optimizers; on the CPU one whose kernels compile quickly."""
    return partial(ga.SGD, lr=0.1, momentum=0.7) if where == "cpu" else partial(ga.Adam, lr=0.1)


FORMATS = [
    (BF16, {"rounding": "stochastic", "seed": 5, "state_dtype": "bfloat16"}),
    (np.float32, {"state_dtype": "8bit"}),
    (BF16, {"rounding": "kahan", "state_dtype": "8bit"}),
    (BF16, {"master": "split"}),
    (np.float16, {"master": "float32", "state_dtype": "float16"}),
]


TRIED = [
    (where, *form)
    for where in BACKENDS
    for k, form in enumerate(FORMATS)
    if where != "cpu" or k == 0
]


@pytest.mark.parametrize(("where", "dtype", "settings"), TRIED)
def test_steps_in_every_format(where, dtype, settings, tmp_path):
    with installed(where) as backend:
        first = some((5, 70), dtype=dtype)
        first = first.view(np.uint16) if where != "cpu" and dtype is BF16 else first
        grads = [backend.array(some((5, 70), seed)) for seed in range(1, 12)]
        compare(partial(method(where), **settings), first, grads, backend, tmp_path / "a")


ROWS = [{"sparse": "exact", "exactness": "bits"}, {"sparse": "exact"}, {}]
BY_ROWS = [
    (where, settings) for where in BACKENDS for settings in ROWS[: 1 if where == "cpu" else 3]
]


@pytest.mark.parametrize(("where", "settings"), BY_ROWS)
def test_steps_by_rows(where, settings, tmp_path):
    """Exact rows are flushed by a save, and both runs go on from there."""
    draw = np.random.default_rng(0)
    batches = [(draw.integers(9, size=4), some((4, 16), seed)) for seed in range(11)]
    with installed(where) as backend:
        grads = [ga.RowGrad(*map(backend.array, batch)) for batch in batches]
        make = partial(method(where), **settings)
        compare(make, some((9, 16)), grads, backend, tmp_path / "a")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_is_told_of_tensors_that_were_loaded(dtype, tmp_path):
    saved, new = torch.randn(4, 3).to(dtype), torch.zeros(4, 3, dtype=dtype, requires_grad=True)
    ga.SGD({"w": saved}, lr=0.1).save(tmp_path / "a")
    optimizer = ga.SGD({"w": new}, lr=0.1)
    product = (new * new).sum()  # whose gradient needs the numbers of before
    before = new._version
    optimizer.load(tmp_path / "a", params=False)
    assert new._version == before
    optimizer.load(tmp_path / "a")
    assert torch.equal(new, saved) and new._version > before
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
