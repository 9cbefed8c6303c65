"""Threads of kernels: Numba's or torch's, as many as are given, and the same bits by each of them.

What needs torch runs in a process of its own, whose threads nobody else has started.
"""

import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import launch, parameter
from gpuadapt.kernels.cpu import calling, compile, multi_tensor, numba_pool, torch_pool

TORCH = importlib.util.find_spec("torch") is not None
HERE = Path(__file__).parent
LARGE = 3 * calling.ALONE + multi_tensor.CHUNK + 37
COUNT = 5000
"""Rows of a batch; so many are sorted by several threads."""


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def batch():
    """Some rows occur often: their gradients are summed by all threads."""
    return (2000 ** np.random.default_rng(3).random(COUNT)).astype(np.int64) - 1


def of(optimizer):
    """The parameters and the numbers that the states stand for."""
    states = (np.asarray(a) for state in optimizer.state.values() for a in state.values())
    return [*optimizer.params.values(), *states]


def many(settings, **request):
    optimizer = ga.Adam([random(0, LARGE), random(1, 300, 50)], lr=0.1, **settings)
    for seed in (4, 5):
        optimizer.step([random(seed, LARGE), random(seed + 2, 300, 50)], **request)
    return [*of(optimizer), np.array(optimizer.last[:2], float)]


def gaps():
    optimizer = ga.Adam(random(0, LARGE, 2)[:, 0], lr=0.1)
    optimizer.step(random(4, LARGE))
    return of(optimizer)


def rows(settings, **request):
    optimizer = ga.Adam({"table": random(2, 2000, 20)}, lr=0.1, **settings)
    for seed in (4, 5):
        optimizer.step({"table": ga.RowGrad(batch()[::-1], random(seed, COUNT, 20))}, **request)
    read = optimizer.read("table", np.arange(0, 2000, 3))
    optimizer.flush()
    return [*of(optimizer), read, np.array(optimizer.last[:2], float)]


TRAVERSALS = {
    "many": lambda: many({}),
    "squares": lambda: many({}, max_norm=1.0),
    "blocks": lambda: many({"state_dtype": "8bit"}),
    "gaps": gaps,
    "rows": lambda: rows({"max_row_norm": 3.0}),
    "squares of rows": lambda: rows({"rowwise": True}, skip_nonfinite=True),
    "exact": lambda: rows({"sparse": "exact"}),
}


def digests(threads):
    """A digest of each traversal's results, by that choice of threads."""
    with chosen(threads):
        return {
            name: hashlib.sha256(b"".join(a.tobytes() for a in run())).hexdigest()
            for name, run in TRAVERSALS.items()
        }


@contextmanager
def chosen(threads):
    """Updates that are bound meanwhile have that choice of threads."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (launch, "bind_multi_tensor"), (parameter, "bind_strided"), (parameter, "bind_rows"),
        ):  # fmt: skip
            bind = functools.partial(getattr(launch, name), threads=threads)
            patch.setattr(module, name, bind)
        yield


def python(script, *before, **environment):
    """What a script prints, in a process that has imported ``before``."""
    text = "\n".join([*(f"import {name}" for name in before), "from test_pools import *", script])
    found = subprocess.run(
        [sys.executable, "-c", text],
        cwd=HERE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


PRINT = "print(json.dumps({str(threads): digests(threads) for threads in %r}))"


@functools.cache
def expected():
    return digests(1)


@pytest.mark.parametrize("name", TRAVERSALS)
@pytest.mark.parametrize("threads", [None, 2])
def test_bits_by_numbas_threads(threads, name):
    assert of_numba()[str(threads)][name] == expected()[name]


@functools.cache
def of_numba():
    return json.loads(python(PRINT % [None, 2], NUMBA_NUM_THREADS="3"))


needs_torch = pytest.mark.skipif(not TORCH, reason="torch is not installed")


@functools.cache
def of_torch(limit):
    script = "torch.set_num_threads(2)\n" + PRINT % [None, "numba"]
    return json.loads(python(script, "torch", **({"OMP_THREAD_LIMIT": limit} if limit else {})))


@needs_torch
@pytest.mark.parametrize("name", TRAVERSALS)
@pytest.mark.parametrize("limit", [None, "1"])
@pytest.mark.parametrize("threads", [None, "numba"])
def test_bits_by_torchs_threads(threads, limit, name):
    """OpenMP gives fewer threads than it is asked for where their number is limited."""
    assert of_torch(limit)[str(threads)][name] == expected()[name]


CALLED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
ENTER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)


def pool(times):
    """A pool that calls the function so many times for a number of threads, each in a thread."""

    def enter(function, data, threads, flags):
        entered.append(threads)
        made = [
            threading.Thread(target=CALLED(function), args=(data,)) for _ in range(times(threads))
        ]
        for thread in made:
            thread.start()
        for thread in made:
            thread.join()

    entered = []
    kept = ENTER(enter)
    return kept, ctypes.cast(kept, ctypes.c_void_p).value, entered


POOLS = {"one": lambda n: 1, "fewer": lambda n: n - 1, "more": lambda n: n + 2}


@pytest.mark.parametrize("times", POOLS)
def test_all_parts_are_done_whatever_the_pool_gives(times, monkeypatch):
    kept, address, entered = pool(POOLS[times])
    monkeypatch.setattr(torch_pool, "loaded", lambda: torch_pool)
    monkeypatch.setattr(torch_pool, "entry", lambda: address)
    monkeypatch.setattr(torch_pool, "count", lambda torch: 4)
    assert digests(None) == expected()
    assert set(entered) == {4}
    assert kept


LAYER = """
import numba
w = random(0, LARGE)
with chosen(%r):
    ga.Adam(w).step(w.copy())
