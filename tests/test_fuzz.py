"""Random programs of one optimizer against plain models of each of its parameters.

`python tests/test_fuzz.py --minutes 60 --seed 0` runs it for an hour; ``NUMBA_DISABLE_JIT=1`` makes
kernels Python, so that nothing is compiled.
"""

from __future__ import annotations

import argparse
import copy
import io
import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numba
import numpy as np
from cases import KINDS
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    get_state_machine_test,
    initialize,
    invariant,
    precondition,
    rule,
)
from interruptions import interrupted_at
from plain_optimizer import Follower, Growth, Rate, Setup, Update, Written

import gpuadapt as ga
from gpuadapt.optimizer import internals

COMPILED = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]

FORMATS: list[tuple[Any, dict[str, Any]]] = [
    (np.float64, {}),
    (np.float32, {}),
    (np.float16, {"master": "float32"}),
    (ml_dtypes.bfloat16, {"master": "split"}),
    (ml_dtypes.bfloat16, {"rounding": "kahan"}),
    (ml_dtypes.bfloat16, {"rounding": "stochastic"}),
    (np.float32, {"state_dtype": "bfloat16"}),
    (np.float32, {"state_dtype": "8bit"}),
]
# Each pair of a rule and a format takes seconds to compile.
CASES = [case for case in KINDS if not COMPILED or case.name in ("momentum", "adam")]
AVERAGES = [None, *[ga.averages.Exponential(0.5), ga.averages.Equal(1, every=2)] * (not COMPILED)]
SPARSE: list[dict[str, Any]] = [{}, {"sparse": "exact", "exactness": "bits"}]
ROWWISE = ("adagrad", "rmsprop", "adam", "ftrl")


def falling(first: float) -> ga.schedules.Schedule:
    """A schedule that snapshots restore."""
    return ga.schedules.Linear(first, first / 2, steps=20)


NUMBER = st.integers(0, 2**32 - 1)
LINE = st.none() | st.integers(0, 900) if COMPILED else st.none()
"""The line at which a step is interrupted; only compiled kernels have no lines of their own."""
FORMS = ["dense", "strided", "rows", "two by rows", "rows and dense", "nothing"]


class Saved(NamedTuple):
    """What was saved, and the models at that time."""

    written: Any
    arrays: dict[str, np.ndarray] | None
    """Copies of the parameters; None for a file, which has them."""
    step_count: int
    names: list[list[str]]
    histories: dict[str, tuple[np.ndarray, list[Any]]]
    """The start and the log of each follower."""
    shapes: dict[str, tuple[int, ...]]
    rates: dict[str, Any]


