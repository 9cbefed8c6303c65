"""Ctrl-C and threads in steps of gpuadapt.torch: the state is that before a step or after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from interruptions import check_every_line

import gpuadapt as ga

torch = pytest.importorskip("torch")


class Kind(NamedTuple):
    """A class of gpuadapt.torch, and what it updates."""

    name: str
    settings: dict[str, Any]
    sparse: bool = False
    dtype: str = "float32"


KINDS = {
    "Adam": Kind("Adam", {"lr": 0.5, "amsgrad": True}),
    "SGD": Kind("SGD", {"lr": 0.5, "momentum": 0.5, "dampening": 0.25}),
    "clipped": Kind("Adam", {"lr": 0.5, "max_norm": 1.0, "skip_nonfinite": True}),
    "rounded": Kind("Adam", {"lr": 0.5, "state_dtype": "8bit"}, dtype="bfloat16"),
    "SparseAdam": Kind("SparseAdam", {"lr": 0.5}, sparse=True),
    "exact": Kind("Adam", {"lr": 0.5, "sparse": "exact"}, sparse=True),
}


class Run:
    """An optimizer of two parameters; before the step at hand it has taken so many."""

    def __init__(self, kind: Kind, before: int) -> None:
        import gpuadapt.torch

        dtype = getattr(torch, kind.dtype)
        self.kind = kind
        self.params = [torch.ones(6, 4, dtype=dtype, requires_grad=True) for _ in range(2)]
        self.optimizer = getattr(gpuadapt.torch, kind.name)(self.params, **kind.settings)
        for k in range(before):
            self.step(k)

    def step(self, k: int) -> None:
        for parameter in self.params:
            grad = torch.full((6, 4), 1.0 + k, dtype=parameter.dtype)
            if self.kind.sparse:
                rows = torch.tensor([[k % 6, 2]])
                grad = torch.sparse_coo_tensor(rows, grad[:2], (6, 4), check_invariants=True)
            parameter.grad = grad
        self.optimizer.step()

    def seen(self) -> list[np.ndarray]:
        """Parameters and states after two more steps."""
        self.step(7)
        self.step(8)
        state = self.optimizer.state_dict()["state"]
        tensors = [*self.params, *(one for entry in state.values() for one in entry.values())]
        return [
            one.detach().float().numpy() if isinstance(one, torch.Tensor) else np.array(one)
            for one in tensors
        ]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


CASES = [*((name, 2) for name in KINDS), ("SGD", 0), ("clipped", 0), ("exact", 0)]
"""Kinds, and how many steps come before the one that is interrupted: a first one has more lines."""


@pytest.mark.parametrize(("name", "before"), CASES)
def test_a_step_may_be_interrupted_at_any_line(name: str, before: int) -> None:
    kind = KINDS[name]
    wanted = [Run(kind, before).seen()]
    done = Run(kind, before)
    done.step(2)
    wanted.append(done.seen())

    def begin() -> tuple[Callable[[], None], Callable[[], list[np.ndarray]]]:
        run = Run(kind, before)
        return lambda: run.step(2), run.seen

    check_every_line(begin, wanted)


@pytest.mark.parametrize("name", ["Adam", "SparseAdam", "exact"])
def test_threads_take_steps_one_after_the_other(name: str) -> None:
    run = Run(KINDS[name], 1)
    threads = [
        threading.Thread(target=lambda: [run.optimizer.step() for _ in range(50)]) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other = Run(KINDS[name], 1)
    for _ in range(150):
        other.optimizer.step()
    assert same(run.seen(), other.seen())


def test_what_is_refused_within_a_step() -> None:
    """Steps, and rows that are brought up to date to be read; a handler may save all of a table."""
    run = Run(KINDS["exact"], 1)
    refused = []

    class Rate(float):
        """A rate that uses the optimizer when it is read."""

        def __float__(self) -> float:
            with pytest.raises(ga.ConcurrencyError, match=r"^step: "):
                run.optimizer.step()
            with pytest.raises(ga.ConcurrencyError, match=r"^catch_up: "):
                run.optimizer.catch_up(run.params[0], torch.tensor([1]))
            run.optimizer.catch_up(run.params[0])
            run.optimizer.state_dict()
            refused.append(True)
            return 0.5

    run.optimizer.param_groups[0]["lr"] = Rate(0.5)
    run.optimizer.step()
    assert refused
