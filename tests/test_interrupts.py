"""Ctrl-C, signal handlers and threads: arrays and counts are those before a call or after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from conftest import Backend
from interruptions import check_every_line

import gpuadapt as ga
from gpuadapt.kernels import commit

F, SHAPE = np.float32, (6, 4)


class Kind(NamedTuple):
    """Parameters, and how they are updated."""

    dtypes: tuple[Any, ...] = (F, F)
    settings: dict[str, Any] = {}
    by_rows: bool = False
    order: str = "C"
    """Of gradients; parameters are in C order."""


KINDS = {
    "many types": Kind((F, np.float64, np.float16)),
    "strided": Kind(order="F"),
    "exact rows": Kind(settings={"sparse": "exact", "exactness": "bits"}, by_rows=True),
    "rounded": Kind((ml_dtypes.bfloat16,), {"state_dtype": "8bit", "rounding": "stochastic"}),
    "rounded, strided": Kind((ml_dtypes.bfloat16,), {"rounding": "kahan"}, order="F"),
}


class Run:
    """An optimizer after two steps; the numbers of a step's gradients depend on its own number."""

    def __init__(self, kind: Kind, backend: Backend) -> None:
        self.kind, self.backend = kind, backend
        self.params = {
            str(k): backend.array(np.ones(SHAPE, dtype)) for k, dtype in enumerate(kind.dtypes)
        }
        self.optimizer = ga.SGD(self.params, lr=0.5, momentum=0.5, **kind.settings)
        self.step(0)
        self.step(1)

    def gradient(self, k: int, array: Any) -> Any:
        values = np.full(array.shape, 1.0 + k, array.dtype, order=self.kind.order)  # type: ignore[call-overload]
        if not self.kind.by_rows:
            return self.backend.array(values)
        return ga.RowGrad(self.backend.array(np.array([k % 6, 2])), self.backend.array(values[:2]))

    def step(self, k: int) -> None:
        params = self.optimizer.params
        grads: dict[str, Any] = dict.fromkeys(params)
        self.optimizer.step(grads | {name: self.gradient(k, params[name]) for name in self.params})

    def seen(self) -> list[np.ndarray]:
        """Arrays and counts after two more steps."""
        self.step(7)
        self.step(8)
        snapshot = self.optimizer.state_dict()
        found = [*map(self.backend.numpy, self.optimizer.params.values())]
        for entry in snapshot["state"].values():
            found.append(np.array(entry.pop("updates")))
            found += map(self.backend.numpy, entry.values())
        return [*found, np.array(snapshot["step_count"])]

    def load(self) -> None:
        twin = Run(self.kind, self.backend)
        twin.step(2)
        state = twin.optimizer.state_dict()
        self.act = lambda: self.optimizer.load_state_dict(state)

    def grow(self) -> None:
        self.optimizer.flush()
        larger = np.ones((8, 4), self.kind.dtypes[0])
        larger[:6] = self.backend.numpy(self.params["0"])
        array = self.backend.array(larger)
        self.act = lambda: self.optimizer.grow("0", array)

    act: Callable[[], Any]


def prepared(name: str, kind: Kind, backend: Backend) -> Run:
    """A run whose `act` is the call of this name."""
    run = Run(kind, backend)
    optimizer = run.optimizer
    rows, values = backend.array(np.array([1, 3])), backend.array(np.full(SHAPE, 2, F))
    new = {"new": backend.array(np.ones(3, F))}
    if name in ("load", "grow"):
        getattr(run, name)()
    else:
        run.act = {
            "step": lambda: run.step(2),
            "state_dict": optimizer.state_dict,
            "flush": optimizer.flush,
            "read": lambda: optimizer.read("0", rows),
            "write": lambda: optimizer.write("0", values),
            "effective_lr": lambda: optimizer.effective_lr("0"),
            "add": lambda: optimizer.add(new),
        }[name]
    return run


CALLS = [
    *((name, "step") for name in KINDS),
    *(("exact rows", name) for name in ("state_dict", "flush", "read", "write", "load", "add")),
    *(("rounded", name) for name in ("load", "grow", "write")),
]


@pytest.mark.parametrize(("kind", "name"), CALLS)
def test_a_call_may_be_interrupted_at_any_line(kind: str, name: str, backend: Backend) -> None:
    """The steps that follow have the bits of those after it, or without it."""
    done = prepared(name, KINDS[kind], backend)
    without = prepared(name, KINDS[kind], backend).seen()
    done.act()
    wanted = without, done.seen()

    def begin() -> tuple[Callable[[], Any], Callable[[], list[np.ndarray]]]:
        run = prepared(name, KINDS[kind], backend)
        return run.act, run.seen

    check_every_line(begin, wanted)


def test_what_was_begun_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that raises when others have been made is made again, and then it raises."""
    made: list[Any] = []

    def fails(times: int) -> Callable[[], None]:
        left = iter(range(times))

        def call() -> None:
            if next(left, None) is not None:
                raise KeyboardInterrupt
            made.append("late")

        return call

    with pytest.raises(KeyboardInterrupt):
        commit.commit([(fails(1),), (made.append, 1), commit.NOTHING])
    assert made == []
    for times in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            commit.commit([(made.append, 1), (fails(times),), (made.append, 2)])
        assert made == [1, "late", 2]
        made.clear()
    with pytest.raises(KeyboardInterrupt):
        commit.commit([(made.append, 1), (fails(9),), (made.append, 2)])


PROGRAM = """
import signal, sys, time
import ml_dtypes
import numpy as np
import gpuadapt as ga

RATE = 2.0**-8  # so few steps are exact in bfloat16
rng = np.random.default_rng(1)
grads, options = None, {{}}

