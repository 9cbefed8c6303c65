"""What follows one parameter of an optimizer: plain NumPy, and an optimizer of it alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import reference
from cases import Case

import gpuadapt as ga
from gpuadapt.optimizer import internals


class Rate:
    """A schedule that can be pickled, and that raises while it is broken."""

    def __init__(self, first: float) -> None:
        self.first = first
        self.broken = False

    def __call__(self, step: int) -> float:
        if self.broken:
            raise RuntimeError("this schedule is broken")
        return self.first / (1 + step % 3)


class Setup(NamedTuple):
    """What the parameters of an optimizer have in common."""

    case: Case
    dtype: Any
    changes: dict[str, Any]

    @property
    def exact(self) -> bool:
        return self.changes.get("sparse") == "exact"

    @property
    def arithmetic(self) -> Any:
        return np.float64 if self.dtype == np.float64 else np.float32

    @property
    def is_plain(self) -> bool:
        """Whether the reference in float64 applies."""
        return self.dtype == np.float64 and not {"rowwise", "average"} & self.changes.keys()


class Update(NamedTuple):
    """One step of a parameter, after all that comes before the rule."""

    gradient: np.ndarray
    """Of all rows: merged, divided by the scale and clipped."""
    rows: np.ndarray | None
    """True for the rows that the gradient has; None for a gradient of the whole array."""
    lr: float


class Growth(NamedTuple):
    """More rows for a table."""

    rows: np.ndarray


class Written(NamedTuple):
    """Numbers that were written into a parameter."""

    values: np.ndarray


Entry = Update | Growth | Written


@dataclass
class Follower:
    """One parameter from its start on: what has been done with it, and the right result."""

    setup: Setup
    name: str
    start: np.ndarray
    log: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin at the start, and do all that the log has."""
        case, changes = self.setup.case, dict(self.setup.changes)
        changes.pop("sparse", None)
        changes.pop("exactness", None)
        self.array = self.start.copy()
        self.twin = case.optimizer({self.name: self.array}, **changes)
        self.plain = self.start.astype(np.float64)
        # The reference fills a state on first use; rows that come later need the initial value.
        self.initial = {
            letter: float(np.ravel(state)[0])
            for letter, state in self.twin.state[self.name].items()
            if self.setup.is_plain
        }
        if (
            "V" in self.initial
        ):  # centred: the reference keeps the mean of squares, ours the variance
            self.initial["G"] = self.initial["V"]
        self.state = {
            letter: np.full(self.start.shape, value) for letter, value in self.initial.items()
        }
        self.updates = 0
        log, self.log = self.log, []
        for entry in log:
            self.follow(entry)

    def follow(self, entry: Entry) -> None:
        self.log.append(entry)
        if isinstance(entry, Growth):
            self._grow(entry.rows)
            return
        if isinstance(entry, Written):
            self.twin.write(self.name, entry.values)
            self.plain = entry.values.astype(np.float64)
            return
        self.updates += 1
        self.twin.param_groups[0]["lr"] = entry.lr
        self.twin.step({self.name: self._other_form(entry)})
        if self.setup.is_plain:
            self._update_plain(entry)

    def _other_form(self, entry: Update) -> Any:
        """The gradient in a form in which the optimizer under test did not get it."""
        gradient, rows = entry.gradient, entry.rows
        average = self.setup.changes.get("average")
        counts = average is not None and not average.rule.misses_steps
        if gradient.ndim == 1 or counts or (self.setup.exact and rows is not None):
            return gradient
        random = np.random.default_rng(len(self.log))
        found = np.arange(len(gradient)) if rows is None else np.flatnonzero(rows)
        found = random.permutation(found)
        return ga.RowGrad(found, gradient[found])

    def _update_plain(self, entry: Update) -> None:
        case = self.setup.case
        method = reference.with_options(case.method, **case.options)
        hyper = case.hyper | {"lr": entry.lr}
        if "betas" in hyper:
            hyper["beta1"], hyper["beta2"] = hyper.pop("betas")
        lazy = entry.rows is not None and not self.setup.exact
        taken: Any = entry.rows if lazy else slice(None)
        states = {letter: array[taken] for letter, array in self.state.items()}
        new = method(self.plain[taken], entry.gradient[taken], states, self.updates, **hyper)
        self.plain[taken] = new
        for letter, array in self.state.items():
            array[taken] = states[letter]

    def _grow(self, rows: np.ndarray) -> None:
        self.array = np.concatenate([self.array, rows])
        self.twin.grow(self.name, self.array)
        self.plain = np.concatenate([self.plain, rows.astype(np.float64)])
        for letter, array in self.state.items():
            more = np.full(rows.shape, self.initial[letter])
            self.state[letter] = np.concatenate([array, more])

    def check(self, optimizer: ga.Optimizer) -> None:
        """The parameter of an optimizer has the twin's bits, and the reference's numbers."""
        name, found = self.name, optimizer.params[self.name]
        assert found.tobytes() == self.array.tobytes(), (name, found, self.array)
        right = internals(self.twin).parameters[name].saved_arrays
        states = internals(optimizer).parameters[name].saved_arrays
        assert states.keys() == right.keys()
        for letter, state in states.items():
            assert state.tobytes() == right[letter].tobytes(), (name, letter, state, right[letter])
        if self.setup.is_plain:
            for letter, numbers, close in [
                ("", found, self.plain),
                *((letter, state, self.state[letter]) for letter, state in states.items()),
            ]:
                atol = 1e-9 * max(1, np.abs(close).max(initial=0))  # as in test_properties
                np.testing.assert_allclose(numbers, close, 1e-9, atol, err_msg=f"{name} {letter}")
