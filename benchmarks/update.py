"""One case of whole arrays: check every candidate, then time them beside the limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.benchmark import limits, traffic
from gpuadapt.benchmark.candidates import HYPER, Given, Make, checked
from gpuadapt.benchmark.draws import normal
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.benchmark.threads import limited
from gpuadapt.benchmark.timing import copies_of, in_turn, interleaved
from gpuadapt.kernels import rules

from . import arithmetic, peers
from .training import expected

MOST_CHECKED = 5_000_000
"""Elements up to which results are compared: enough for every path of a kernel."""

OURS, THEIRS = 16, 64
"""How far results may be from float64, in units of the last place of 1."""

FEW_BITS = 0.06
"""How far three steps of 0.1 with numbers of 16 and 8 bits may be from it, as a share of what is
larger than 1."""


class Case(NamedTuple):
    """Arrays to update."""

    method: str
    sizes: tuple[int, ...]
    """Elements of each array."""
    label: str = ""
    """What to call the sizes, if there are several."""
    dtype: str = "float32"
    threads: int | None = None
    """How many to use; None: as the machine has it."""
    only: tuple[str, ...] = ()
    """Peers to time; empty: all."""
    kept: str = ""
    """How parameters and states are kept, one of `peers.ours.FORMATS`; "": all in ``dtype``."""
    zeros: int = 0
    """How many of a hundred numbers of a gradient are zero, the same ones in every step. For these
    division and root take a slow path on a GPU."""

    @property
    def name(self) -> str:
        arrays = self.label or f"{self.sizes[0]:,} elements"
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        dtype += f", {self.kept}" * bool(self.kept)
        dtype += f", {self.zeros} % zeros" * bool(self.zeros)
        threads = "" if self.threads is None else f", {self.threads} threads"
        return f"{self.method}, {arrays}{dtype}{threads}"


def run(case: Case, backend: str, rounds: int) -> dict[str, Any]:
    """The case as it stands in a file of results.

    Returns
    -------
    dict
        "name", "case" (the method), "size" (elements in all), "bytes" (that must move), and
        "times": for each candidate what `timing.interleaved` gives, and "first", the seconds
        that its making and first step took, with what had to be compiled or loaded for them.
        "errors", if there are any: for each candidate that failed, what it raised.
    """
    errors: Errors = {}
    makers = peers.makers(case.method, backend, case.only, case.dtype, case.kept, errors)
    rule, dtype, size = getattr(rules, case.method), np.dtype(case.dtype), sum(case.sizes)
    each = traffic.element(rule, dtype)
    moved = int(size * (peers.ours.traffic(case.method, case.kept) if case.kept else each))
    with limited(case.threads):
        first = check(makers, case, backend, errors)
        copies = copies_of(moved, backend)
        drawn = normal(backend, 0), normal(backend, 1, case.zeros)
        parameters, gradients = ([draw(size, dtype) for size in case.sizes] for draw in drawn)
        candidates: dict[str, Callable[[], Any]] = {}
        for name in first:
            with noted(errors, name):
                steps = [
                    _step(makers[name], case.method, parameters, gradients) for _ in range(copies)
                ]
                candidates[name] = in_turn(steps)
        with noted(errors, "limit"):
            # As many bytes, if not in as many numbers.
            as_many = moved // each
            roofs = [limits.dense(backend, as_many, dtype, len(rule.states)) for _ in range(copies)]
            candidates |= {name: in_turn([of[name] for of in roofs]) for name in roofs[0]}
        if backend == "cpu" and not case.kept:
            with noted(errors, "arithmetic"):
                candidates["arithmetic"] = arithmetic.roof(rule, dtype, size)
        times = interleaved(candidates, backend, rounds, errors=errors)
    for name in times.keys() & first.keys():
        times[name]["first"] = first[name]
    return {
        "name": case.name,
        "case": case.method,
        "size": size,
        "arrays": len(case.sizes),
        "dtype": case.dtype,
        "threads": case.threads,
        "backend": backend,
        "bytes": moved,
        "times": times,
    } | ({"errors": errors} if errors else {})


def check(
    makers: dict[str, Make], case: Case, backend: str, errors: Errors | None = None
) -> dict[str, float]:
    """Three steps of every candidate against float64; returns the seconds of its first.

    Raises
    ------
    AssertionError
        A result is too far from what its form of the method gives. With ``errors`` that, and
        what else a candidate raises, is noted there, and the candidate left out.
    """
    sizes: list[int] = []
    for size in case.sizes:
        if sum(sizes) < MOST_CHECKED:
            sizes.append(min(size, MOST_CHECKED))
    random, dtype = np.random.default_rng(1), np.dtype(case.dtype)
    start = [random.standard_normal(size).astype(dtype) for size in sizes]
    gradients = [[random.standard_normal(size).astype(dtype) for size in sizes] for _ in range(3)]
    hyper = checked(case.method)

    @cache
    def exact(form: tuple[tuple[str, Any], ...]) -> np.ndarray:
        whole = [np.concatenate(arrays) for arrays in gradients]
        return expected(case.method, np.concatenate(start), whole, hyper, dict(form))

    first: dict[str, float] = {}
    for name, make in makers.items():
        with noted(errors, name):
            began = time.perf_counter()
            trainer = make(start, hyper)
            for step, arrays in enumerate(gradients):
                trainer.load(arrays)
                trainer.step()
                if step == 0:
                    seconds = time.perf_counter() - began
            right = exact(tuple(trainer.form.items()))
            off = np.abs(np.concatenate(trainer.result()) - right)
            allowed = (OURS if name.startswith("gpuadapt") else THEIRS) * np.finfo(dtype).eps
            if case.kept and name != "torch fused":
                off, allowed = off / np.maximum(1, np.abs(right)), FEW_BITS
            error = off.max()
            assert error <= allowed, f"{name}, {case.name}: off by {error:.2g}"
            first[name] = seconds
    return first


def _step(make: Make, method: str, start: Given, gradients: Given) -> Callable[[], Any]:
    """A step of a candidate on parameters of its own, compiled."""
    trainer = make(start, HYPER[method])
    trainer.load(gradients)
    trainer.step()
    return trainer.step