try:
    print(numba.threading_layer())
except ValueError:
    print("not started")
"""


@pytest.mark.parametrize(
    ("before", "threads", "started"),
    [
        ((), None, True),
        ((), 1, False),
        pytest.param(("torch",), None, False, marks=needs_torch),
        pytest.param(("torch",), "torch", False, marks=needs_torch),
        pytest.param(("torch",), "numba", True, marks=needs_torch),
    ],
)
def test_which_threads_are_used(before, threads, started):
    """Numba starts its own only where they are used."""
    assert (python(LAYER % threads, *before) != "not started") == started


BUSY = """
import time, torch
w, gradient = random(0, 2_000_000), random(1, 2_000_000)
optimizer = ga.Adam(w)
torch.set_num_threads(%d)
optimizer.step(gradient)
kernel, alone = time.process_time(), time.thread_time()
for _ in range(20):
    optimizer.step(gradient)
alone = time.thread_time() - alone
print((time.process_time() - kernel - alone) / alone)
"""


@needs_torch
@pytest.mark.parametrize("count", [1, 2])
def test_torchs_number_of_threads_is_used(count):
    """By the time that other threads than the calling one have had."""
    others = float(python(BUSY % count))
    assert others < 0.02 if count == 1 else others > 0.2


FORK = """
import os, time
parent = %r
if parent:
    w = random(0, LARGE)
    optimizer = ga.Adam(w)
    optimizer.step(w.copy())
a = torch.ones(500, 500)
a @ a
child = os.fork()
if child == 0:
    if not parent:
        w = random(0, LARGE)
        optimizer = ga.Adam(w)
        optimizer.step(w.copy())
    begin = time.perf_counter()
    optimizer.step(w.copy())
    print(time.perf_counter() - begin < 1, calling.share(LARGE), flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert calling.share(LARGE) == 2
"""


@needs_torch
@pytest.mark.parametrize("parent", [True, False], ids=["a step before", "none before"])
def test_a_forked_child_steps_in_one_thread(parent):
    """The threads of its parent's OpenMP are not there; to enter them takes forever."""
    before = "torch; torch.set_num_threads(2)"
    assert python(FORK % parent, before).split() == ["True", "1"]


IMPORTED_IN_CHILD = """
import os, sys, torch
torch.set_num_threads(2)
a = torch.ones(500, 500)
a @ a
child = os.fork()
if child == 0:
    import numpy as np, gpuadapt as ga
    w = np.ones(500_000, np.float32)
    ga.Adam(w, lr=0.25).step(w.copy())
    os._exit(0 if w[-1] == 0.75 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_torch
def test_a_child_that_imports_after_the_fork():
    found = subprocess.run(
        [sys.executable, "-c", IMPORTED_IN_CHILD], capture_output=True, text=True, timeout=120
    )
    assert found.stdout == "0\n", found.stderr


NESTED = """
import torch
torch.set_num_threads(2)
arrays = [random(0, LARGE) for _ in range(4)]
optimizers = [ga.Adam(w) for w in arrays]
gradient = random(1, LARGE)
for optimizer in optimizers:
    optimizer.step(gradient)

left = [*optimizers]

def work(_=None):
    while left:
        optimizer = left.pop()
        for _ in range(5):
            optimizer.step(gradient)

if %r:
    kept = CALLED(work)
    enter = ENTER(torch_pool.entry())
    enter(ctypes.cast(kept, ctypes.c_void_p), None, 2, 0)
else:
    made = [threading.Thread(target=work) for _ in range(2)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
alone = random(0, LARGE)
optimizer = ga.Adam(alone)
for _ in range(6):
    optimizer.step(gradient)
print([np.array_equal(w, alone) for w in arrays])
"""


@needs_torch
@pytest.mark.parametrize("nested", [False, True], ids=["threads of Python", "threads of OpenMP"])
def test_two_threads_step_at_once(nested):
    assert python(NESTED % nested) == str([True] * 4)


@pytest.mark.parametrize("threads", [0, -1, True, "omp", 1.5])
def test_threads_that_are_not_there_are_refused(threads):
    with pytest.raises(ga.BackendError, match=r"threads=.*: pass None, 'numba', 'torch'"):
        calling.check(threads)


def test_torchs_threads_are_refused_without_torch():
    script = """
try:
    calling.check("torch")
except ga.BackendError as error:
    print(error)
"""
    assert python(script).startswith("threads='torch': torch is not imported")


FAILS = """

@njit(**OPTIONS)
def body(part, done):
    if part == 1:
        raise ValueError("part")
    done[part] = 1


@njit([types.void(types.Array(types.int64, 1, "C"), types.int64)], **ENTRY)
def entry(done, pool):
    fork(body, (done,), done.size, done.size, pool)
"""


@pytest.mark.parametrize("shared", [False, True])
def test_a_part_that_fails_is_known_to_the_caller(shared):
    """Other parts are done; what a part may lack is memory."""
    compiled = compile.load("fails", compile.imports("fails") + FAILS).entry
    done = np.zeros(4, np.int64)
    with pytest.raises(MemoryError, match="no memory is left for a thread"):
        compiled(done, numba_pool.entry() if shared else 0)
    assert done.tolist() == [1, 0, 1, 1]
