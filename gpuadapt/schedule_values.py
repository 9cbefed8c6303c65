"""Call each schedule once per step and remember its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpuadapt.kernels.commit import Call

from .schedules import Function, Scaled

MAX_STEPS = 2048
"""Number of steps whose values are stored; a GPU may be some hundred steps behind the host."""

MAX_SCHEDULES = 4096
"""Number of schedules whose values are stored; the oldest is dropped for a new one."""


class Schedules:
    """The values of all schedules, by step.

    A schedule may have a state, such as a generator's. Each is called once per step, in order,
    however many groups and settings share it. If a step is skipped or refused, the next attempt
    uses the stored value of the same step.
    """

    def __init__(self) -> None:
        self._values: dict[int, tuple[Function, dict[int, Any]]] = {}

    def knows(self, schedule: Function) -> bool:
        """Return True if the schedule has been called."""
        return id(_inner(schedule)) in self._values

    def value(self, schedule: Function, step: int, read: Callable[[Any], Any]) -> Any:
        """Return the value at a step.

        Parameters
        ----------
        schedule : callable
        step : int, from 0
        read : callable
            Converts the schedule's result to a number, or raises.
        """
        inner = _inner(schedule)
        entry = self._values.get(id(inner))
        if entry is None:
            if len(self._values) >= MAX_SCHEDULES:
                del self._values[next(iter(self._values))]
            entry = self._values[id(inner)] = inner, {}
        values = entry[1]
        if step not in values:
            result = read(inner(step))
            if len(values) >= MAX_STEPS:
                del values[next(iter(values))]
            values[step] = result
        return values[step] if inner is schedule else schedule.factor * values[step]  # type: ignore[attr-defined]

    def forget(self, schedule: Function, step: int) -> None:
        """Drop the value at a step, because it is out of range."""
        _, values = self._values.get(id(_inner(schedule)), (None, {}))
        values.pop(step, None)

    def restart_call(self) -> Call:
        """The call that drops all values; see `kernels.commit`."""
        return (self._values.clear,)

    def __getstate__(self) -> list[tuple[Function, dict[int, Any]]]:
        # The keys are ids of objects, which differ in a copy.
        return list(self._values.values())

    def __setstate__(self, state: list[tuple[Function, dict[int, Any]]]) -> None:
        self._values = {id(schedule): (schedule, values) for schedule, values in state}


def _inner(schedule: Function) -> Function:
    """Return the schedule without its factor."""
    return schedule.schedule if isinstance(schedule, Scaled) else schedule
