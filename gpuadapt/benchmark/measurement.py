"""Class Measurement: a time, what it is of, and how far it is to be trusted."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from ..machine import describe_machine
from ..texts import counted


class Table(NamedTuple):
    """A table that is updated by rows, and its batches."""

    rows: int
    width: int
    batch: int
    """Gradient rows of a step, with duplicates."""
    kind: str = "Zipf-like"
    """How often rows occur: one of `draws.KINDS`."""


class Work(NamedTuple):
    """What is done in a step, and where."""

    size: int
    """Elements of the parameter; of a table those of all rows."""
    dtype: str = "float32"
    state_dtype: str | None = None
    threads: int | None = None
    """How many to use at most; None: as the machine has it."""
    backend: str = "cpu"
    table: Table | None = None


@dataclass(frozen=True, repr=False)
class Measurement:
    """The time of a step, beside the machine's limit.

    Attributes
    ----------
    candidate : str
        Who made the step: "gpuadapt", or another library ("torch fused").
    method, rule : str
        What was asked for ("Adam", "mine.py:drift"), and the name of its rule.
    backend : {"cpu", "cuda"}
    size : int
        Elements that a step updates; of a table those of the rows that a batch has, on average.
    dtype : str
        Element type of parameter and gradient.
    state_dtype : str or None
        How states are stored; None as the parameter's arithmetic.
    threads : int or None
        Threads that may share the elements (few elements have one); None on a GPU.
    pool : {"numba", "torch"} or None
        Whose threads they are: torch's where it is loaded; None on a GPU.
    seconds, low, high : float
        Of a step: the median over the runs, and the quartiles.
    runs, calls : int
        How often it was timed, in turns with the limit and the others; steps of each run.
    bytes : int
        What a step must read and write.
    limit_seconds : float
        The median time in which the same bytes are read, added to and written.
    share : float
        The limit's time over the step's, the median over the runs: 1 is as fast as memory allows.
    relative : float
        The step's time over gpuadapt's, the median over the runs.
    warnings : tuple of str
        Why the figure is not to be trusted; empty if nothing speaks against it.
    version : str
        Of the library that made the step.
    machine : dict
        Processor, cores, threads, versions, date.
    table : Table or None
        The table, for steps by rows.
    """

    candidate: str
    method: str
    rule: str
    backend: str
    size: int
    dtype: str
    state_dtype: str | None
    threads: int | None
    pool: str | None
    seconds: float
    low: float
    high: float
    runs: int
    calls: int
    bytes: int
    limit_seconds: float
    share: float
    relative: float
    warnings: tuple[str, ...]
    version: str
    machine: dict[str, Any] = field(hash=False)
    table: Table | None = None

    @property
    def gigabytes_per_second(self) -> float:
        """The bytes that a step must move, over its time."""
        return self.bytes / self.seconds / 1e9

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes and `gigabytes_per_second` by name; `table` and `machine` as dicts.

        Returns
        -------
        dict of str to str, int, float, None, list or dict
            What `json` writes.
        """
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        found["gigabytes_per_second"] = self.gigabytes_per_second
        found["warnings"] = list(self.warnings)
        found["table"] = self.table and self.table._asdict()
        found["machine"] = dict(self.machine)
        return found

    def __repr__(self) -> str:
        time, rate = duration(self.seconds), self.gigabytes_per_second
        spread = f"quartiles {duration(self.low)} .. {duration(self.high)}"
        doubts = "".join(f"\n    not to be trusted: {each}" for each in self.warnings)
        return (
            f"<Measurement: {self.method}, {self.candidate}, {self.work}:\n"
            f"    {time} a step ({spread}; {self.runs} runs of {self.calls} steps)\n"
            f"    {rate:.3g} GB/s, {100 * self.share:.0f} % of the limit\n"
            f"    {self.machine['processor']}, {self.machine['cores']} cores, "
            f"{self.candidate.split()[0]} {self.version}{doubts}>"
        )

    @property
    def work(self) -> str:
        """What is updated, in words."""
        parts = [f"{self.size:,} elements", self.dtype]
        if self.table is not None:
            parts[0] = work_of(self.table)
        parts += [f"states {self.state_dtype}"] if self.state_dtype else []
        used = "cuda" if self.threads is None else f"cpu, {counted(self.threads, 'thread')}"
        return ", ".join([*parts, used])


def work_of(table: Table) -> str:
    """A table and its batches in words."""
    return f"{table.rows:,} x {table.width:,}, {table.batch:,} {table.kind} rows"


def duration(seconds: float) -> str:
    """A time with its unit."""
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


@cache
def machine() -> dict[str, Any]:
    """What measurements of this process depend on: processor, cores, threads, versions, date."""
    found = {name: value for name, value in describe_machine().items() if name != "cache"}
    return found | {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