class Machine(RuleBasedStateMachine):
    """An optimizer, and models of its parameters."""

    @initialize(
        case=st.sampled_from(CASES),
        form=st.sampled_from(FORMATS),
        sparse=st.sampled_from(SPARSE),
        width=st.sampled_from([3, 8]),
        rowwise=st.booleans(),
        average=st.sampled_from(AVERAGES),
        number=NUMBER,
    )
    def start(
        self,
        case: Any,
        form: Any,
        sparse: Any,
        width: int,
        rowwise: bool,
        average: Any,
        number: int,
    ) -> None:
        dtype, changes = form
        if not case.rule.states:
            changes = {name: value for name, value in changes.items() if name != "state_dtype"}
        if rowwise and case.name in ROWWISE and changes.get("state_dtype") != "8bit":
            changes = changes | {"rowwise": True}
        if average is not None and (sparse or average.rule.misses_steps):
            changes = changes | {"average": average}
        self.width = 8 if changes.get("state_dtype") == "8bit" else width
        self.setup = Setup(case, dtype, changes | sparse)
        self.folder = tempfile.TemporaryDirectory()
        self.followers: dict[str, Follower] = {}
        self.step_count = 0
        self.saves: list[Saved] = []
        self.others: list[tuple[ga.Optimizer, Any]] = []
        self.scale, self.scale_value, self.good_steps = ga.LossScale(4.0, interval=2), 4.0, 0
        random = np.random.default_rng(number)
        given = {"t": random.normal(size=(5, self.width)), "v": random.normal(size=4)}
        self.containers = [{name: values.astype(dtype) for name, values in given.items()}]
        self.optimizer = case.optimizer(self.containers[0], **self.setup.changes)
        self.rates: dict[str, Any] = dict.fromkeys(given, case.hyper["lr"])
        self._follow(self.containers[0])

    def _follow(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.followers[name] = Follower(self.setup, name, array.copy())

    def teardown(self) -> None:
        if hasattr(self, "optimizer"):
            self._compare()
            for other, then in self.others:
                np.testing.assert_equal(seen(other), then)
            self.folder.cleanup()

    @invariant()
    def right(self) -> None:
        """Exact rows are looked at from time to time alone: to look, they have to catch up."""
        if hasattr(self, "optimizer"):
            assert self.optimizer.step_count == self.step_count
            if not self.setup.exact:
                self._compare()

    def _compare(self) -> None:
        self.optimizer.flush()
        assert list(self.optimizer.params) == list(self.followers)
        internals(self.optimizer).steps.sync_counts()
        for name, follower in self.followers.items():
            assert internals(self.optimizer).parameters[name].update_count == follower.updates
            follower.check(self.optimizer)

    @rule(data=st.data(), options=st.fixed_dictionaries({}, optional={
        "grad_scale": st.sampled_from([0.5, 4.0]),
        "max_norm": st.sampled_from([0.5, 2.0, 1e6, np.inf]),
        "clip_value": st.sampled_from([0.125, 0.75]),
        "skip_nonfinite": st.booleans(),
    }), repeats=st.integers(1, 4), line=LINE)  # fmt: skip
    def step(self, data: Any, options: dict[str, Any], repeats: int, line: int | None) -> None:
        """Some steps with gradients of the same forms; the first one may be interrupted."""
        drawn = {
            name: (data.draw(st.sampled_from(FORMS), name), data.draw(NUMBER))
            for name in self.followers
        }
        for number in range(repeats):
            forms = {name: (form, first + number) for name, (form, first) in drawn.items()}
            self._step(forms, options, None if number else line)

    def _step(
        self, forms: dict[str, tuple[str, int]], options: dict[str, Any], line: int | None
    ) -> None:
        grads, merged = {}, {}
        for name, (form, number) in forms.items():
            grads[name], merged[name] = self._gradient(name, form, number)
        rates = self._rates()
        interrupted = line is not None and interrupted_at(
            line, lambda: self.optimizer.step(grads, **options)
        )
        if line is None:
            self.optimizer.step(grads, **options)
        if interrupted and self.optimizer.step_count == self.step_count:
            note(f"nothing happened: {interrupted}")
            return
        prepared = self._prepared(merged, options)
        self._followed(prepared, rates)

    def _step_all(self, form: str, number: int) -> None:
        """A step before a save, load or copy: the rows of an exact table may be behind then."""
        self._step(dict.fromkeys(self.followers, (form, number)), {}, None)

    def _followed(self, prepared: dict[str, Any], rates: dict[str, float]) -> None:
        self.step_count += 1
        for name, found in prepared.items():
            self.followers[name].follow(Update(*found, rates[name]))

    @rule(number=NUMBER, overflows=st.booleans())
    def step_with_loss_scale(self, number: int, overflows: bool) -> None:
        """The scale is halved after an overflow, and doubled after two steps without one."""
        grads, merged = {}, {}
        for k, (name, form) in enumerate(zip(self.followers, itertools.cycle(FORMS), strict=False)):
            grads[name], merged[name] = self._gradient(name, form, number + k)
        if overflows:
            grads["v"] = np.full(4, np.inf, self.setup.arithmetic)
        before, rates, value = self._seen(), self._rates(), self.scale.value
        assert value == self.scale_value
        self.optimizer.step(grads, grad_scale=self.scale)
        assert self.optimizer.last is not None and self.optimizer.last.skipped == overflows
        self.good_steps = 0 if overflows else self.good_steps + 1
        if overflows:
            self.scale_value = max(1.0, value / 2)
            np.testing.assert_equal(self._seen(), before)
            return
        if self.good_steps == 2:
            self.scale_value, self.good_steps = 2 * value, 0
        self._followed(self._prepared(merged, {"grad_scale": value}), rates)

    def _gradient(self, name: str, form: str, number: int) -> tuple[Any, Any]:
        """A gradient, and its sum as an array with the rows that it has.

        Numbers are multiples of 1/64, so that sums are the same in any order.
        """
        array = self.followers[name].array
        random = np.random.default_rng(number)

        def draw(*shape: int) -> np.ndarray:
            numbers = random.integers(-64, 65, shape) / 64 * 2.0 ** random.integers(-3, 4)
            return numbers.astype(self.setup.arithmetic)

        def by_rows() -> ga.RowGrad:
            rows = random.integers(0, len(array), random.integers(0, 2 * len(array)))
            values = draw(len(rows), *array.shape[1:])
            np.add.at(total, rows, values)
            present[rows] = True
            return ga.RowGrad(rows, values)

        total = np.zeros(array.shape, self.setup.arithmetic)
        present = np.zeros(len(array), bool)
        if form == "nothing":
            return None, None
        if array.ndim == 1 or form in ("dense", "strided"):
            dense = draw(*array.shape)
            wide = np.repeat(dense, 2, axis=-1)[..., ::2]
            return wide if form == "strided" else dense, (dense, None)
        if form == "rows":
            return by_rows(), (total, present)
        if form == "two by rows":
            return [by_rows(), by_rows()], (total, present)
        dense = draw(*array.shape)
        rows = by_rows()
        return [rows, dense], (total + dense, None)

    def _prepared(self, merged: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """Gradients as they come to the rule, as docs/step.md says; without those that are None."""
        kind = self.setup.arithmetic
        prepared = {name: found for name, found in merged.items() if found is not None}
        scale = kind(options.get("grad_scale", 1))
        factor, limit = kind(1), kind(options.get("clip_value", np.inf))
        if "max_norm" in options:
            squares = sum(np.sum(np.float64(g / scale) ** 2) for g, _ in prepared.values())
            norm, most, last = np.sqrt(squares), options["max_norm"], self.optimizer.last
            np.testing.assert_allclose(last.grad_norm, norm, rtol=1e-14)
            assert last.clip_factor == (min(1.0, most / last.grad_norm) if norm else 1.0)
            factor = kind(last.clip_factor)
        return {
            name: (np.clip(g / scale * factor, -limit, limit), rows)
            for name, (g, rows) in prepared.items()
        }

    def _rates(self) -> dict[str, float]:
        return {
            name: rate(self.step_count) if callable(rate) else rate
            for name, rate in self.rates.items()
        }

    @rule(
        value=st.sampled_from([0.0, 0.5, 1.0]),
        kind=st.sampled_from([float, Rate, ga.schedules.Constant, falling]),
        data=st.data(),
    )
    def change_rate(self, value: float, kind: Callable[[float], Any], data: Any) -> None:
        case = self.setup.case
        first = case.hyper["lr"] * (value or (case.make is ga.FTRL))
        group = data.draw(st.sampled_from(range(len(self.containers))))
        for name in self.containers[group]:
            self.rates[name] = kind(first)
            self.optimizer.param_groups[group]["lr"] = self.rates[name]

    @rule(number=NUMBER, bad=st.sampled_from([np.inf, np.nan]), by_rows=st.booleans())
    def skip(self, number: int, bad: float, by_rows: bool) -> None:
        before = self._seen()
        grads = {
            name: self._gradient(name, "dense", number + k)[0]
            for k, name in enumerate(self.followers)
        }
        grads["t"].flat[number % grads["t"].size] = bad
        if by_rows:
            grads["t"] = ga.RowGrad(np.arange(len(grads["t"])), grads["t"])
        self.optimizer.step(grads, skip_nonfinite=True)
        assert self.optimizer.last is not None and self.optimizer.last.skipped
        np.testing.assert_equal(self._seen(), before)

    @rule(kind=st.sampled_from(list(range(9))))
    def refuse(self, kind: int) -> None:
        """What is wrong changes nothing."""
        step, group = self.optimizer.step, self.optimizer.param_groups[0]
        t, v = (self.optimizer.params[name] for name in ("t", "v"))
        good = {name: np.ones_like(one.array) for name, one in self.followers.items()}
        rate = group["lr"]
        before = self._seen()
        broken, nan = Rate(1.0), float("nan")
        broken.broken = True

        def with_rate(value: Any) -> None:
            try:
                group["lr"] = value
                step(good)
            finally:
                group["lr"] = rate

        action = [
            lambda: step(good | {"v": np.ones(9, self.setup.arithmetic)}),
            lambda: step(good | {"v": np.ones(4, int)}),
            lambda: step(good | {"t": ga.RowGrad([len(t)], np.ones_like(t[:1]))}),
            lambda: step(good | {"v": v}),
            lambda: step({"t": good["t"]}),
            lambda: with_rate(nan),
            lambda: with_rate(broken),
            lambda: self.optimizer.add({"new": np.ones(2, self.setup.dtype), "v": v}),
            lambda: self.optimizer.grow("t", np.ones((1, self.width), self.setup.dtype)),
        ][kind]
        try:
            action()
        except (ga.Error, RuntimeError) as error:
            note(str(error))
        else:
            raise AssertionError("this was not refused")
        np.testing.assert_equal(self._seen(), before)

    def _seen(self) -> Any:
        """Without bytes of exact rows: they may catch up in a refused step, and twins are right."""
        found = seen(self.optimizer)
        return found[:2] if self.setup.exact else found

    @rule(number=NUMBER)
    def read(self, number: int) -> None:
        right = self.followers["t"].array
        rows = np.random.default_rng(number).integers(0, len(right), 3)
        assert self.optimizer.read("t", rows).tobytes() == right[rows].tobytes()

    @rule(number=NUMBER, name=st.sampled_from(["t", "v"]))
    def write(self, number: int, name: str) -> None:
        shape = self.followers[name].array.shape
        values = np.random.default_rng(number).normal(size=shape).astype(self.setup.dtype)
        self.optimizer.write(name, values)
        self.followers[name].follow(Written(values))

    @rule()
    def look(self) -> None:
        self._compare()

    @precondition(lambda self: len(self.containers) < 4)
    @rule(number=NUMBER, table=st.booleans())
    def add(self, number: int, table: bool) -> None:
        random = np.random.default_rng(number)
        shape = (3, self.width) if table else (7,)
        new = {f"new{len(self.containers)}": random.normal(size=shape).astype(self.setup.dtype)}
        self.optimizer.add(new)
        self.containers.append(new)
        self.rates |= dict.fromkeys(new, self.setup.case.hyper["lr"])
        self._follow(new)

    @precondition(lambda self: len(self.containers[0]["t"]) < 20)
    @rule(number=NUMBER, more=st.integers(0, 4))
    def grow(self, number: int, more: int) -> None:
        self.optimizer.flush("t")
        rows = np.random.default_rng(number).normal(size=(more, self.width))
        rows = rows.astype(self.setup.dtype)
        self.containers[0]["t"] = larger = np.concatenate([self.containers[0]["t"], rows])
        self.optimizer.grow("t", larger)
        self.followers["t"].follow(Growth(rows))

    @rule(by_pickle=st.booleans(), form=st.sampled_from(FORMS), number=NUMBER)
    def copy(self, by_pickle: bool, form: str, number: int) -> None:
        """The program goes on with the copy; the optimizer itself must stay as it is."""
        self._step_all(form, number)
        both = self.containers, self.optimizer
        self.containers, self.optimizer = (
            pickle.loads(pickle.dumps(both)) if by_pickle else copy.deepcopy(both)
        )
        for group, container in zip(self.optimizer.param_groups, self.containers, strict=True):
            for name in container:
                assert self.optimizer.params[name] is container[name]
                self.rates[name] = group["lr"]
        self.others.append((both[1], seen(both[1])))

    @rule(as_file=st.booleans(), form=st.sampled_from(FORMS), number=NUMBER)
    def save(self, as_file: bool, form: str, number: int) -> None:
        self._step_all(form, number)
        arrays = None
        if as_file:
            written: Any = f"{self.folder.name}/{len(self.saves)}.safetensors"
            self.optimizer.save(written)
        else:
            written = through_file(self.optimizer.state_dict())
            arrays = {name: array.copy() for name, array in self.optimizer.params.items()}
        histories = {name: (one.start, list(one.log)) for name, one in self.followers.items()}
        shapes = {name: one.array.shape for name, one in self.followers.items()}
        names = [list(container) for container in self.containers]
        self.saves.append(
            Saved(written, arrays, self.step_count, names, histories, shapes, dict(self.rates))
        )

    @precondition(lambda self: self.saves)
    @rule(
        data=st.data(), form=st.sampled_from(FORMS), number=NUMBER,
        fresh=st.sampled_from([False, False, True]), renamed=st.booleans(),
    )  # fmt: skip
    def load(self, data: Any, form: str, number: int, fresh: bool, renamed: bool) -> None:
        self._step_all(form, number)
        saved = self.saves[data.draw(st.sampled_from(range(len(self.saves))))]
        shapes = saved.shapes
        now = {name: one.array.shape for name, one in self.followers.items()}
        if not fresh and shapes != now:
            fresh = True
            if saved.arrays is not None and not self.optimizer.state["t"]:
                return  # a snapshot has no parameters: without states it has no shapes
            before = self._seen()
            try:
                self._load(saved.written)
            except ga.Error as error:
                note(str(error))
            else:
                raise AssertionError("other shapes were not refused")
            np.testing.assert_equal(self._seen(), before)
        if fresh:
            self.containers, self.optimizer = self._fresh(saved)
        self._set_schedules(self.optimizer, saved)
        if saved.arrays is not None:
            self.optimizer.flush()
            for name, array in saved.arrays.items():
                self.optimizer.params[name][...] = array
        if renamed and saved.arrays is None:
            self._load_renamed(saved)
        else:
            self._load(saved.written)
        self.step_count, self.rates = saved.step_count, dict(saved.rates)
        self.followers = {
            name: Follower(self.setup, name, start, list(log))
            for name, (start, log) in saved.histories.items()
        }

    def _fresh(self, saved: Saved, prefix: str = "") -> Any:
        """Parameters of the shapes of a save, and their optimizer."""
        containers = [
            {prefix + name: np.zeros(saved.shapes[name], self.setup.dtype) for name in names}
            for names in saved.names
        ]
        groups = [{"params": container} for container in containers]
        return containers, self.setup.case.optimizer(groups, **self.setup.changes)

    def _set_schedules(self, optimizer: ga.Optimizer, saved: Saved) -> None:
        """Code is not saved; the rest is, and must take the place of another number or schedule."""
        for number, names in enumerate(saved.names):
            rate, other = saved.rates[names[0]], (0.25, falling(0.25))[number % 2]
            optimizer.param_groups[number]["lr"] = rate if isinstance(rate, Rate) else other

    def _load_renamed(self, saved: Saved) -> None:
        """Load a file by way of an optimizer whose parameters have other names."""
        _, other = self._fresh(saved, "other ")
        self._set_schedules(other, saved)
        path = f"{self.folder.name}/renamed.safetensors"
        other.load(saved.written, rename={name: f"other {name}" for name in saved.shapes})
        other.save(path)
        self.optimizer.load(path, rename={f"other {name}": name for name in saved.shapes})

    def _load(self, written: Any) -> None:
        by_name = self.optimizer.load if isinstance(written, str) else None
        assert not any((by_name or self.optimizer.load_state_dict)(written))


def seen(optimizer: ga.Optimizer) -> Any:
    """All bytes, counts and settings of an optimizer, as they are."""
    parameters, _, steps = internals(optimizer)
    steps.sync_counts()
    return (
        optimizer.step_count,
        [dict(group) for group in optimizer.param_groups],
        {
            name: [one.update_count, one.array.tobytes()]
            + [(letter, state.tobytes()) for letter, state in one.saved_arrays.items()]
            for name, one in parameters.items()
        },
    )


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    """A snapshot whose arrays were in a file of NumPy's."""
    arrays = {
        f"{name}/{letter}": value
        for name, entry in state["state"].items()
        for letter, value in entry.items()
        if isinstance(value, np.ndarray)
    }
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    state = copy.deepcopy(state)
    for path, array in np.load(file).items():
        name, _, letter = path.partition("/")
        state["state"][name][letter] = array
    return state


def run(first: int, minutes: float) -> int:
    """Run programs of one seed after the other; the number of seeds."""
    end, number = time.monotonic() + 60 * minutes, first
    chosen = settings(
        max_examples=8,  # later ones of a seed are mostly variations of its first
        stateful_step_count=60,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    while time.monotonic() < end:
        try:
            seed(number)(get_state_machine_test(Machine, settings=chosen))()
        except BaseException:
            print(f"python tests/test_fuzz.py --seed {number} --minutes 0.001 fails", flush=True)
            raise
        number += 1
    return number - first


def test_random_programs() -> None:
    """For a minute, in a process that compiles nothing."""
    done = subprocess.run(
        [sys.executable, __file__, "--minutes", "0.8"],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(run(arguments.seed, arguments.minutes), "seeds")
