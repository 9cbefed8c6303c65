"""Results do not depend on the modes of the calling thread's arithmetic, and leave them alone."""

import functools
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import CASES
from test_bits import LARGE

import gpuadapt as ga
from gpuadapt.kernels.cpu import calling, compile
from gpuadapt.run import Steps

X86 = {"flush to zero": 0x9F80, "zeros for subnormals": 0x1FC0, "down": 0x3F80, "up": 0x5F80,
       "towards zero": 0x7F80}  # fmt: skip
ARM = {"flush to zero": 1 << 24, "up": 1 << 22, "down": 2 << 22, "towards zero": 3 << 22}
MODES = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}.get(platform.machine(), {})
DEFAULT, FLAGS = (0x1F80, 0x3F) if MODES is X86 else (0, 0)
"""The default modes, and the bits of exceptions that have occurred, which are none."""

SEEN = """

@njit([types.void(types.Array(types.uint64, 1, "C"))], parallel=True, **ENTRY)
def seen(found):
    for k in prange(found.size):
        before = default_modes()
        found[k] = before
        restore_modes(before)
"""


@functools.cache
def seen():
    return compile.load("seen", compile.imports("seen") + SEEN).seen


def workers():
    """The modes of the threads that Numba has for the calling one."""
    found = np.zeros(64, np.uint64)
    seen()(found)
    return set((found & ~np.uint64(FLAGS)).tolist())


def in_modes(given, threads, function):
    """What a function returns in a new thread with other modes, for which there are workers."""
    switch = calling.switches()

    def run():
        numba.set_num_threads(threads)
        switch.leave(given)
        try:
            before = workers()
            result = function()
            assert workers() == before
        finally:
            after = switch.enter()
        assert after & ~FLAGS == given
        return result

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def small(shape, seed, highest=1):
    """Numbers of all sizes down to subnormal ones."""
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) * 10.0 ** random.uniform(-44, highest, shape)).astype("f4")


def case(name):
    return next(case for case in CASES if case.name == name)


START, TABLE = small(LARGE, 0), small((1000, 64), 1)
DENSE = [small(LARGE, seed) for seed in (2, 3)]
ROWS = np.random.default_rng(4).permutation(np.repeat(np.arange(400), [600, *[1] * 399]))
BATCHES = [(ROWS[:n], small((n, 64), seed)) for n, seed in ((len(ROWS), 5), (300, 6))]
"""One row occurs often."""


def many(name, **request):
    w = START.copy()
    optimizer = case(name).optimizer({"w": w})
    for gradient in DENSE:
        optimizer.step({"w": gradient}, **request)
    return [w, *optimizer.state["w"].values(), np.array(optimizer.last[:2], float)]


def rows(name, request, **changes):
    table = TABLE.copy()
    optimizer = case(name).optimizer({"table": table}, **changes)
    for batch in BATCHES:
        optimizer.step({"table": ga.RowGrad(*batch)}, **request)
    read = optimizer.read("table", np.arange(0, 1000, 3))
    optimizer.flush()
    return [table, *optimizer.state["table"].values(), read, np.array(optimizer.last[:1], float)]


def rate():
    """Of states that are wanted in other modes too."""
    optimizer = case("adam").optimizer({"w": START.copy()})
    calling.in_default_modes(optimizer.step)({"w": DENSE[0]})
    return [optimizer.effective_lr("w")]


RUNS = {
    "many": lambda: many("adam"),
    "squares": lambda: many("adam", max_norm=1.0),
    "rows": lambda: rows("adam+l2+max", {"skip_nonfinite": True}, max_row_norm=0.5),
    "exact": lambda: rows("adam", {}, sparse="exact"),
    "rate": rate,
}

ALONE = {"many": lambda: many("momentum"), "rows": lambda: rows("momentum", {}, max_row_norm=0.5)}
"""Steps whose coefficients need no arithmetic of the host."""


def assert_alike(function, threads, mode):
    """The same bits as in the default modes in one thread."""
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("a machine with one core")
    for a, b in zip(in_modes(mode, threads, function), expected(function), strict=True):
        assert a.tobytes() == b.tobytes(), np.flatnonzero(a != b)[:5]


@functools.cache
def expected(function):
    return in_modes(DEFAULT, 1, function)


def with_threads(names):
    return [(name, threads) for name in names for threads in (1, 2)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "threads"), with_threads(RUNS))
def test_of_a_step(name, threads, mode):
    assert_alike(RUNS[name], threads, MODES[mode])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "threads"), with_threads(ALONE))
def test_of_kernels(name, threads, mode, monkeypatch):
    """Where nothing has set the calling thread's modes for the whole step."""
    monkeypatch.setattr(Steps, "take", Steps.take.__wrapped__)
    assert_alike(ALONE[name], threads, MODES[mode])


OPENMP = """
import test_modes
from gpuadapt.kernels.cpu import torch_pool
for mode in test_modes.MODES.values():
    for name in ("many", "rows"):
        test_modes.assert_alike(test_modes.RUNS[name], 2, mode)
import numba
print(numba.threading_layer(), torch_pool.loaded() is not None)
"""


@pytest.mark.parametrize("torch", [False, True], ids=["omp", "torch"])
def test_of_workers_that_keep_the_modes_of_their_beginning(torch):
    """TBB gives its threads those of the caller at each call, OpenMP only when it makes them."""
    if torch and not find_spec("torch"):
        pytest.skip("torch is not installed")
    found = subprocess.run(
        [sys.executable, "-c", "import torch\n" * torch + OPENMP],
        cwd=Path(__file__).parent,
        env={**os.environ, "NUMBA_THREADING_LAYER": "omp", "NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert found.stdout == f"omp {torch}\n", found.stderr


@pytest.mark.parametrize("mode", MODES)
def test_other_modes_are_noticed_and_restored(mode):
    """By the host, also after an error."""

    @calling.in_default_modes
    def refused():
        assert calling.switches().enter() & ~FLAGS == DEFAULT
        raise ga.Error

    def run():
        with pytest.raises(ga.Error):
            refused()

    in_modes(MODES[mode], 1, run)
