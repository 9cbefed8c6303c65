"""`python -m benchmarks.smoke`: whether a GPU does anything, and with the bits of the CPU."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import gpuadapt as ga
from gpuadapt.arrays import check_device, namespace, to_host

SHAPES = ((5,), (1_000, 1_000))
STEPS = 3


def main() -> int:
    """A line for each trial; 1 if one differs from the CPU.

    What cannot run at all raises its own error.
    """
    check_device()
    wrong = 0
    for shape in SHAPES:
        for rows in (False, True)[: len(shape)]:
            began = time.perf_counter()
            here, there = (trained(backend, shape, rows) for backend in ("cpu", "cuda"))
            differ = sum(int((a != b).sum()) for a, b in zip(here, there, strict=True))
            trial = f"Adam, {' x '.join(map(str, shape))}{', by rows' * rows}"
            verdict = f"{differ} numbers DIFFER" if differ else "the same bits"
            print(f"{trial}: {verdict}, {time.perf_counter() - began:.1f} s", flush=True)
            wrong += bool(differ)
            if differ:
                print(first_difference(shape, rows), flush=True)
    return int(wrong > 0)


def first_difference(shape: tuple[int, ...], rows: bool) -> str:
    """Say where bits differ after the first step after which they do."""
    for steps in range(1, STEPS + 1):
        here, there = (trained(backend, shape, rows, steps) for backend in ("cpu", "cuda"))
        for name, a, b in zip(("parameter", "m", "v"), here, there, strict=True):
            for index in np.flatnonzero(a != b)[:1]:
                bits = f"{a.flat[index]:08x} on the CPU, {b.flat[index]:08x} on the GPU"
                return f"    step {steps}, {name}, element {index}: {bits}"
    return "    not the second time: something else writes there, or reads too early"


def trained(
    backend: str, shape: tuple[int, ...], rows: bool, steps: int = STEPS
) -> list[np.ndarray]:
    """Bits of the parameter and the states after some steps."""
    xp, random = namespace(backend), np.random.default_rng(0)
    w = xp.asarray(random.standard_normal(shape, np.float32))
    optimizer = ga.Adam({"w": w}, lr=0.1)
    for _ in range(steps):
        gradient: Any = xp.asarray(random.standard_normal(shape, np.float32))
        if rows:
            numbers = xp.asarray(random.integers(0, shape[0], shape[0]))  # with duplicates
            gradient = ga.RowGrad(numbers, gradient)
        optimizer.step({"w": gradient})
    return [to_host(array).view(np.uint32) for array in (w, *optimizer.state["w"].values())]


if __name__ == "__main__":
    sys.exit(main())