def begin():
    global arrays, grads, optimizer
    {setup}
    optimizer = ga.SGD(arrays, lr=RATE, **options)

def agree(count):
    return all((np.asarray(array, np.float64) == -count * RATE).all() for array in arrays)

class Alarm(Exception):
    pass

saved = []
def handler(number, frame):
    if {saves}:
        count = optimizer.state_dict()["step_count"]
        saved.append(agree(count))
    raise Alarm

begin()
optimizer.step(grads)
start = time.perf_counter()
for _ in range(10):
    optimizer.step(grads)
each = (time.perf_counter() - start) / 10
signal.signal(signal.SIGALRM, handler)
wrong = 0
for tried in range({tries}):
    if optimizer.step_count > 100 or tried % 10 == 0:
        begin()  # whose first step is interrupted too
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.uniform(0, 3 * each)))
        while optimizer.step_count < 200:
            optimizer.step(grads)
        time.sleep(1)
    except Alarm:
        pass
    wrong += not agree(optimizer.step_count)
print({tries}, wrong + saved.count(False))
"""

SETUPS = {
    "small": "arrays = [np.zeros(1000, np.float32)]; grads = [np.ones(1000, np.float32)]",
    "large": "arrays = [np.zeros(10**6, np.float32)]; grads = [np.ones(10**6, np.float32)]",
    "three types": """arrays = [
        np.zeros(10**5, dtype) for dtype in (np.float32, np.float64, ml_dtypes.bfloat16)
    ]
    grads = [np.ones(10**5, array.dtype) for array in arrays]""",
    "strided": """arrays = [np.zeros((300, 200), np.float32)[:, ::2]]
    grads = [np.ones((300, 100), np.float32)]""",
    "rows": """arrays = [np.zeros((1000, 16), np.float32) for _ in range(3)]
    grads = [ga.RowGrad(np.arange(1000), np.ones((1000, 16), np.float32))] * 3""",
    "exact rows": """options["sparse"] = "exact"
    arrays = [np.zeros((1000, 16), np.float32) for _ in range(3)]
    grads = [ga.RowGrad(np.arange(1000), np.ones((1000, 16), np.float32))] * 3""",
}


TRIES = int(os.environ.get("GPUADAPT_INTERRUPTS", "100"))
"""Interrupts of each kind; by hand there may be more."""


def child(text: str, timeout: float = 600) -> str:
    """What a child process prints that runs a program."""
    result = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timers")
@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("setup", SETUPS)
def test_a_signal_at_any_time_finds_arrays_and_count_together(setup: str, saves: bool) -> None:
    """After it, and in its handler, which may take a snapshot."""
    text = PROGRAM.format(setup=SETUPS[setup], saves=saves, tries=TRIES)
    assert child(text).split() == [str(TRIES), "0"]


KINDS_OF_GRADIENTS = {
    "dense": ("np.ones(SHAPE, np.float32)", {}),
    "rows": ("ga.RowGrad(np.arange(200), np.ones(SHAPE, np.float32))", {}),
    "exact rows": (
        "ga.RowGrad(np.arange(200), np.ones(SHAPE, np.float32))",
        {"sparse": "exact", "exactness": "bits"},
    ),
}

THREADS = """
import threading
import numpy as np
import gpuadapt as ga

SHAPE = (200, 400)
table = np.zeros(SHAPE, np.float32)
optimizer = ga.SGD(table, lr=1.0, **{settings})
gradient = {gradient}

def work():
    for k in range(100):
        optimizer.step(gradient)
        if k % 10 == 0:
            state = optimizer.state_dict()
            optimizer.read("0", np.arange(5)) if table.ndim else None

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(optimizer.step_count, (table == -300).all())
"""


@pytest.mark.parametrize("kind", KINDS_OF_GRADIENTS)
def test_threads_take_steps_one_after_the_other(kind: str) -> None:
    gradient, settings = KINDS_OF_GRADIENTS[kind]
    assert child(THREADS.format(gradient=gradient, settings=settings)).split() == ["300", "True"]


HANDLER = """
import signal
import numba
import numpy as np
import gpuadapt as ga

numba.config.THREADING_LAYER = "workqueue"
a, b = np.zeros(200_000, np.float32), np.zeros(200_000, np.float32)
one, other = ga.SGD(a, lr=1.0), ga.SGD(b, lr=1.0)
gradient, refused = np.ones(200_000, np.float32), []

def handler(number, frame):
    other.step(gradient)
    try:
        one.step(gradient)
    except ga.ConcurrencyError:
        refused.append(one.step_count)

other.step(gradient)
signal.signal(signal.SIGALRM, handler)
one.step(gradient)
for k in range(200):
    signal.setitimer(signal.ITIMER_REAL, 1e-5 + k * 2e-6)
    while other.step_count < k + 2:
        one.step(gradient)
print((a == -one.step_count).all(), (b == -other.step_count).all(), len(refused) > 0)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timers")
def test_a_handler_may_step_another_optimizer() -> None:
    """Also where the threading layer takes one caller at a time; its own optimizer refuses."""
    assert child(HANDLER).split() == ["True"] * 3


def test_a_schedule_cannot_step_its_own_optimizer() -> None:
    w = np.zeros(3, F)

    def rate(step: int) -> float:
        with pytest.raises(ga.ConcurrencyError, match="step: this optimizer is in the middle"):
            optimizer.step(np.ones(3, F))
        return 1.0

    optimizer = ga.SGD(w, lr=rate)
    optimizer.step(np.ones(3, F))
    assert (w == -1).all()
    assert optimizer.step_count == 1
