"""One float32 array, from 1,000 elements on: every method, torch's fused Adam, the limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import gpuadapt as ga

from . import limits, peers
from .timing import interleaved

METHODS = {
    "adagrad": ga.Adagrad,
    "rmsprop": ga.RMSprop,
    "adadelta": ga.Adadelta,
    "adam": ga.Adam,
}
CHECKED = 5_000_000
"""Elements up to which results are compared: enough for every path of a kernel."""
LARGEST = {"cpu": 50_000_000, "cuda": 2**28}


def cases(backend: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Results, a dictionary each: case, size, candidates with their times."""
    sizes = [1_000, 1_000_000, 10_000_000, LARGEST[backend]]
    for size in sizes[:2] if quick else sizes:
        for method in METHODS:
            if method == "adam" or size == 10_000_000:
                yield _case(method, size, backend, quick)


def _case(method: str, size: int, backend: str, quick: bool) -> dict[str, Any]:
    xp = _library(backend)
    random = np.random.default_rng(0)
    start = random.standard_normal(size, np.float32)
    gradient = xp.asarray(random.standard_normal(size, np.float32))
    optimizer = METHODS[method](xp.asarray(start))
    states = len(optimizer.rule.states)
    _check(METHODS[method], method, xp, min(size, CHECKED), backend)
    candidates = {
        "gpuadapt": lambda: optimizer.step(gradient),
        **limits.candidates(xp, backend, size, states),
        **(peers.torch_adam(start, backend) if method == "adam" else {}),
    }
    times = interleaved(candidates, backend, rounds=5 if quick else 15)
    moved = 4 * size * (2 + 1 + 2 * states)
    return {"case": method, "size": size, "backend": backend, "bytes": moved, "times": times}


def _check(make: Any, method: str, xp: Any, size: int, backend: str) -> None:
    """The first steps against our float64 on the CPU, ours and torch's Adam in each form."""
    random = np.random.default_rng(1)
    start = random.standard_normal(size)
    gradients = [random.standard_normal(size) for _ in range(3)]
    exact = start.copy()
    reference = make(exact, lr=0.01)
    ours = xp.asarray(start, dtype=xp.float32)
    optimizer = make(ours, lr=0.01)
    for gradient in gradients:
        reference.step(gradient)
        optimizer.step(xp.asarray(gradient, dtype=xp.float32))
    results = {"gpuadapt": ours if xp is np else ours.get()}
    if method == "adam":
        results |= peers.torch_results(start, gradients, 0.01, backend)
    for name, result in results.items():
        assert np.abs(result - exact).max() < 2e-6, (name, method, size)


def _library(backend: str) -> Any:
    if backend == "cpu":
        return np
    import cupy

    return cupy
