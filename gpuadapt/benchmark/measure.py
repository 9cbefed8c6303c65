"""Time a step of a subject beside the limit and other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels import rules
from gpuadapt.kernels.language.rule import Rule

from ..arrays import namespace
from ..errors import Error, HyperparameterError
from ..hyperparameters import whole, whole_from
from ..optimizer import Optimizer
from ..rowgrad import RowGrad
from . import RUNS, TYPES, checks, draws, limits, peers, threads, traffic, trust
from .candidates import HYPER
from .failures import Errors, noted
from .measurement import Measurement, Work, machine
from .subjects import Subject
from .timing import Times, copies_of, in_turn, interleaved, ratio

SECONDS = 0.02
"""About how long a run takes."""

OURS, LIMIT = "gpuadapt", "limit"

UNCOUNTED = {"rowwise": False, "sparse": "lazy"}
"""Settings whose other values move bytes that `traffic` does not count: these alone are taken."""


class Prepared(NamedTuple):
    """What is to be timed."""

    candidates: dict[str, Callable[[], Any]]
    rule: Rule
    size: int
    bytes: float


class Result(NamedTuple):
    """What was timed."""

    measurements: list[Measurement]
    """gpuadapt's first."""
    errors: Errors
    """Why others were not timed, by name."""


def check(subject: Subject, work: Work, runs: int = RUNS) -> None:
    """Raise an error of gpuadapt if a subject cannot do this work; nothing is compiled for that."""
    for name, value, least in (("size", work.size, 1), ("runs", runs, 2)):
        whole_from(name, value, least)
    if work.threads is not None:
        number, most = whole(work.threads), threads.most()
        if work.backend != "cpu":
            raise HyperparameterError("threads have no effect on a GPU: leave them out")
        if number is None or not 1 <= number <= most:
            raise HyperparameterError(
                f"threads: got {work.threads!r}, expected a whole number from 1 to {most}; "
                "for more, start Python with NUMBA_NUM_THREADS=... in the environment"
            )
    settings = _optimizer(subject, work, _few(work)).param_groups[0]
    for name, counted in UNCOUNTED.items():
        if settings[name] != counted:
            raise HyperparameterError(
                f"{name}: got {settings[name]!r}, whose bytes are not counted, so that the share "
                f"of the limit would be wrong; leave it at {counted!r}"
            )


def _few(work: Work) -> Any:
    if work.dtype not in TYPES:
        raise HyperparameterError(f"dtype: got {work.dtype!r}, expected one of {', '.join(TYPES)}")
    return draws.in_type(np.ones((2, 2), np.float32), work.dtype, "cpu")


