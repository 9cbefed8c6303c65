"""Schedules: their values, beside optax's and torch's; checks; snapshots; optimizers."""

import copy
import json
import math
import os
import pickle
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cases import CASES
from conftest import installed

import gpuadapt as ga
from gpuadapt import schedule_data, schedules, suggest
from gpuadapt.schedules import (
    Constant,
    Cosine,
    Exponential,
    Join,
    Linear,
    OneCycle,
    Piecewise,
    Polynomial,
    Scaled,
    Schedule,
    WarmUp,
)

EPS = float(np.finfo(np.float64).eps)
PAGE = (Path(__file__).parent.parent / "docs" / "schedules.md").read_text(encoding="utf-8")


def rows(library):
    """The rows of the page's table of a library: our expression and its."""
    table = PAGE.split(f"| here | {library} |\n")[1].split("\n\n")[0]
    found = re.findall(r"^\| `(.+?)` \| `(.+)` \|$", table, re.MULTILINE)
    assert len(found) == table.count("\n")
    return found


OPTAX = [
    *rows("optax"),
    ("Exponential(0.1, 1.5, 100, end=0.3)", "exponential_decay(0.1, 100, 1.5, end_value=0.3)"),
    ("Exponential(0.1, 0.5, 7, staircase=True)", "exponential_decay(0.1, 7, 0.5, staircase=True)"),
    ("Linear(0.02, 0.1, 1)", "linear_schedule(0.02, 0.1, 1)"),
    ("Polynomial(0.02, 0.1, 333, power=0.5)", "polynomial_schedule(0.02, 0.1, 0.5, 333)"),
    ("Cosine(0.1, 0.2, 999)", "cosine_decay_schedule(0.1, 999, alpha=2.0)"),
    (
        "WarmUp(333, Cosine(0.1, 0.01, 667, exponent=2), start=0.2)",
        "warmup_cosine_decay_schedule(0.2, 0.1, 333, 1000, 0.01, 2.0)",
    ),
    (
        "WarmUp(50, Exponential(0.1, 0.9, 10, staircase=True, end=0.02))",
        "warmup_exponential_decay_schedule(0.0, 0.1, 50, 10, 0.9, 0, True, 0.02)",
    ),
    ("Piecewise([0.1], [])", "piecewise_constant_schedule(0.1)"),
    ("Scaled(Cosine(0.1, 0.02, 800), 2)", "cosine_decay_schedule(0.2, 800, alpha=0.2)"),
]
"""Ours, and optax's, as text that is evaluated."""

TORCH = [
    *rows("torch.optim.lr_scheduler"),
    ("Piecewise([0.01, 0.1], [1])", "ConstantLR(optimizer, factor=0.1, total_iters=1)"),
    ("Linear(0.1, 0.03, 999)", "LinearLR(optimizer, 1.0, 0.3, total_iters=999)"),
    ("Cosine(0.1, 0.2, 1003)", "CosineAnnealingLR(optimizer, 1003, eta_min=0.2)"),
    ("Polynomial(0.1, 0.0, 1000, power=1)", "PolynomialLR(optimizer, 1000)"),
    ("OneCycle(0.1, 1000, rise=0.0011)", "OneCycleLR(optimizer, 0.1, 1000, pct_start=0.0011)"),
    ("OneCycle(0.1, 1000, rise=0.0)", "OneCycleLR(optimizer, 0.1, 1000, pct_start=0.0)"),
    ("OneCycle(0.1, 1003)", "OneCycleLR(optimizer, 0.1, 1003)"),
    (
        "OneCycle(0.1, 1000, rise=0.1234, shape='linear', three_phase=True)",
        "OneCycleLR(optimizer, 0.1, 1000, pct_start=0.1234, anneal_strategy='linear',"
        " three_phase=True)",
    ),
    (
        "OneCycle(0.1, 1000, rise=0.5, three_phase=True)",
        "OneCycleLR(optimizer, 0.1, 1000, pct_start=0.5, three_phase=True)",
    ),
    (
        "Join([0.05, Polynomial(0.1, 0, 500, 1), Exponential(0.1, 0.99)], [100, 600])",
        "SequentialLR(optimizer, [ConstantLR(optimizer, 0.5, 200), PolynomialLR(optimizer, 500),"
        " ExponentialLR(optimizer, 0.99)], [100, 600])",
    ),
    ("Scaled(Cosine(0.2, 0.0, 1000), 0.5)", "CosineAnnealingLR(optimizer, 1000)"),
]
"""Ours, and torch's of an optimizer with the rate 0.1; the first 1,000 steps are compared."""


