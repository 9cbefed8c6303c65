"""Schedules are asked once for each step, however often its value is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schedule = Callable[[int], float]
"""The value at each step, counted from 0."""

KEPT = 2048
"""Steps whose values are kept: a GPU may be behind the host by some hundreds."""

MOST = 4096
"""Schedules that are remembered: who sets a new one before every step leaves them behind."""


@dataclass(frozen=True)
class Scaled:
    """A schedule, times a number; can be pickled if the schedule can."""

    schedule: Schedule
    factor: float

    def __call__(self, step: int) -> float:
        return self.factor * self.schedule(step)


class Schedules:
    """What schedules have said, by step.

    A schedule may keep a state, such as a generator. So it is called once for each step, in
    order, whichever groups and settings share it; a step that is skipped, or refused, and taken
    again has the value that the schedule gave for its number.
    """

    def __init__(self) -> None:
        self._asked: dict[int, tuple[Schedule, dict[int, Any]]] = {}

    def knows(self, schedule: Schedule) -> bool:
        """Whether it has been asked."""
        return id(_inner(schedule)) in self._asked

    def value(self, schedule: Schedule, step: int, read: Callable[[Any], Any]) -> Any:
        """The value at a step; ``read`` makes a number of what the schedule returns."""
        inner = _inner(schedule)
        asked = self._asked.get(id(inner))
        if asked is None:
            if len(self._asked) >= MOST:
                del self._asked[next(iter(self._asked))]
            asked = self._asked[id(inner)] = inner, {}
        values = asked[1]
        if step not in values:
            result = read(inner(step))
            if len(values) >= KEPT:
                del values[next(iter(values))]
            values[step] = result
        return values[step] if inner is schedule else schedule.factor * values[step]  # type: ignore[attr-defined]

    def forget(self, schedule: Schedule, step: int) -> None:
        """Ask a schedule for this step again: its value was refused."""
        _, values = self._asked.get(id(_inner(schedule)), (None, {}))
        values.pop(step, None)

    def restart(self) -> None:
        """Ask for every step again."""
        self._asked.clear()

    def __getstate__(self) -> list[tuple[Schedule, dict[int, Any]]]:
        # A copy's schedules may be other objects.
        return list(self._asked.values())

    def __setstate__(self, state: list[tuple[Schedule, dict[int, Any]]]) -> None:
        self._asked = {id(schedule): (schedule, values) for schedule, values in state}


def _inner(schedule: Schedule) -> Schedule:
    """The schedule that is called."""
    return schedule.schedule if isinstance(schedule, Scaled) else schedule
