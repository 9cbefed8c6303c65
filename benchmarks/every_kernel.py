"""`python -m benchmarks.every_kernel`: a few steps of each kind of kernel, for tools that watch.

For compute-sanitizer on small arrays, and for Nsight Compute (``--elements``) on large ones. What
is computed is not looked at: the tests do that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import gpuadapt as ga
from gpuadapt.arrays import check_device, namespace
from gpuadapt.benchmark.draws import in_type, normal

STEPS = 2
WIDTH = 64

STOCHASTIC = {"rounding": "stochastic"}
DENSE: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "all bfloat16, stochastic": ("bfloat16", STOCHASTIC | {"state_dtype": "bfloat16"}),
    "8-bit states": ("float32", {"state_dtype": "8bit"}),
    "bfloat16 stochastic, 8-bit states": ("bfloat16", STOCHASTIC | {"state_dtype": "8bit"}),
}
"""Element type and settings of arrays that are updated whole."""

ROWS: dict[str, dict[str, Any]] = {
    "rows": {},
    "rows, 8-bit states": {"state_dtype": "8bit"},
    "exact rows": {"sparse": "exact"},
    "exact rows, replayed": {"sparse": "exact", "exactness": "bits"},
}


def main() -> None:
    """Take the steps, a line for each kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.every_kernel", description=__doc__)
    parser.add_argument("--elements", type=int, default=20_000, help="of each array")
    given = parser.parse_args()
    check_device()
    # Every array has memory of its own: within a pool no tool sees where an array ends.
    namespace("cuda").cuda.set_allocator(None)
    for name, take in kinds("cuda", given.elements).items():
        take()
        print(name, flush=True)


def kinds(backend: str, elements: int) -> dict[str, Callable[[], None]]:
    """What takes a few steps, by its name."""
    found: dict[str, Callable[[], None]] = {}
    for name, (element, settings) in DENSE.items():
        found[f"Adam, {name}"] = partial(dense, backend, elements, element, settings)
    found["Adam, clipped by the norm"] = partial(dense, backend, elements, "float32", {}, 1.0)
    for name, settings in ROWS.items():
        found[f"Adam, {name}"] = partial(by_rows, backend, elements, settings)
    return found


def dense(
    backend: str,
    elements: int,
    element: str,
    settings: dict[str, Any],
    max_norm: float | None = None,
) -> None:
    """A long array, an array that ends within an access, and one of a single element."""
    draw, sizes = normal(backend, 0), (elements, elements // 3 + 1, 1)
    optimizer = ga.Adam([in_type(draw(size), element) for size in sizes], **settings)
    clip = {} if max_norm is None else {"max_norm": max_norm}
    for _ in range(STEPS):
        optimizer.step([in_type(draw(size), element) for size in sizes], **clip)


def by_rows(backend: str, elements: int, settings: dict[str, Any]) -> None:
    """A table, by batches with duplicates and a row that occurs very often; clipped, then read."""
    xp, draw, random = namespace(backend), normal(backend, 0), np.random.default_rng(0)
    count = max(elements // WIDTH, 10)
    optimizer = ga.Adam({"table": draw((count, WIDTH))}, **settings)
    for _ in range(STEPS):
        numbers = random.integers(0, count, count)
        numbers[: count // 2] = count // 3
        gradient = ga.RowGrad(xp.asarray(numbers), draw((count, WIDTH)))
        optimizer.step({"table": gradient}, max_norm=1.0)
    if "sparse" in settings:
        optimizer.read("table", xp.asarray(np.arange(count)))


if __name__ == "__main__":
    main()