def ours(text):
    return eval(text, dict(vars(schedules)))


OPTAX_PROGRAM = """
import json, sys
import jax, optax
from jax import numpy as jnp
steps = jnp.arange(int(sys.argv[1]))
for text in json.load(sys.stdin):
    schedule = eval(text, dict(vars(optax)))
    values = jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float64))(steps)
    print(json.dumps(values.tolist()))
"""


def test_values_are_those_of_optax():
    """In float64, to the rounding of its few operations, past the end of each schedule too."""
    pytest.importorskip("optax")
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(
        [sys.executable, "-c", OPTAX_PROGRAM, "1200"],
        input=json.dumps([theirs for _, theirs in OPTAX]),
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed = ran.stdout.splitlines()
    assert len(printed) == len(OPTAX)
    for (text, theirs), line in zip(OPTAX, printed, strict=True):
        expected, schedule = np.array(json.loads(line)), ours(text)
        got = np.array([schedule(step) for step in range(1200)])
        # 0.5^12 and the like: pow of two libraries, then a product and a sum.
        assert np.abs(got - expected).max() <= 8 * EPS * np.abs(expected).max(), (text, theirs)


@pytest.mark.parametrize(("text", "theirs"), TORCH, ids=[text for text, _ in TORCH])
def test_values_are_those_of_torch(text, theirs):
    """Its chained forms round in every step: by up to 2 units each, of a product and a sum."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    scope = {**vars(torch.optim.lr_scheduler), "optimizer": optimizer}
    expected = []
    scheduler = eval(theirs, scope)
    for step in range(1000):
        expected.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if step < 999:
            scheduler.step()
    got = [ours(text)(step) for step in range(1000)]
    apart = np.abs(np.subtract(got, expected))
    assert (apart <= 4 * EPS * max(expected) * np.arange(1, 1001)).all(), apart.argmax()


HALF = Linear(1.0, 0.5, steps=4)
VALUES = [
    (Constant(0.25), {0: 0.25, 10**9: 0.25}),
    (Linear(0.1, 0.7, 3), {0: 0.1, 3: 0.7, 4: 0.7, 10**9: 0.7}),
    (Linear(1.0, 0.0, 4), {1: 0.75, 3: 0.25}),
    (Cosine(0.1, 0.7, 3), {0: 0.1, 3: 0.7, 4: 0.7, 10**9: 0.7}),
    (Cosine(1.0, 0.0, 4), {2: 0.5}),
    (Cosine(1.0, 0.0, 4, exponent=2), {0: 1.0, 2: 0.25, 4: 0.0}),
    (Polynomial(0.1, 0.7, 3, power=0.3), {0: 0.1, 3: 0.7, 4: 0.7, 10**9: 0.7}),
    (Polynomial(1.0, 0.0, 4, power=2), {1: 0.5625, 2: 0.25}),
    *((kind, {0: 0.7, 1: 0.7, 10**9: 0.7})
      for kind in (Linear(0.1, 0.7, 0), Cosine(0.1, 0.7, 0), Polynomial(0.1, 0.7, 0, power=2))),
    (Exponential(0.1, 0.5), {0: 0.1, 1: 0.05, 2: 0.025, 10**9: 0.0}),
    (Exponential(1.0, 4.0, steps=2), {0: 1.0, 1: 2.0, 2: 4.0, 10**9: math.inf}),
    (Exponential(1.0, 4.0, steps=2, staircase=True), {0: 1.0, 1: 1.0, 2: 4.0, 3: 4.0}),
    (Exponential(1.0, 4.0, end=3.0), {0: 1.0, 1: 3.0, 10**9: 3.0}),
    (Exponential(1.0, 0.5, end=0.3), {0: 1.0, 1: 0.5, 2: 0.3, 10**9: 0.3}),
    (Piecewise([1, 2, 3], [2, 5]), {0: 1.0, 1: 1.0, 2: 2.0, 4: 2.0, 5: 3.0, 10**9: 3.0}),
    (Piecewise([1, 2], [0]), {0: 2.0}),
    (Join([9, HALF, HALF], [2, 4]), {0: 9, 1: 9, 2: 1.0, 3: 0.875, 4: 1.0, 8: 0.5, 10**9: 0.5}),
    (Join([9, HALF], [0]), {0: 1.0, 4: 0.5}),
    (WarmUp(4, HALF), {0: 0.0, 1: 0.25, 3: 0.75, 4: 1.0, 5: 0.875, 8: 0.5, 10**9: 0.5}),
    (WarmUp(4, 1.0, start=2.0), {0: 2.0, 2: 1.5, 4: 1.0, 5: 1.0}),
    (WarmUp(1, HALF), {0: 0.0, 1: 1.0, 2: 0.875}),
    (WarmUp(0, HALF), {0: 1.0, 1: 0.875}),
    (WarmUp(2, WarmUp(2, 1.0, start=0.5)), {0: 0.0, 1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}),
    (OneCycle(1.0, 10, 0.0, 0.5), {0: 0.0, 1: 0.5, 2: 1.0, 9: 0.5, 10: 0.5, 10**9: 0.5}),
    (OneCycle(1.0, 10), {0: 0.04, 2: 1.0, 9: 4e-6, 10: 4e-6}),
    (OneCycle(1.0, 10, 0.25, 0.5, three_phase=True, shape="linear"),
     {0: 0.25, 1: 0.625, 2: 1.0, 3: 0.625, 4: 0.25, 9: 0.5, 10: 0.5}),
    (OneCycle(1.0, 10, 0.25, 0.5, rise=0.1), {0: 1.0, 9: 0.5}),
    (OneCycle(1.0, 1), {0: 4e-6, 1: 4e-6}),
    (Scaled(HALF, 0.5), {0: 0.5, 2: 0.375, 4: 0.25}),
]  # fmt: skip
"""Values at the first step, at boundaries, at the last step and beyond."""


@pytest.mark.parametrize(("schedule", "values"), VALUES, ids=[repr(s) for s, _ in VALUES])
def test_values_at_boundaries(schedule, values):
    for step, value in values.items():
        assert schedule(step) == pytest.approx(value, rel=4 * EPS, abs=0), step
        assert schedule(np.int64(step)) == schedule(step)
        assert isinstance(schedule(step), float)


@pytest.mark.parametrize("kind", [Linear, Cosine, lambda *given: Polynomial(*given, power=3)])
def test_ends_are_exact(kind):
    """Though 0.7 + (0.1 - 0.7) is not 0.1."""
    for start, end in ((0.1, 0.7), (0.7, 0.1), (1e-3, 1e-8)):
        assert kind(start, end, 7)(0) == start and kind(start, end, 7)(7) == end


EVERY = [schedule for schedule, _ in VALUES]


def test_every_kind_is_tried():
    kinds = {
        value for value in vars(schedules).values() if isinstance(value, type)
        and issubclass(value, Schedule) and not value.__name__.startswith("_")
    }  # fmt: skip
    assert kinds - {Schedule} == {*map(type, EVERY)} == {*schedule_data.KINDS.values()}
    assert {kind.__name__ for kind in kinds} == {*schedules.__all__}
    with pytest.raises(NotImplementedError):
        Schedule()(0)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_a_schedule_is_a_value(schedule):
    """It can be printed and read, pickled, copied, compared and hashed, and cannot be changed."""
    scope: dict[str, object] = {}
    exec("from gpuadapt.schedules import *", scope)
    data = json.loads(json.dumps(schedule_data.to_data(schedule), allow_nan=False))
    for twin in (
        eval(repr(schedule), scope),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
        schedule_data.from_data("lr", data),
    ):
        assert twin == schedule and type(twin) is type(schedule) and repr(twin) == repr(schedule)
        assert hash(twin) == hash(schedule)
        assert [twin(step) for step in range(12)] == [schedule(step) for step in range(12)]
    assert sum(schedule == other for other in EVERY) == 1
    name = next(iter(vars(schedule)))
    with pytest.raises(AttributeError):
        setattr(schedule, name, 1)


def test_numbers_of_any_kind_are_taken():
    given = Linear(np.float32(0.5), Fraction(1, 4), np.int16(3))
    assert repr(given) == "Linear(start=0.5, end=0.25, steps=3)"
    assert repr(Piecewise(np.array([1, 2]), iter([np.uint8(3)]))) == (
        "Piecewise(values=(1.0, 2.0), boundaries=(3,))"
    )


WRONG = [
    (lambda: Linear(0.1, 0.2, -1), "steps of Linear: got -1, expected a whole number from 0"),
    (lambda: Linear(0.1, 0.2, 1.5), "steps of Linear: got 1.5"),
    (lambda: Linear(0.1, 0.2, True), "steps of Linear: got True"),
    (lambda: Linear(math.nan, 0.2, 1), "start of Linear: got nan, expected a finite number"),
    (lambda: Linear(0.1, "0.2", 1), "end of Linear: got '0.2'"),
    (lambda: Linear(0.1, 10**400, 1), "end of Linear: got 1000"),
    (lambda: Linear(False, 0.2, 1), "start of Linear: got False"),
    (lambda: Constant(math.inf), "value of Constant: got inf"),
    (lambda: Constant(None), "value of Constant: got None"),
    (lambda: Cosine(0.1, 0.2, 1, exponent=0), "exponent of Cosine: got 0.0, expected a number > 0"),
    (lambda: Polynomial(0.1, 0.2, 1, power=-1), "power of Polynomial: got -1.0"),
    (lambda: Exponential(0.1, 0), "rate of Exponential: got 0.0, expected a number > 0"),
    (
        lambda: Exponential(0.1, 0.5, 0),
        "steps of Exponential: got 0, expected .* from 1",
    ),
    (lambda: Exponential(0.1, 0.5, staircase=1), "staircase of Exponential: got 1, expected True"),
    (lambda: Exponential(0.1, 0.5, end=math.nan), "end of Exponential: got nan"),
    (lambda: Piecewise([], []), r"values of Piecewise: got \[\], expected a list"),
    (lambda: Piecewise("12", [1]), "values of Piecewise: got '12', expected a list"),
    (lambda: Piecewise(1, []), "values of Piecewise: got 1, expected a list"),
    (lambda: Piecewise([1, math.inf], [1]), "values of Piecewise: got inf"),
    (lambda: Piecewise([1, 2], []), r"boundaries of Piecewise: got \[\], expected 1 of them for 2"),
    (lambda: Piecewise([1, 2, 3], [5, 5]), r"got \[5, 5\], expected whole numbers .* increase"),
    (lambda: Piecewise([1, 2, 3], [5, 4]), r"got \[5, 4\], expected whole numbers .* increase"),
    (lambda: Piecewise([1, 2], [-1]), r"got \[-1\], expected whole numbers from 0"),
    (lambda: Piecewise([1, 2], [1.0]), r"got \[1.0\], expected whole numbers from 0"),
    (lambda: Piecewise([1, 2], 1), "got 1, expected whole numbers from 0"),
    (lambda: Join([0.1, "cosine"], [1]), "schedules of Join: got 'cosine', expected schedules or"),
    (lambda: Join([0.1, math.nan], [1]), "schedules of Join: got nan"),
    (lambda: Join([], []), "schedules of Join: got"),
    (lambda: Join([0.1, 0.2], [3, 4]), "boundaries of Join"),
    (lambda: WarmUp(-1, 0.1), "steps of WarmUp: got -1"),
    (lambda: WarmUp(Cosine(0.1, 0.0, 3), 3), "steps of WarmUp: got Cosine"),
    (lambda: WarmUp(1, None), "then of WarmUp: got None"),
    (lambda: WarmUp(1, 0.1, start=math.inf), "start of WarmUp: got inf"),
    (lambda: OneCycle(0.1, 0), "steps of OneCycle: got 0, expected a whole number from 1"),
    (lambda: OneCycle(0.1, 10, rise=1.0), "rise of OneCycle: got 1.0, expected a number from 0,"),
    (lambda: OneCycle(0.1, 10, rise=0.6, three_phase=True), "rise of OneCycle: got 0.6, .* to 0.5"),
    (lambda: OneCycle(0.1, 10, shape="cos"), "shape of OneCycle: got 'cos', expected 'cosine' or"),
    (lambda: OneCycle(0.1, 10, start="x"), "start of OneCycle: got 'x'"),
    (lambda: OneCycle(0.1, 10, three_phase=None), "three_phase of OneCycle: got None"),
    (lambda: Scaled(0.1, 2), "schedule of Scaled: got 0.1, expected a schedule"),
    (lambda: Scaled(Constant(1), math.nan), "factor of Scaled: got nan"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ga.HyperparameterError, match=f"{message}") as raised:
        make()
    assert "\n" not in str(raised.value)


# Optimizers


def given(count, shape=(6, 4)):
    draw = np.random.default_rng(0)
    return [draw.normal(size=shape).astype(np.float32) for _ in range(count)]


SETTINGS = {
    "lr": WarmUp(2, Cosine(0.1, 0.01, steps=3)),
    "betas": (Linear(0.5, 0.9, 4), Piecewise([0.9, 0.99], [3])),
    "eps": Exponential(1e-3, 0.5),
    "weight_decay": Join([0.1, Polynomial(0.2, 0.0, 4, power=2)], [2]),
    "max_row_norm": OneCycle(2.0, 6, start=1.0, end=0.5),
}
"""A schedule for each kind of setting."""


def names_of(setting):
    return ["beta1", "beta2"] if setting == "betas" else [setting]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_schedule_is_the_number_of_each_step(setting):
    """As any hyperparameter: the same bits as numbers that are written before each step."""
    start, *grads = given(7)
    one, other = start.copy(), start.copy()
    scheduled = ga.Adam({"w": one}, **{setting: SETTINGS[setting]})
    written = ga.Adam({"w": other}, **{setting: (0.5, 0.5) if setting == "betas" else 0.5})
    for step, g in enumerate(grads):
        for name in names_of(setting):
            written.param_groups[0][name] = scheduled.param_groups[0][name](step)
        scheduled.step({"w": g})
        written.step({"w": g})
        assert np.array_equal(one, other) and (setting == "lr" or not np.array_equal(one, start))


@pytest.mark.parametrize("way", ["state_dict", "json", "optimizer.save", "save"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("instead", ["default", "another"])
def test_a_snapshot_restores_schedules(setting, way, instead, tmp_path):
    """In place of a number, or of another schedule; training goes on with the same bits."""
    start, *grads = given(7)
    scheduled = {setting: SETTINGS[setting]}
    first = ga.Adam({"w": start.copy()}, **scheduled)
    for g in grads[:3]:
        first.step({"w": g})
    value = Constant(0.75)
    other = {setting: (value, value) if setting == "betas" else value}
    second = ga.Adam({"w": first.params["w"].copy()}, **(other if instead == "another" else {}))
    if way == "state_dict":
        second.load_state_dict(first.state_dict())
    elif way == "json":
        state = first.state_dict()
        state["param_groups"] = json.loads(json.dumps(state["param_groups"]))
        second.load_state_dict(state)
    elif way == "optimizer.save":
        first.save(tmp_path / "a")
        second.load(tmp_path / "a")
    else:
        ga.save(tmp_path / "a", first)
        ga.load(tmp_path / "a", second)
    for name in names_of(setting):
        assert second.param_groups[0][name] == first.param_groups[0][name]
    assert second.state_dict()["param_groups"][0]["schedules"] == []
    for g in grads[3:]:
        first.step({"w": g})
        second.step({"w": g})
        assert np.array_equal(first.params["w"], second.params["w"])


def test_a_number_of_a_snapshot_takes_the_place_of_a_schedule():
    """As it takes the place of another number."""
    plain = ga.Adam({"w": np.ones(3)}, lr=0.25)
    scheduled = ga.Adam({"w": np.ones(3)}, lr=Constant(0.5))
    scheduled.load_state_dict(plain.state_dict())
    assert scheduled.param_groups[0]["lr"] == 0.25
    scheduled.param_groups[0]["lr"] = Constant(0.5)
    assert not any(scheduled.load_state_dict(plain.state_dict(), strict=False))
    assert scheduled.param_groups[0]["lr"] == 0.25


def code(step):
    return 0.5


class Own(Constant):
    """A subclass, which may compute something else."""


CODE = {
    "function": code,
    "WarmUp": WarmUp(3, code),
    "Join": Join([0.1, code], [3]),
    "Scaled": Scaled(code, 2),
    "subclass": Own(0.5),
    "of the same name": type("Constant", (Constant,), {})(0.5),
}


@pytest.mark.parametrize("schedule", CODE.values(), ids=CODE)
def test_code_is_only_named(schedule, tmp_path):
    """And neither it nor data beside it is replaced in silence."""
    own = ga.SGD({"w": np.ones(3)}, lr=schedule)
    ours = ga.SGD({"w": np.ones(3)}, lr=Constant(0.25))
    state = own.state_dict()
    assert state["param_groups"][0]["schedules"] == ["lr"] and "lr" not in state["param_groups"][0]
    with pytest.raises(ga.StateError, match=r"lr: the snapshot has Constant\(.*\), .* code"):
        own.load_state_dict(ours.state_dict())
    left = own.load_state_dict(ours.state_dict(), strict=False)
    assert left.settings == ["param_groups[0]['lr']"]
    assert own.param_groups[0]["lr"] is schedule
    with pytest.raises(ga.StateError, match="lr: it was a schedule in the snapshot"):
        ga.SGD({"w": np.ones(3)}, lr=0.1).load_state_dict(state)
    own.save(tmp_path / "a")
    for optimizer in (ours, ga.SGD({"w": np.ones(3)}, lr=Own(1.0))):
        before = optimizer.param_groups[0]["lr"]
        optimizer.load_state_dict(state)
        optimizer.load(tmp_path / "a")
        assert optimizer.param_groups[0]["lr"] is before
    with pytest.raises(ga.StateError, match=r"lr: it was a schedule .*which has no code"):
        ga.SGD({"w": np.ones(3)}, lr=0.1).load(tmp_path / "a")


STRANGE = [
    ({"kind": "Spiral", "turns": 3}, "no kind 'Spiral', but Constant, "),
    ({"kind": "Constant", "value": 0.5, "phase": 1}, "unexpected keyword argument 'phase'"),
    ({"kind": "Constant"}, "missing 1 required positional argument: 'value'"),
    ({"kind": "Constant", "value": "0.5"}, "value of Constant: got '0.5'"),
    ({"kind": "Constant", "value": {"kind": "Constant", "value": 1}}, "value of Constant"),
    ({"kind": "Join", "schedules": [0.1, {"kind": "X"}], "boundaries": [1]}, "kind 'X'"),
    ({"kind": "Schedule"}, "no kind 'Schedule'"),
    ({"kind": ["Constant"], "value": 1}, "no kind"),
    ({"value": 0.5}, "'kind'"),
    ({}, "'kind'"),
]


@pytest.mark.parametrize(("data", "message"), STRANGE, ids=[str(data) for data, _ in STRANGE])
def test_schedules_of_a_later_version(data, message, tmp_path):
    """An error that says so, and strict=False keeps what the optimizer has."""
    optimizer = ga.SGD({"w": np.ones(3)}, lr=Constant(0.5))
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = data
    with pytest.raises(ga.StateError, match=re.escape(message)) as raised:
        optimizer.load_state_dict(state)
    assert str(raised.value).startswith("lr: the snapshot has") and "\n" not in str(raised.value)
    left = optimizer.load_state_dict(state, strict=False)
    assert left.settings == ["param_groups[0]['lr']"]
    assert optimizer.param_groups[0]["lr"] == Constant(0.5)


def test_deep_data_is_an_error():
    data = {"kind": "Constant", "value": 1.0}
    for _ in range(100_000):
        data = {"kind": "Scaled", "schedule": data, "factor": 1.0}
    with pytest.raises(ga.StateError):
        schedule_data.from_data("lr", data)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_warm_up_from_zero(case, by_numpy):
    """The first step moves nothing but by a decay without lr, and all numbers stay finite."""
    start, *grads = given(6)
    w = start.copy()
    optimizer = case.optimizer({"w": w}, lr=WarmUp(3, 0.1))
    if case.make is ga.FTRL:
        with pytest.raises(ga.HyperparameterError, match="the formula divides by lr"):
            optimizer.step({"w": grads[0]})
        assert np.array_equal(w, start) and optimizer.step_count == 0
        return
    for number, g in enumerate(grads):
        optimizer.step({"w": g})
        if number == 0 and case.options.get("decay") != "absolute":
            assert np.array_equal(w, start)
    assert np.isfinite(w).all() and (w != start).all()
    for array in optimizer.state["w"].values():
        assert not hasattr(array, "dtype") or np.isfinite(array).all()


@pytest.mark.parametrize("exactness", ["bits", "close"])
@pytest.mark.parametrize("name", ["momentum", "adam", "amsgrad", "adagrad"])
def test_exact_rows_in_a_warm_up_from_zero(name, exactness):
    """Rows of the first step, of later steps and of none end where dense steps move them."""
    start, *grads = given(6)
    case = next(case for case in CASES if case.name == name)
    table, whole = start.copy(), start.copy()
    schedule = WarmUp(3, Cosine(0.1, 0.0, steps=2))
    rows = case.optimizer({"w": table}, lr=schedule, sparse="exact", exactness=exactness)
    dense = case.optimizer({"w": whole}, lr=schedule)
    for step, g in enumerate(grads):
        touched = [0, 2] if step in (0, 3) else [2, 4]
        full = np.zeros_like(g)
        full[touched] = g[touched]
        rows.step({"w": ga.RowGrad(touched, g[touched])})
        dense.step({"w": full})
    rows.flush()
    if exactness == "bits":
        assert np.array_equal(table, whole)
    else:
        assert np.allclose(table, whole, rtol=0, atol=8 * np.spacing(np.abs(whole).max()))
    assert (table[[0, 2, 4]] != start[[0, 2, 4]]).all()


def test_parts_with_a_state_are_called_once_for_each_step():
    asked = []

    def told(step):
        asked.append(step)
        return 0.5

    joined = Join([0.1, told], [2])
    optimizer = ga.SGD([{"params": {"w": np.ones(3)}}, {"params": {"u": np.ones(3)}}], lr=joined)
    for _ in range(4):
        optimizer.step({"w": np.ones(3), "u": np.ones(3)})
    assert asked == [0, 1]


def test_a_rate_that_overflows_is_refused():
    optimizer = ga.SGD({"w": np.ones(3)}, lr=Exponential(1.0, 1e200))
    optimizer.step({"w": np.ones(3)})
    optimizer.step({"w": np.zeros(3)})
    with pytest.raises(ga.HyperparameterError, match=r"lr: got inf, .* at step 2\)"):
        optimizer.step({"w": np.ones(3)})


def test_presets_take_schedules():
    """Under each framework's name of the rate; what a preset multiplies is restored as well."""
    schedule = WarmUp(2, Cosine(0.1, 0.01, steps=3))
    start, *grads = given(6)
    makers = [
        lambda w, lr: ga.presets.torch.AdamW(w, lr=lr),
        lambda w, lr: ga.presets.keras.Adam(w, learning_rate=lr),
        lambda w, lr: ga.presets.optax.adam(w, learning_rate=lr),
        lambda w, lr: ga.presets.tensorflow.AdagradOptimizer(w, learning_rate=lr),
        lambda w, lr: ga.presets.chainer.Adam(w, alpha=lr, eta=0.5, weight_decay_rate=lr),
        lambda w, lr: ga.presets.keras.Ftrl(w, 0.1, l2_regularization_strength=lr),
    ]
    for make in makers:
        scheduled = make({"w": start.copy()}, schedule)
        by_function = make({"w": start.copy()}, lambda step: schedule(step))
        for g in grads:
            scheduled.step({"w": g})
            by_function.step({"w": g})
        assert np.array_equal(scheduled.params["w"], by_function.params["w"])
        loaded = make({"w": start.copy()}, 0.3)
        loaded.load_state_dict(scheduled.state_dict())
        assert loaded.param_groups == scheduled.param_groups


def test_converted_states_go_on_under_schedules():
    """A framework's state has no schedule that could be taken: the optimizer's own stays."""
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    theirs = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.ones_like(weight)
    theirs.step()
    w = weight.detach().numpy().copy()
    schedule = Cosine(0.1, 0.0, steps=4)
    optimizer = ga.presets.torch.Adam({"w": w}, lr=schedule)
    ga.convert.from_torch(theirs.state_dict(), optimizer)
    assert optimizer.param_groups[0]["lr"] == schedule and optimizer.step_count == 1
    back = ga.convert.to_torch(optimizer, theirs.state_dict())
    assert back["param_groups"][0]["lr"] == 0.1


def test_replays_follow_a_schedule():
    schedule = WarmUp(2, Cosine(0.1, 0.0, steps=5))
    start, g = given(2)
    with installed("host") as device:
        w, twin = device.array(start), start.copy()
        optimizer, expected = ga.Adam(w, lr=schedule), ga.Adam(twin, lr=schedule)
        grad, stream = device.array(g), device.library.cuda.Stream()
        optimizer.capturable = True
        with stream:
            optimizer.step(grad)
            stream.begin_capture()
            optimizer.step(grad)
            graph = stream.end_capture()
            for count in (1, 3, 2):
                optimizer.prepare_replay(count)
                for _ in range(count):
                    graph.launch(stream)
            for _ in range(7):
                expected.step(g)
        assert np.array_equal(device.numpy(w), twin)
        state = optimizer.state_dict()
        other = ga.Adam(device.array(start))
        other.load_state_dict(state)
        assert other.param_groups[0]["lr"] == schedule and other.step_count == 7


# Names


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("CosineAnnealingLR", "Cosine"), ("cosine_decay_schedule", "Cosine"),
        ("CosineDecay", "Cosine"), ("LinearLR", "Linear"), ("linear_schedule", "Linear"),
        ("ConstantLR", "Piecewise"), ("MultiStepLR", "Piecewise"), ("StepLR", "Exponential"),
        ("piecewise_constant_schedule", "Piecewise"), ("ExponentialLR", "Exponential"),
        ("exponential_decay", "Exponential"), ("PolynomialLR", "Polynomial"),
        ("polynomial_schedule", "Polynomial"), ("OneCycleLR", "OneCycle"),
        ("cosine_onecycle_schedule", "OneCycle"), ("warmup_cosine_decay_schedule", "WarmUp"),
        ("SequentialLR", "Join"), ("join_schedules", "Join"), ("Warmup", "WarmUp"),
        ("CosineAnnealingWarmRestarts", "Join"),
    ],
)  # fmt: skip
def test_names_of_other_libraries(name, word):
    for module in (ga, schedules):
        with pytest.raises(AttributeError, match=rf"did you mean schedules\.{word}\(") as raised:
            getattr(module, name)
        assert f"has no attribute {name!r}" in str(raised.value)
    assert hasattr(schedules, word)


