"""How long each kernel of a step takes on a GPU, and what lies between kernels, by CUDA events."""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import gpuadapt as ga
from gpuadapt.arrays import namespace
from gpuadapt.benchmark import draws
from gpuadapt.benchmark.draws import normal, over_batches
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.kernels.cuda import compile

from . import rows
from .failures import WHOLE

STEPS = 25
SIZES = {True: 2**20, False: 2**28}
"""Elements of the array whose norm is measured: in a quick run, in others."""


class Launch(NamedTuple):
    """A kernel that ran, between two events."""

    name: str
    start: Any
    end: Any


def entries(backend: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Each as {"name", "value", "unit"}: seconds of each part of a step, medians over steps."""
    if backend != "cuda":
        print("parts of a step are measured on a GPU only")
        return
    for label, make in (
        ("a step by rows", functools.partial(_by_rows, quick)),
        ("a step with max_norm", functools.partial(_clipped, quick)),
    ):
        errors: Errors = {}
        with noted(errors, WHOLE):
            for part, seconds in parts(make).items():
                yield {"name": f"{label}: {part}", "value": seconds, "unit": "s"}
        if errors:
            yield {"name": label, "errors": errors}


def parts(make: Callable[[], Callable[[], Any]]) -> dict[str, float]:
    """Seconds of each kernel of a step by its name, of what is before it, and of it all.

    Parameters
    ----------
    make : function
        Makes an optimizer, and returns a function that takes a step.
    """
    cuda = namespace("cuda").cuda
    with recorded() as log:
        step = make()
        step()
        found: dict[str, list[float]] = {}
        for _ in range(STEPS):
            log.clear()
            begin, end = cuda.Event(), cuda.Event()
            cuda.Device().synchronize()
            begin.record()
            step()
            end.record()
            end.synchronize()
            for part, seconds in _timeline(begin, log, end):
                found.setdefault(part, []).append(seconds)
    return {part: statistics.median(times) for part, times in found.items()}


def _timeline(begin: Any, log: list[Launch], end: Any) -> Iterator[tuple[str, float]]:
    """Seconds of each kernel and of what is before it; a name that occurs again gets a number."""
    between = namespace("cuda").cuda.get_elapsed_time
    last, seen = begin, dict[str, int]()
    for name, start, stop in log:
        seen[name] = seen.get(name, 0) + 1
        name = name if seen[name] == 1 else f"{name} ({seen[name]})"
        yield f"before {name}", between(last, start) / 1e3
        yield name, between(start, stop) / 1e3
        last = stop
    yield "after the last kernel", between(last, end) / 1e3
    yield "in all", between(begin, end) / 1e3


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches of kernels that are compiled here, in their order.

    Kernels that were compiled before are compiled anew.
    """
    log: list[Launch] = []
    build: Any = compile.built

    def built(source: str, name: str, *options: Any) -> Callable[..., None]:
        return Recorded(build(source, name, *options), name, log)

    _forget()
    compile.built = built
    try:
        yield log
    finally:
        compile.built = build
        _forget()


class Recorded:
    """A kernel whose launches are noted; its attributes are the kernel's."""

    def __init__(self, kernel: Any, name: str, log: list[Launch]) -> None:
        self._recorded = kernel, name, log, namespace("cuda").cuda.Event

    def __call__(self, *arguments: Any) -> None:
        kernel, name, log, event = self._recorded
        start, end = event(), event()
        start.record()
        kernel(*arguments)
        end.record()
        log.append(Launch(name, start, end))

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._recorded[0], attribute)


def _forget() -> None:
    """Forget all compiled kernels."""
    for name, module in list(sys.modules.items()):
        if name.startswith("gpuadapt.kernels.cuda."):
            for function in vars(module).values():
                if hasattr(function, "cache_clear"):
                    function.cache_clear()


def _by_rows(quick: bool) -> Callable[[], Any]:
    case = rows.Case("adam", 100_000, 64, 10_000) if quick else rows.cases(False)[0]
    xp, draw, random = namespace("cuda"), normal("cuda", 0), np.random.default_rng(0)
    optimizer = ga.Adam([draw((case.rows, case.width))])
    values = draw((case.batch, case.width))
    batches = [
        ga.RowGrad(xp.asarray(rows.draw(case, random)), values) for _ in range(draws.BATCHES)
    ]
    return over_batches(lambda k: optimizer.step([batches[k]]))


def _clipped(quick: bool) -> Callable[[], Any]:
    draw = normal("cuda", 0)
    parameter, gradient = draw(SIZES[quick]), draw(SIZES[quick])
    optimizer = ga.Adam([parameter])
    return lambda: optimizer.step([gradient], max_norm=1.0)
