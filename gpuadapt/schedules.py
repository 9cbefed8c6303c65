"""Schedules of learning rates and other hyperparameters, as functions of the step.

A schedule is a frozen object that is called with the step, counted from 0, and returns a float.
Every hyperparameter may be one. `Optimizer.state_dict` and files keep it as plain data, and loading
restores it. docs/schedules.md has the formulas beside optax's and torch's names.

Step 0 has the first value. A schedule of n steps has its last value from step n on, and `OneCycle`
from step n - 1 on. Values are computed in float64.

>>> import numpy as np, gpuadapt as ga
>>> lr = ga.schedules.WarmUp(100, ga.schedules.Cosine(1e-3, 1e-5, steps=900))
>>> optimizer = ga.Adam({"w": np.ones(3)}, lr=lr)
>>> lr(0), lr(50), lr(100), lr(1000)
(0.0, 0.0005, 0.001, 1e-05)
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat

from .errors import HyperparameterError
from .suggest import missing

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Join",
    "Linear",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "Scaled",
    "Schedule",
    "WarmUp",
]

__dir__ = partial(sorted, __all__)

Function = Callable[[int], SupportsFloat]
"""From the step, counted from 0, to the value."""

DIVISORS = 25.0, 1e4
"""Of `OneCycle`: peak / start, and start / end, as in optax and torch."""


class Schedule:
    """The base class of all schedules; compared by value, immutable, can be pickled."""

    def __call__(self, step: int) -> float:
        """Return the value at a step.

        Parameters
        ----------
        step : int, from 0
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step, as a part of other schedules.

    Parameters
    ----------
    value : float

    Examples
    --------
    >>> Constant(0.1)(1000)
    0.1
    """

    value: float

    def __post_init__(self) -> None:
        _numbers(self, "value")

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class _Transition(Schedule):
    """From ``start`` at step 0 to ``end``, exactly, from step ``steps`` on."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _numbers(self, "start", "end")
        _whole(self, "steps", 0)

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        if step <= 0:
            return self.start
        return self._between(step / self.steps)

    def _between(self, fraction: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(_Transition):
    r"""A straight line from ``start`` at step 0 to ``end`` at step ``steps``.

    .. math:: start + (end - start) \min(t / steps, 1)

    Parameters
    ----------
    start, end : float
    steps : int, >= 0
        With 0 steps, the value is ``end`` at every step.

    Examples
    --------
    >>> line = Linear(1.0, 0.0, steps=4)
    >>> [line(step) for step in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def _between(self, fraction: float) -> float:
        return _linear(self.start, self.end, fraction)


@dataclass(frozen=True)
class Cosine(_Transition):
    r"""Half a wave of the cosine from ``start`` at step 0 to ``end`` at step ``steps``.

    .. math:: end + (start - end) \left(\frac{1 + \cos(\pi t / steps)}{2}\right)^{exponent}

    Loshchilov & Hutter 2017. Later steps have ``end``; `Join` several for restarts.

    Parameters
    ----------
    start, end : float
    steps : int, >= 0
        With 0 steps, the value is ``end`` at every step.
    exponent : float, > 0

    Examples
    --------
    >>> wave = Cosine(1.0, 0.0, steps=4)
    >>> [round(wave(step), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "exponent")

    def _between(self, fraction: float) -> float:
        share = math.pow(0.5 + 0.5 * math.cos(math.pi * fraction), self.exponent)
        return self.end + (self.start - self.end) * share


@dataclass(frozen=True)
class Polynomial(_Transition):
    r"""A power of the remaining steps, from ``start`` at step 0 to ``end`` at step ``steps``.

    .. math:: end + (start - end) (1 - t / steps)^{power}

    Parameters
    ----------
    start, end : float
    steps : int, >= 0
        With 0 steps, the value is ``end`` at every step.
    power : float, > 0

    Examples
    --------
    >>> square = Polynomial(1.0, 0.0, steps=4, power=2)
    >>> [square(step) for step in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    power: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "power")

    def _between(self, fraction: float) -> float:
        return self.end + (self.start - self.end) * math.pow(1 - fraction, self.power)


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""The value is multiplied by ``rate`` every ``steps`` steps.

    .. math:: start \cdot rate^{t / steps}

    Parameters
    ----------
    start : float
    rate : float, > 0
    steps : int, >= 1
    staircase : bool
        Round t / steps down: the value changes at multiples of ``steps`` only.
    end : float, optional
        The smallest value if ``rate`` < 1, otherwise the largest. Without it the value goes on to
        change, and a rate above 1 becomes infinite, which optimizers refuse.

    Examples
    --------
    >>> halved = Exponential(1.0, 0.5, steps=2, staircase=True, end=0.25)
    >>> [halved(step) for step in range(7)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]
    """

    start: float
    rate: float
    steps: int = 1
    staircase: bool = False
    end: float | None = None

    def __post_init__(self) -> None:
        _numbers(self, "start", *(["end"] if self.end is not None else []))
        _positive(self, "rate")
        _whole(self, "steps", 1)
        _flag(self, "staircase")

    def __call__(self, step: int) -> float:
        count = step // self.steps if self.staircase else step / self.steps
        try:
            value = self.start * math.pow(self.rate, count)
        except OverflowError:
            value = math.copysign(math.inf, self.start) if self.start else 0.0
        if self.end is None:
            return value
        return max(value, self.end) if self.rate < 1 else min(value, self.end)


@dataclass(frozen=True)
class Piecewise(Schedule):
    r"""Constant values, of which the next begins at each boundary.

    .. math:: values_k \quad \text{where } k \text{ boundaries are} \le t

    The step of a boundary has the new value, as in optax and torch; in Keras the next step has it.

    Parameters
    ----------
    values : sequence of float
        One more than boundaries.
    boundaries : sequence of int, >= 0
        Increasing.

    Examples
    --------
    >>> falling = Piecewise([0.1, 0.01, 0.001], [2, 4])
    >>> [falling(step) for step in range(6)]
    [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    """

    values: Sequence[float]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        values = _sequence(self, "values")
        _set(self, "values", tuple(_number(self, "values", value) for value in values))
        _boundaries(self, len(values))

    def __call__(self, step: int) -> float:
        return self.values[bisect_right(self.boundaries, step)]


@dataclass(frozen=True)
class Join(Schedule):
    r"""Several schedules, of which the next begins, at its own step 0, at each boundary.

    .. math:: schedules_k(t - boundaries_k) \quad \text{where } k \text{ boundaries are} \le t

    Parameters
    ----------
    schedules : sequence of callables or floats
        One more than boundaries. A number stands for `Constant`. A function of your own may be
        among them, and is called once for each of its steps, in order; then the whole is code,
        which snapshots only name.
    boundaries : sequence of int, >= 0
        Increasing.

    Examples
    --------
    >>> both = Join([0.5, Linear(1.0, 0.0, steps=2)], [2])
    >>> [both(step) for step in range(6)]
    [0.5, 0.5, 1.0, 0.5, 0.0, 0.0]
    """

    schedules: Sequence[Function | float]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        schedules = _sequence(self, "schedules")
        _set(self, "schedules", tuple(_schedule(self, "schedules", one) for one in schedules))
        _boundaries(self, len(schedules))

    def __call__(self, step: int) -> float:
        number = bisect_right(self.boundaries, step)
        schedule: Any = self.schedules[number]
        return schedule(step - self.boundaries[number - 1] if number else step)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class WarmUp(Schedule):
    r"""A straight line from ``start`` to the first value of another schedule, and then that.

    .. math:: start + (then(0) - start)\, t / steps \quad \text{if } t < steps, \qquad
        then(t - steps) \quad \text{otherwise}

    With a ``start`` of 0 the first step changes states only. FTRL divides by its rate, and needs a
    ``start`` above 0.

    Parameters
    ----------
    steps : int, >= 0
        With 0 steps there is no warm-up.
    then : callable or float
        A number stands for `Constant`. A function of your own may not have a state, since its value
        at 0 is asked for in every step of the warm-up: use `Join` for one that has.
    start : float

    Examples
    --------
    >>> warm = WarmUp(2, Linear(1.0, 0.0, steps=4))
    >>> [warm(step) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    steps: int
    then: Function | float
    start: float = 0.0

    def __post_init__(self) -> None:
        _whole(self, "steps", 0)
        _set(self, "then", _schedule(self, "then", self.then))
        _numbers(self, "start")

    def __call__(self, step: int) -> float:
        then: Any = self.then
        if step >= self.steps:
            return then(step - self.steps)  # type: ignore[no-any-return]
        return _linear(self.start, then(0), step / self.steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    r"""A rise to ``peak`` and a longer fall, the last step with ``end`` (Smith & Topin 2019).

    With :math:`u = rise \cdot steps - 1`, the value goes from ``start`` at step 0 to ``peak`` at u,
    and to ``end`` at steps - 1; with ``three_phase`` back to ``start`` at 2 u, then to ``end``.
    Between a and b, a fraction x of the way, it is

    .. math:: b + (a - b) \frac{1 + \cos \pi x}{2} \quad \text{or} \quad a + (b - a)\, x

    This is torch's OneCycleLR. ``OneCycle(0.85, steps, start=0.95, end=0.95)`` is its momentum.

    Parameters
    ----------
    peak : float
    steps : int, >= 1
        Number of all steps; later ones have ``end``.
    start : float, optional
        peak / 25 if left out.
    end : float, optional
        start / 10000 if left out.
    rise : float, in [0, 1)
        Fraction of the steps; with ``three_phase`` at most 0.5.
    shape : {"cosine", "linear"}
    three_phase : bool

    Examples
    --------
    >>> cycle = OneCycle(1.0, steps=10, start=0.0, end=0.5, shape="linear")
    >>> [round(cycle(step), 3) for step in range(11)]
    [0.0, 0.5, 1.0, 0.929, 0.857, 0.786, 0.714, 0.643, 0.571, 0.5, 0.5]
    """

    peak: float
    steps: int
    start: float | None = None
    end: float | None = None
    rise: float = 0.3
    shape: Literal["cosine", "linear"] = "cosine"
    three_phase: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("start", "end") if getattr(self, name) is not None]
        _numbers(self, "peak", "rise", *given)
        _whole(self, "steps", 1)
        _flag(self, "three_phase")
        if self.shape not in ("cosine", "linear"):
            raise _wrong(self, "shape", self.shape, "'cosine' or 'linear'")
        if not (0 <= self.rise < 1) or (self.three_phase and self.rise > 0.5):
            wanted = "a number from 0 to 0.5" if self.three_phase else "a number from 0, below 1"
            raise _wrong(self, "rise", self.rise, wanted)

    def __call__(self, step: int) -> float:
        start = self.peak / DIVISORS[0] if self.start is None else self.start
        end = start / DIVISORS[1] if self.end is None else self.end
        last, top = self.steps - 1, self.rise * self.steps - 1
        if step >= last:
            return end
        if step <= top:
            first, until, a, b = 0.0, top, start, self.peak
        elif not self.three_phase:
            first, until, a, b = top, last, self.peak, end
        elif step <= 2 * top:
            first, until, a, b = top, 2 * top, self.peak, start
        else:
            first, until, a, b = 2 * top, last, start, end
        if step == until:
            return b
        fraction = (step - first) / (until - first)
        if self.shape == "linear":
            return _linear(a, b, fraction)
        return b + (a - b) * (0.5 + 0.5 * math.cos(math.pi * fraction))


@dataclass(frozen=True)
class Scaled(Schedule):
    """A schedule times a constant factor, such as the rate of one group.

    Parameters
    ----------
    schedule : callable
        A function of your own, too; then the whole is code, which snapshots only name.
    factor : float

    Examples
    --------
    >>> Scaled(Linear(1.0, 0.0, steps=4), 0.5)(1)
    0.375
    """

    schedule: Function
    factor: float

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise _wrong(self, "schedule", self.schedule, "a schedule")
        _numbers(self, "factor")

    def __call__(self, step: int) -> float:
        return self.factor * float(self.schedule(step))


def _linear(start: float, end: float, fraction: float) -> float:
    return start + (end - start) * fraction


def _wrong(schedule: Schedule, name: str, value: Any, wanted: str) -> HyperparameterError:
    return HyperparameterError(
        f"{name} of {type(schedule).__name__}: got {value!r}, expected {wanted}"
    )


def _set(schedule: Schedule, name: str, value: Any) -> None:
    """Set a field of a frozen object while it is made."""
    object.__setattr__(schedule, name, value)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)


def _number(schedule: Schedule, name: str, value: Any) -> float:
    """Return a finite number as a float."""
    with suppress(OverflowError):
        if _is_number(value) and math.isfinite(value):
            return float(value)
    raise _wrong(schedule, name, value, "a finite number")


def _numbers(schedule: Schedule, *names: str) -> None:
    """Check fields that are finite numbers, and make them floats."""
    for name in names:
        _set(schedule, name, _number(schedule, name, getattr(schedule, name)))


def _positive(schedule: Schedule, name: str) -> None:
    """Check a field that is a number above 0."""
    _numbers(schedule, name)
    if not getattr(schedule, name) > 0:
        raise _wrong(schedule, name, getattr(schedule, name), "a number > 0")


def _flag(schedule: Schedule, name: str) -> None:
    """Check a field that is True or False."""
    if not isinstance(getattr(schedule, name), bool):
        raise _wrong(schedule, name, getattr(schedule, name), "True or False")


def _integer(value: Any) -> int | None:
    """Return an integer of any type as an int; None for others."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _whole(schedule: Schedule, name: str, least: int) -> None:
    """Check a field that is a whole number, and make it an int."""
    value = getattr(schedule, name)
    found = _integer(value)
    if found is None or found < least:
        raise _wrong(schedule, name, value, f"a whole number from {least}")
    _set(schedule, name, found)


def _sequence(schedule: Schedule, name: str) -> tuple[Any, ...]:
    """Return a field that is a sequence of at least one item."""
    value = getattr(schedule, name)
    try:
        found = () if isinstance(value, (str, set, frozenset, dict)) else tuple(value)
    except TypeError:
        found = ()
    if not found:
        raise _wrong(schedule, name, value, "a list or tuple")
    return found


def _boundaries(schedule: Piecewise | Join, parts: int) -> None:
    """Check increasing boundaries, one fewer than there are parts, and make them a tuple."""
    given: Any = schedule.boundaries
    try:
        found = tuple(_integer(one) for one in given)
    except TypeError:
        found = (None,)
    known = [-1, *(one for one in found if one is not None)]
    if len(known) != len(found) + 1 or any(map(operator.ge, known, known[1:])):
        raise _wrong(schedule, "boundaries", given, "whole numbers from 0 that increase")
    if len(found) != parts - 1:
        raise _wrong(schedule, "boundaries", given, f"{parts - 1} of them for {parts} parts")
    _set(schedule, "boundaries", found)


def _schedule(schedule: Schedule, name: str, value: Any) -> Function:
    """Return a part that is a callable, or a number, which is constant."""
    if callable(value):
        return value  # type: ignore[no-any-return]
    if _is_number(value):
        return Constant(_number(schedule, name, value))
    raise _wrong(schedule, name, value, "schedules or numbers")


if not TYPE_CHECKING:
    __getattr__ = missing(__name__, __all__)