def test_names_that_are_suggested_exist():
    for text in suggest.SCHEDULES.values():
        called = re.match(r"schedules\.(\w+)\((.*)\)", text)
        if called:
            kind = getattr(schedules, called[1])
            known = set(kind.__dataclass_fields__)
            assert {each.partition("=")[0] for each in called[2].split(", ")} <= known


@pytest.mark.parametrize("name", ["lr_scheduler", "scheduler", "schedule", "lr_schedule"])
def test_keywords_of_other_libraries(name):
    with pytest.raises(ga.KeywordError, match=r"did you mean lr=schedules\.Cosine"):
        ga.Adam({"w": np.ones(3)}, **{name: 3})
    with pytest.raises(ga.KeywordError, match=r"did you mean lr=schedules\.WarmUp"):
        ga.Adam({"w": np.ones(3)}, warmup_steps=3)


def test_torchs_optimizers_have_numbers():
    """A schedule becomes one of torch's by LambdaLR, which the errors name."""
    torch = pytest.importorskip("torch")
    import gpuadapt.torch

    schedule = WarmUp(3, Cosine(0.1, 0.01, steps=4))
    weight = torch.nn.Parameter(torch.ones(3))
    for make in (gpuadapt.torch.Adam, gpuadapt.torch.SGD):
        with pytest.raises(ga.HyperparameterError, match=r"lr: got WarmUp\(.*LambdaLR"):
            make([weight], lr=schedule)
    with pytest.raises(ga.HyperparameterError, match=r"lr: got WarmUp\(.*LambdaLR"):
        gpuadapt.torch.Optimizer(ga.rules.sgd, [weight], lr=schedule)
    optimizer = gpuadapt.torch.SGD([weight], lr=1.0)
    optimizer.param_groups[0]["lr"] = schedule
    weight.grad = torch.ones(3)
    with pytest.raises(ga.HyperparameterError, match=r"lr: got WarmUp\(.*LambdaLR"):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 1.0
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for step in range(9):
        assert optimizer.param_groups[0]["lr"] == schedule(step)
        optimizer.step()
        scheduler.step()
    other = torch.optim.lr_scheduler.LambdaLR(gpuadapt.torch.SGD([weight]), schedule)
    other.load_state_dict(scheduler.state_dict())
    assert other.get_last_lr() == [schedule(9)]


def test_one_cycle_is_the_momentum_of_torch():
    torch = pytest.importorskip("torch")
    for three, shape in ((False, "cosine"), (True, "linear")):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            0.1,
            100,
            three_phase=three,
            anneal_strategy={"cosine": "cos"}.get(shape, shape),
        )
        ours = OneCycle(0.85, 100, start=0.95, end=0.95, three_phase=three, shape=shape)
        for step in range(100):
            assert ours(step) == pytest.approx(optimizer.param_groups[0]["momentum"], rel=4 * EPS)
            optimizer.step()
            if step < 99:
                scheduler.step()
