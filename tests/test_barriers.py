"""A kernel without one of its barriers fails with the stand-in for CuPy, as it may on a GPU."""

import re

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt.kernels.cuda import compile

BARRIERS = [("judge.cuh", number) for number in range(4)]
BARRIERS += [("squares.cuh", 0), ("scalars.cuh", 0)]
"""Barriers of blocks: files, and which of the file's."""

OTHERS = {"judge.cuh": 1}
"""How many more there are: before a LossScale is adapted, which the barriers of sums precede."""


def results(host):
    """What steps do, most of them measured and clipped: parameters, norms and factors.

    Each of many threads has a sum, and scalars are written by several warps.
    """
    random = np.random.default_rng(0)
    sizes = [4 + 40 * k for k in range(9)]
    groups = [
        {"params": [host.array(np.ones(size)) for _ in range(40)], "lr": 0.1 + size}
        for size in sizes
    ]
    optimizer = ga.Adam(groups)
    found = []
    for step in range(4):
        grads = [[host.array(random.normal(size=size)) for _ in range(40)] for size in sizes]
        options = {}
        if step != 2:
            scale = host.array(np.full(1, 2.0 + step, np.float32))
            options = {"max_norm": 1.5 + step, "grad_scale": scale, "skip_nonfinite": True}
        optimizer.step(grads, **options)
        found.append(optimizer.last)
    return found, [host.numpy(array) for array in optimizer.params.values()]


def test_barriers_are_those_of_the_list():
    for name in {name for name, _ in BARRIERS}:
        numbers = [number for other, number in BARRIERS if other == name]
        count = compile.read(name).count("__syncthreads();") - OTHERS.get(name, 0)
        assert numbers == [*range(count)], name


@pytest.mark.parametrize(("name", "number"), BARRIERS)
def test_without_a_barrier_steps_are_wrong(name, number, host, monkeypatch):
    expected = results(host)
    text, count = compile.read(name), 0

    def planted(found):
        nonlocal count
        count += 1
        return "" if count == number + 1 else found[0]

    text = re.sub(r"__syncthreads\(\);", planted, text)
    read = compile.read
    monkeypatch.setattr(compile, "read", lambda other: text if other == name else read(other))
    for module in (ga.kernels.cuda.scalars, ga.kernels.cuda.squares, ga.kernels.cuda.multi_tensor):
        for function in vars(module).values():
            getattr(function, "cache_clear", lambda: None)()
    try:
        found = results(host)
    except AssertionError:  # threads wait for others that never come
        return
    same = all(map(np.array_equal, expected[1], found[1])) and expected[0] == found[0]
    assert not same
