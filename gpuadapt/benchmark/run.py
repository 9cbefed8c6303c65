"""Many measurements, one after the other: every subject with every kind of work."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

from ..errors import Error
from ..texts import counted
from . import peers
from .failures import Errors
from .measure import Result, check, known, measure
from .measurement import Measurement, Work, work_of
from .subjects import Subject

Job = tuple[Subject, Work]

PEERS = r"(torch|jax|optax|deepspeed|thinc|fbgemm_gpu)\b"
"""Modules whose warnings are not about gpuadapt."""


def planned(subjects: Sequence[Subject], works: Sequence[Work], runs: int) -> list[Job]:
    """Every subject with every work, each checked.

    Raises
    ------
    Error
        A subject cannot do one of them; it is named.
    """
    jobs = [(subject, work) for subject in subjects for work in works]
    for subject, work in jobs:
        try:
            check(subject, work, runs)
        except Error as error:
            raise Error(f"{name_of(subject, work)}: {error}") from error
    return jobs


def name_of(subject: Subject, work: Work) -> str:
    """A subject and its work in words."""
    what = f"{work.size:,} elements" if work.table is None else work_of(work.table)
    parts = [subject.name, what, work.dtype]
    parts += [f"states {work.state_dtype}"] if work.state_dtype else []
    parts += [counted(work.threads, "thread")] if work.threads else []
    return ", ".join(parts)


def results(jobs: Sequence[Job], beside: bool, runs: int) -> Iterator[tuple[str, Result]]:
    """Measure each; yields its name and what was measured.

    Parameters
    ----------
    jobs : sequence of (Subject, Work)
    beside : bool
        Whether other libraries are timed too.
    runs : int

    Raises
    ------
    Error
        There is too little memory.
    """
    if beside and any(known(*job) for job in jobs):
        peers.versions()  # with torch, kernels run in its threads: from the first one on
    for subject, work in jobs:
        name = name_of(subject, work)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=PEERS)
                yield name, measure(subject, work, beside, runs)
        except MemoryError as error:
            raise Error(f"{name}: there is too little memory: {error}") from error


def absent(jobs: Sequence[Job]) -> list[str]:
    """The libraries that are not installed, and would be timed beside some of the jobs."""
    works = [work for subject, work in jobs if known(subject, work)]
    asked = {peer for work in works for peer in (peers.ROWS if work.table else peers.DENSE)}
    return [peer.NAME for peer in peers.ALL if peer in asked and peer.library() is None]


def collect(
    found: Iterator[tuple[str, Result]], each: Callable[[str, list[Measurement]], object]
) -> tuple[list[Measurement], Errors]:
    """All measurements, and what could not be timed; ``each`` is called when there are more."""
    measurements: list[Measurement] = []
    errors: Errors = {}
    for name, result in found:
        measurements += result.measurements
        errors |= result.errors
        each(name, measurements)
    return measurements, errors
