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
    _check(METHODS[method], method, xp)
    candidates = {
        "gpuadapt": lambda: optimizer.step(gradient),
        **limits.candidates(xp, backend, size, states),
        **(peers.torch_adam(start, backend) if method == "adam" else {}),
    }
    times = interleaved(candidates, backend, rounds=5 if quick else 15)
    moved = 4 * size * (2 + 1 + 2 * states)
    return {"case": method, "size": size, "bytes": moved, "times": times}


def _check(make: Any, method: str, xp: Any) -> None:
    """The first steps against plain NumPy float64, and Adam's against torch's."""
    random = np.random.default_rng(1)
    start = random.standard_normal(1001)
    w32, w64 = xp.asarray(start, dtype=xp.float32), start.copy()
    one, two = make(w32, lr=0.01), make(w64, lr=0.01)
    theirs = peers.torch_steps(start, 0.01) if method == "adam" else None
    for _ in range(3):
        gradient = random.standard_normal(1001)
        one.step(xp.asarray(gradient, dtype=xp.float32))
        two.step(gradient)
        if theirs:
            theirs(gradient)
    ours = w32 if xp is np else w32.get()
    assert np.abs(ours - w64).max() < 1e-6, method
    if theirs:
        assert np.abs(theirs(None) - w64).max() < 1e-6, "torch"


def _library(backend: str) -> Any:
    if backend == "cpu":
        return np
    import cupy

    return cupy