def measure(
    subject: Subject,
    work: Work,
    beside: bool = False,
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> Result:
    """Time steps in turns with the limit.

    Parameters
    ----------
    subject : Subject
    work : Work
    beside : bool
        Whether other libraries are timed too, as far as they are installed, have the same method
        and give the same result in a check.
    runs : int, at least 2
        How often each is timed.
    seconds : float
        About how long a run takes; it has as many steps as fit.

    Returns
    -------
    Result

    Raises
    ------
    Error
        The subject cannot do this work.
    """
    check(subject, work, runs)
    errors: Errors = {}
    with threads.limited(work.threads):
        prepare = _dense if work.table is None else _by_rows
        prepared = prepare(subject, work, errors if beside and known(subject, work) else None)
        prepared.candidates[OURS]()  # what it raises is not noted, but raised
        others = trust.watch_others()
        times = interleaved(prepared.candidates, work.backend, runs, seconds, errors)
        load = others()
        used = (threads.available(), threads.pool()) if work.backend == "cpu" else (None, None)
    for name in (OURS, LIMIT):
        if name in errors:
            raise Error(f"{name}: {errors[name]}")
    names = [OURS, *(name for name in times if name not in (OURS, LIMIT))]
    found = [_measurement(name, subject, work, prepared, times, load, used) for name in names]
    return Result(found, errors)


def _measurement(
    name: str,
    subject: Subject,
    work: Work,
    prepared: Prepared,
    times: Mapping[str, Times],
    load: float | None,
    used: tuple[int | None, str | None],
) -> Measurement:
    time, limit, share = times[name], times[LIMIT], ratio(times, LIMIT, name)
    spreads = [(each["high"] - each["low"]) / each["median"] for each in (time, limit)]
    return Measurement(
        candidate=name,
        method=subject.name,
        rule=prepared.rule.name,
        backend=work.backend,
        size=prepared.size,
        dtype=work.dtype,
        state_dtype=work.state_dtype,
        threads=used[0],
        pool=used[1],
        seconds=time["median"],
        low=time["low"],
        high=time["high"],
        runs=len(time["turns"]),
        calls=time["calls"],
        bytes=round(prepared.bytes),
        limit_seconds=limit["median"],
        share=share,
        relative=ratio(times, name, OURS),
        warnings=trust.doubts(spreads[0], spreads[1], len(time["turns"]), share, load),
        version=machine()["gpuadapt"] if name == OURS else peers.version_of(name),
        machine=machine(),
        table=work.table,
    )


def _optimizer(subject: Subject, work: Work, parameter: Any) -> Optimizer:
    stored = {} if work.state_dtype is None else {"state_dtype": work.state_dtype}
    return subject.make(parameter, **stored)


def _dense(subject: Subject, work: Work, errors: Errors | None) -> Prepared:
    """A step of one array; peers are left out if ``errors`` is None."""
    backend, size = work.backend, work.size
    start, gradient = (draws.normal(backend, seed)(size) for seed in range(2))
    kept = draws.in_type(gradient, work.dtype, backend)

    def made() -> Optimizer:
        return _optimizer(subject, work, draws.in_type(start, work.dtype, backend))

    optimizer = made()
    rule, moved = optimizer.rule, size * traffic.of(optimizer)
    copies = copies_of(moved, backend)
    optimizers = [optimizer, *(made() for _ in range(copies - 1))]
    # As many bytes, if not in as many numbers.
    like = np.dtype("float64" if work.dtype == "float64" else "float32")
    states = len(rule.states)
    as_many = max(1, round(moved / traffic.element(limits.additions(states), like)))
    roofs = [limits.dense(backend, as_many, like, states)[LIMIT] for _ in range(copies)]
    candidates = {
        OURS: in_turn([_step(each, kept) for each in optimizers]),
        LIMIT: in_turn(roofs),
    }
    if errors is not None:
        offered = peers.makers(rule.name, backend, work.dtype, errors)
        given = [draws.in_type(each, work.dtype, backend) for each in (start, gradient)]
        for name in checks.dense(rule.name, offered, np.dtype(work.dtype), errors):
            with noted(errors, name, printed=False):
                trainers = [offered[name](given[:1], HYPER[rule.name]) for _ in range(copies)]
                for trainer in trainers:
                    trainer.load(given[1:])
                    trainer.step()
                candidates[name] = in_turn([trainer.step for trainer in trainers])
    return Prepared(candidates, rule, size, moved)


def _step(optimizer: Optimizer, gradient: Any) -> Callable[[], Any]:
    return lambda: optimizer.step(gradient)


def _by_rows(subject: Subject, work: Work, errors: Errors | None) -> Prepared:
    """A step of rows of a table."""
    assert work.table is not None
    (count, width, batch, kind), backend = work.table, work.backend
    xp, random, draw = namespace(backend), np.random.default_rng(0), draws.normal(backend, 0)
    batches = [draws.rows(count, batch, kind, random) for _ in range(draws.BATCHES)]
    values = [_aligned(draw((batch, width)), xp) for _ in batches]
    start = _aligned(draw((count, width)), xp)
    optimizer = _optimizer(subject, work, _aligned(start, xp))
    gradients = [
        RowGrad(xp.asarray(numbers), rows) for numbers, rows in zip(batches, values, strict=True)
    ]
    rule = optimizer.rule
    candidates = {
        OURS: draws.over_batches(lambda k: optimizer.step(gradients[k])),
        LIMIT: draws.over_batches(limits.rows(backend, (count, width), batches, len(rule.states))),
    }
    if errors is not None:
        offered = peers.rows(rule.name, backend, errors)
        loaded = list(zip(batches, values, strict=True))
        for name in checks.rows(rule.name, offered, errors):
            with noted(errors, name, printed=False):
                trainer = offered[name](start, loaded, HYPER[rule.name])
                candidates[name] = draws.over_batches(trainer.step)
    touched = round(float(np.mean([np.unique(numbers).size for numbers in batches])))
    moved = traffic.rows(rule, np.dtype(np.float32), width, batch, touched)
    return Prepared(candidates, rule, touched * width, moved)


def _aligned(array: Any, xp: ModuleType) -> Any:
    """A copy; on the CPU one that begins on a cache line."""
    return draws.placed(array) if xp is np else array.copy()


def known(subject: Subject, work: Work) -> bool:
    """Whether other libraries may do the same work."""
    rule = _optimizer(subject, work, _few(work)).rule
    return (
        work.state_dtype is None
        and subject.plain
        and rule.name in HYPER
        and rule is getattr(rules, rule.name)
    )
