"""docs/formulas.md, line by line."""

from pathlib import Path

import numpy as np
import pytest
import reference

import gpuadapt as ga

pytestmark = pytest.mark.usefixtures("by_numpy")
PAGE = Path(__file__).parent.parent / "docs" / "formulas.md"
LINES = {
    line.split("|")[1].strip(): line.split("`")[1]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if "| `ga." in line
}


def row_mean(g):
    return np.broadcast_to((g**2).mean(axis=1, keepdims=True), g.shape)


def adagrad(eps, lr=1e-2, **more):
    return reference.adagrad, {"lr": lr, "eps": eps, "eps_mode": "outside", **more}


def adam(eps=1e-8, eps_mode="outside"):
    return reference.adam, {
        "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": eps, "eps_mode": eps_mode,
    }  # fmt: skip


def rmsprop(**more):
    return reference.rmsprop, {"lr": 1e-3, "rho": 0.9, "eps": 1e-7, **more}


# For each line of the page: the paper's method in that system's form, and its weight decay.
THEIRS = {
    "tf_keras legacy Adagrad": (
        adagrad(1e-7, lr=1e-3, initial_accumulator=0.1, lr_decay=0.01), {}),
    "tf_keras legacy RMSprop": (rmsprop(eps_mode="outside"), {}),
    "the same with momentum": (rmsprop(momentum=0.9, momentum_form="velocity"), {}),
    "tf_keras Adam, adaptive_epsilon": (adam(1e-7), {}),
    "TensorFlow Addons, decoupled": (
        adam(eps_mode="uncorrected"), {"weight_decay": 1e-4, "decay": "absolute"}),
    "Apex, adagrad_w_mode": (adagrad(1e-10), {"weight_decay": 1e-2, "decay": "decoupled"}),
    "Apex, DeepSpeed, bitsandbytes Adam": (adam(), {"weight_decay": 1e-2, "decay": "decoupled"}),
    "FBGEMM exact Adagrad": (adagrad(1e-8), {}),
    "DLRM RWSAdagrad": (adagrad(1e-10, square=row_mean), {}),
    "DGL SparseAdagrad": ((reference.adagrad, {"lr": 1e-2, "eps": 1e-10}), {}),
    "HugeCTR Adam": (adam(1e-7, "uncorrected"), {}),
    "MXNet Adagrad": (adagrad(1e-6), {"weight_decay": 1e-2}),
    "Thinc Adam, is_weight_decay": (
        adam(eps_mode="uncorrected"), {"weight_decay": 1e-2, "decay": "after"}),
    "ONNX Adagrad": (adagrad(1e-5, lr=1e-1, lr_decay=0.1), {"weight_decay": 1e-3}),
}  # fmt: skip


def test_every_line_is_tested():
    assert set(LINES) == set(THEIRS) and len(LINES) == 14


@pytest.mark.parametrize("system", LINES)
def test_line(system):
    (method, hyper), options = THEIRS[system]
    random = np.random.default_rng(0)
    w = random.normal(size=(5, 4))
    start, expected, state = w.copy(), w.copy(), {}
    optimizer = eval(LINES[system], {"ga": ga, "w": w})
    update = reference.with_options(method, **options)
    for t in range(1, 9):
        # Small enough for eps to matter, wherever it stands.
        gradient = random.normal(size=w.shape) * 1e-5
        optimizer.step(gradient)
        expected = update(expected, gradient, state, t, **hyper)
    moved = np.abs(expected - start).max()
    assert moved > 0
    np.testing.assert_allclose(w - start, expected - start, atol=1e-9 * moved, rtol=1e-9)
