"""Averages of the parameters: their formulas, in every kernel, and what may be done with them."""

import copy
import importlib.util
import pickle
import re
import sys

import hostcupy
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from cases import CASES, KINDS
from conftest import installed
from formats_table import PAIRS, PARAMETERS, make
from test_write import given as array_of
from torch.optim import swa_utils

import gpuadapt as ga
import gpuadapt.torch
from gpuadapt import state_formats
from gpuadapt.averages import Average, Equal, Exponential, Lookahead
from gpuadapt.kernels.averaging import STATE
from gpuadapt.optimizer import internals

F = np.float32


@ga.averages.average(misses_steps=True)
def halfway(p, a, h):
    """a <- (1 - rate) a + rate p, and the parameter a little towards it"""
    kept = 1 - h.rate
    a = kept * a + h.rate * p
    return p + h.pull * (a - p), a


def by_numpy(average, a, p, t):
    """The new parameter and average in the arrays' own arithmetic, from update ``t``."""
    T, values = p.dtype.type, average.values
    match average:
        case Exponential(bias_correction=False):
            keep = values["decay"] if t > 1 else 0.0
            return p, T(keep) * a + T(1 - keep) * p
        case Exponential():
            d = values["decay"]
            left, right = d * (1 - d ** (t - 1)) / (1 - d**t), (1 - d) / (1 - d**t)
            return p, T(left) * a + T(right) * p
        case Equal():
            since = t - values["start"] - 1
            if since <= 0:
                return p, p
            n, rest = divmod(since, values["every"])
            return p, a if rest else a + (p - a) / T(n + 1)
        case Lookahead():
            if t % values["every"]:
                return p, a
            a = a + T(values["alpha"]) * (p - a)
            return a, a
    rate = values["rate"]
    a = T(1 - rate) * a + T(rate) * p
    return p + T(values["pull"]) * (a - p), a


AVERAGES = {
    "exponential": Exponential(0.7),
    "corrected": Exponential(0.7, bias_correction=True),
    "equal": Equal(),
    "equal, later": Equal(3, every=2),
    "lookahead": Lookahead(0.4, every=3),
    "own": halfway(rate=0.2, pull=0.1),
}
LAZY = ("exponential", "own")
"""Those that rows may miss steps of."""

average_name = pytest.mark.parametrize("name", AVERAGES)


def case(name):
    return next(case for case in CASES if case.name == name)


def followed(average, twin, w, gradients):
    """Averages after each step, by NumPy beside an optimizer without one; ``w`` is its array."""
    a, found = w.copy(), []
    for t, gradient in enumerate(gradients, 1):
        twin.step({"w": gradient})
        w[...], a = by_numpy(average, a, w.copy(), t)
        found.append((w.copy(), a))
    return found


def runs(average, item, backend, dtype):
    """Steps with an average, against NumPy's average of a run without one; also with decay of the
    parameter after the update."""
    random = np.random.default_rng(0)
    start, *gradients = random.normal(size=(9, 37)).astype(dtype)
    plain, ours = start.copy(), backend.array(start)
    changes = {} if item.make is ga.FTRL else {"weight_decay": 0.1, "decay": "after"}
    with installed("cpu"):
        expected = followed(average, item.optimizer({"w": plain}, **changes), plain, gradients)
    optimizer = item.optimizer({"w": ours}, average=average, **changes)
    assert np.array_equal(backend.numpy(optimizer.averages["w"]), start)
    for gradient, (w, a) in zip(gradients, expected, strict=True):
        optimizer.step({"w": backend.array(gradient)})
        assert np.array_equal(backend.numpy(ours), w)
        assert np.array_equal(backend.numpy(optimizer.averages["w"]), a)


OFTEN = ("exponential", "lookahead")
AFTER = [(name, item) for name in AVERAGES for item in CASES if name in OFTEN or item in KINDS]


@pytest.mark.parametrize(("name", "item"), AFTER, ids=lambda one: getattr(one, "name", one))
def test_after_every_rule(name, item, by_numpy):
    dtype = np.dtype(F)
    with installed("cpu") as backend:
        if name in ("lookahead", "own") and item.make is ga.FTRL:
            with pytest.raises(ga.HyperparameterError, match="parameter anew of its states"):
                runs(AVERAGES[name], item, backend, dtype)
        else:
            runs(AVERAGES[name], item, backend, dtype)


@average_name
def test_kernels(name, backend):
    """Bit for bit, on both backends."""
    runs(AVERAGES[name], case("adam"), backend, F)


FORMATS = {f"{kept.name}, float32": (kept, "float32") for kept in PARAMETERS} | {
    f"float32, {state}": (kept, state) for kept, state in PAIRS if kept.name == "float32"
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(name, backend):
    """The average is that of the numbers as the arithmetic has them, in float32 or float64.

    The number that is stored is within a unit of its last place of that number.
    """
    (parameter, state), random = FORMATS[name], np.random.default_rng(0)
    wide = np.float64 if parameter.element == "float64" else F
    start, *gradients = random.normal(size=(9, 5, 64)).astype(parameter.dtype)
    average = Exponential(0.7)
    ours = array_of(backend, start.copy())
    optimizer = make(ga.Adam, ours, parameter, state, average=average, lr=1e-3)
    kept = internals(optimizer).parameters["w"]
    assert kept.states[STATE].dtype == wide
    a = start.astype(wide)
    largest = np.abs(a)
    for t, gradient in enumerate(gradients, 1):
        optimizer.step({"w": array_of(backend, gradient)})
        stored = kept.formats.parameter.decode([kept.array, *kept.companions.values()])
        largest = np.maximum(largest, np.abs(stored))
        _, a = by_numpy(average, a, stored.astype(wide), t)
        got = backend.numpy(optimizer.averages["w"])
        unit = np.spacing(largest.astype(parameter.dtype)).astype(wide)
        assert (np.abs(a - got) <= 2 * unit).all(), t
    assert not np.array_equal(got, stored)


@pytest.mark.parametrize("parameter", PARAMETERS[:6], ids=lambda kept: kept.name)
def test_lookahead_returns_to_the_slow_weights(parameter, backend):
    start, *gradients = np.random.default_rng(0).normal(size=(8, 5, 64)).astype(parameter.dtype)
    ours = array_of(backend, start)
    optimizer = make(ga.Adam, ours, parameter, "float32", average=Lookahead(every=3), lr=0.1)
    kept = internals(optimizer).parameters["w"]
    for t, gradient in enumerate(gradients, 1):
        optimizer.step({"w": array_of(backend, gradient)})
        slow = backend.numpy(optimizer.averages["w"])
        unit = np.spacing(np.abs(slow).astype(parameter.dtype)).astype(slow.dtype)
        away = np.abs(state_formats.decoded(kept.array) - slow)
        near = away <= (0 if parameter.element in ("float32", "float64") else unit)
        assert near.all() if t % 3 == 0 else not near.all()


def test_one_launch(host):
    """The kernel of the update keeps the average: no second pass."""
    arrays = {f"w{k}": host.array(np.ones(5, F)) for k in range(9)}
    optimizer = ga.Adam(arrays, average=Exponential())
    gradients = {name: host.array(np.ones(5, F)) for name in arrays}
    optimizer.step(gradients)
    hostcupy.RawKernel.launches.clear()
    optimizer.step(gradients)
    assert len(hostcupy.RawKernel.launches) == 1


@pytest.mark.parametrize("name", ["exponential", "equal, later"])
def test_strided_and_many(name, backend):
    random = np.random.default_rng(1)
    start, *gradients = random.normal(size=(6, 8, 6)).astype(F)
    one = backend.array(start)
    apart = backend.array(np.repeat(start, 2, 1)[:, ::2])
    alone = ga.Adam({"w": one}, average=AVERAGES[name])
    both = ga.Adam({"a": apart, "b": backend.array(start)}, average=AVERAGES[name])
    for k, gradient in enumerate(gradients):
        ours = backend.array(gradient)
        alone.step({"w": ours})
        both.step({"a": backend.array(gradient.T.copy().T), "b": ours if k != 2 else None})
        assert np.array_equal(backend.numpy(alone.averages["w"]), backend.numpy(both.averages["a"]))
    # A step without a gradient is none of its steps.
    with installed("cpu"):
        w = start.copy()
        expected = followed(AVERAGES[name], ga.Adam({"w": w}), w, np.delete(gradients, 2, 0))
    assert np.array_equal(backend.numpy(both.averages["b"]), expected[-1][1])


def batches(random, count=40, rows=30, width=8):
    for _ in range(count):
        picked = random.integers(rows, size=random.integers(1, 5))
        yield picked, random.normal(size=(len(picked), width)).astype(F)


ROWS = [("adam", name) for name in ("exponential", "equal, later", "lookahead", "own")]
ROWS += [("momentum", "lookahead"), ("ftrl", "equal")]


@pytest.mark.parametrize(("method", "name"), ROWS)
def test_exact_rows(name, method, backend):
    """Their averages are those of dense steps, bit for bit, and p too where they change it."""
    table = np.random.default_rng(2).normal(size=(30, 8)).astype(F)
    whole, ours = table.copy(), backend.array(table)
    with installed("cpu"):
        dense = case(method).optimizer({"table": whole}, average=AVERAGES[name])
        for rows, values in batches(np.random.default_rng(3)):
            gradient = ga.RowGrad(rows, values).to_dense(table.shape)
            dense.step({"table": gradient})
        expected = dense.averages["table"]
    settings = {"sparse": "exact", "exactness": "bits", "average": AVERAGES[name]}
    exact = case(method).optimizer({"table": ours}, **settings)
    for k, (rows, values) in enumerate(batches(np.random.default_rng(3))):
        exact.step({"table": ga.RowGrad(backend.array(rows), backend.array(values))})
        if k == 20:
            exact.read("table", backend.array(np.arange(7)))
    assert np.array_equal(backend.numpy(exact.averages["table"]), expected)
    assert np.array_equal(backend.numpy(ours), whole)


LAUNCHES = {"rows": {}, "rowwise": {"rowwise": True}, "row norms": {"max_row_norm": 0.5}}
"""Rows alone; and dense gradients, too, that are launched by rows."""

KEPT = [("own", "rows"), *(("exponential", launch) for launch in LAUNCHES)]


@pytest.mark.parametrize(("name", "launch"), KEPT)
def test_lazy_rows(name, launch, backend):
    """A row that a step leaves out keeps its average, as it keeps its numbers."""
    average, changes = AVERAGES[name], LAUNCHES[launch]
    table = np.random.default_rng(2).normal(size=(30, 8)).astype(F)
    plain, ours = table.copy(), backend.array(table)
    found = case("adam").optimizer({"table": ours}, average=average, **changes)
    a = table.copy()
    with installed("cpu"):
        lazy = case("adam").optimizer({"table": plain}, **changes)
    for t, (rows, values) in enumerate(batches(np.random.default_rng(3)), 1):
        with installed("cpu"):
            lazy.step({"table": ga.RowGrad(rows, values)})
        some = np.unique(rows)
        plain[some], a[some] = by_numpy(average, a[some], plain[some], t)
        found.step({"table": ga.RowGrad(backend.array(rows), backend.array(values))})
    assert np.array_equal(backend.numpy(ours), plain)
    assert np.array_equal(backend.numpy(found.averages["table"]), a)


MISSED = [*((name, "rows") for name in AVERAGES), ("equal", "rowwise"), ("equal", "row norms")]


@pytest.mark.parametrize(("name", "launch"), MISSED)
def test_rows_that_would_miss_steps_are_refused(name, launch):
    """Averages that count steps take dense gradients, also where these are launched by rows."""
    table = np.ones((30, 8), F)
    optimizer = ga.Adam({"table": table}, average=AVERAGES[name], **LAUNCHES[launch])
    optimizer.step({"table": np.ones_like(table)})
    before = table.copy(), optimizer.averages["table"]
    gradient = ga.RowGrad(np.arange(3), np.ones((3, 8), F))
    for given in (gradient, [gradient, gradient]):
        if name in LAZY:
            optimizer.step({"table": given})
            continue
        with pytest.raises(ga.GradientError, match=r"'table'.*average that counts.*sparse='exact'"):
            optimizer.step({"table": given})
        assert np.array_equal(table, before[0])
        assert np.array_equal(optimizer.averages["table"], before[1])


TORCH = {
    "equal": (Equal(), lambda: swa_utils.get_swa_avg_fn()),
    "exponential": (Exponential(0.9), lambda: swa_utils.get_ema_avg_fn(0.9)),
    "exponential, default": (Exponential(), lambda: swa_utils.get_ema_avg_fn(0.999)),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name, dtype):
    """Bit for bit `AveragedModel`, updated after each step."""
    average, function = TORCH[name]
    model = torch.nn.Linear(31, 7, dtype=getattr(torch, str(dtype)))
    ours = {key: one.detach().numpy() for key, one in model.named_parameters()}
    averaged = swa_utils.AveragedModel(model, avg_fn=function())
    optimizer = ga.SGD(ours, lr=0.1, momentum=0.9, average=average)
    random = np.random.default_rng(0)
    for _ in range(100):
        optimizer.step({key: random.normal(size=w.shape).astype(dtype) for key, w in ours.items()})
        averaged.update_parameters(model)
    for key, one in averaged.module.named_parameters():
        assert np.array_equal(optimizer.averages[key], one.detach().numpy())


def test_torch_from_a_step_on():
    """The training loop of torch's documentation: averages of every third step from step 10 on."""
    model = torch.nn.Linear(31, 7)
    ours = {key: one.detach().numpy() for key, one in model.named_parameters()}
    averaged = swa_utils.AveragedModel(model)
    optimizer = ga.SGD(ours, lr=0.1, average=Equal(10, every=3))
    random = np.random.default_rng(0)
    for step in range(50):
        optimizer.step({key: random.normal(size=w.shape).astype(F) for key, w in ours.items()})
        if step >= 10 and (step - 10) % 3 == 0:
            averaged.update_parameters(model)
    for key, one in averaged.module.named_parameters():
        assert np.array_equal(optimizer.averages[key], one.detach().numpy())


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_optax_ema(decay):
    """In 1,000 steps, to float32's rounding: optax divides a sum, and we average what is right."""
    random = np.random.default_rng(0)
    w = random.normal(size=(16,)).astype(F)
    optimizer = ga.SGD({"w": w}, lr=0.01, average=Exponential(decay, bias_correction=True))
    ema = optax.ema(decay, debias=True)
    state = ema.init(w)
    for _ in range(1000):
        optimizer.step({"w": random.normal(size=16).astype(F)})
        expected, state = ema.update(jnp.asarray(w), state)
        np.testing.assert_allclose(optimizer.averages["w"], expected, rtol=2e-5, atol=1e-6)


def test_optax_lookahead():
    random = np.random.default_rng(0)
    start = random.normal(size=16).astype(F)
    w = start.copy()
    average = Lookahead(0.3, every=4)
    optimizer = ga.SGD({"w": w}, lr=0.1, momentum=0.9, average=average)
    inner = optax.sgd(0.1, 0.9)
    theirs = optax.lookahead(inner, sync_period=4, slow_step_size=0.3)
    params = optax.LookaheadParams.init_synced(jnp.asarray(start))
    state = theirs.init(params)
    for _ in range(50):
        gradient = random.normal(size=16).astype(F)
        optimizer.step({"w": gradient})
        updates, state = theirs.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(w, params.fast, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(optimizer.averages["w"], params.slow, rtol=1e-5, atol=1e-6)


def test_a_schedule_of_the_decay(backend):
    """As in a warm-up: it has the value of the step, and may be changed between steps."""
    w = backend.array(np.zeros(3, F))
    optimizer = ga.SGD({"w": w}, lr=1.0, average=Exponential(lambda step: step / 4))
    a = np.zeros(3, F)
    for step in range(4):
        optimizer.step({"w": backend.array(np.full(3, -1.0, F))})
        decay = step / 4 if step else 0.0
        a = F(decay) * a + F(1 - decay) * backend.numpy(w)
        assert np.array_equal(backend.numpy(optimizer.averages["w"]), a)
    optimizer.param_groups[0]["average_decay"] = 0.5
    optimizer.step({"w": backend.array(np.full(3, -1.0, F))})
    assert np.array_equal(backend.numpy(optimizer.averages["w"]), F(0.5) * a + F(0.5) * F(5))


def test_groups_have_decays_of_their_own():
    a, b = np.zeros(2, F), np.zeros(2, F)
    groups = [{"params": {"a": a}}, {"params": {"b": b}, "average_decay": 0.0}]
    optimizer = ga.SGD(groups, lr=1.0, average=Exponential(0.5))
    for _ in range(2):
        optimizer.step({"a": np.full(2, -1.0, F), "b": np.full(2, -1.0, F)})
    assert (optimizer.averages["a"] == 1.5).all() and (optimizer.averages["b"] == 2).all()
    optimizer.add({"c": np.zeros(2, F)}, average_decay=0.25)
    assert optimizer.param_groups[2]["average_decay"] == 0.25
    assert list(optimizer.averages) == ["a", "b", "c"] and (optimizer.averages["c"] == 0).all()


def test_skipped_steps_and_scales(backend):
    """A step that is skipped is no step of the average; scaled gradients are divided before."""
    w, plain = backend.array(np.zeros(3, F)), np.zeros(3, F)
    optimizer = ga.SGD({"w": w}, lr=1.0, average=Exponential(0.5))
    with installed("cpu"):
        twin = ga.SGD({"w": plain}, lr=1.0, average=Exponential(0.5))
        for _ in range(3):
            twin.step({"w": np.full(3, 2.0, F)})
    for gradient in (8.0, np.inf, 8.0, np.nan, 8.0):
        given = backend.array(np.full(3, gradient, F))
        optimizer.step({"w": given}, grad_scale=4.0, skip_nonfinite=True)
    assert np.array_equal(backend.numpy(optimizer.averages["w"]), twin.averages["w"])


@average_name
def test_snapshots_files_and_copies(name, tmp_path):
    """A run that goes on from any of them is the run without a break."""
    average = AVERAGES[name]
    start, *gradients = np.random.default_rng(0).normal(size=(12, 7)).astype(F)
    w = start.copy()
    whole = ga.Adam({"w": w}, lr=0.1, average=average)
    for gradient in gradients[:5]:
        whole.step({"w": gradient})
    path = tmp_path / "run.safetensors"
    whole.save(path)
    again = [ga.Adam({"w": w.copy()}, lr=0.1, average=average) for _ in range(2)]
    again[0].load_state_dict(whole.state_dict())
    again[1].load(path)
    again += [copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))]
    for one in (whole, *again):
        for gradient in gradients[5:]:
            one.step({"w": gradient})
    for one in again:
        assert np.array_equal(one.params["w"], w)
        assert np.array_equal(one.averages["w"], whole.averages["w"])
    with pytest.raises(ga.StateError, match="rule 'adam_"):
        ga.Adam({"w": w.copy()}).load_state_dict(whole.state_dict())


def test_a_snapshot_of_other_counts():
    """A mean that has counted by other numbers does not go on with these."""
    saved = ga.SGD({"w": np.zeros(3, F)}, average=Equal(2)).state_dict()
    other = ga.SGD({"w": np.zeros(3, F)}, average=Equal(3))
    with pytest.raises(ga.HyperparameterError, match=r"average_start: got 2.*made for 3"):
        other.load_state_dict(saved)
    left = other.load_state_dict(saved, strict=False)
    assert left.settings == ["param_groups[0]['average_start']"]


def test_rows_that_a_table_gets(backend):
    table = backend.array(np.zeros((3, 8), F))
    optimizer = ga.SGD({"t": table}, lr=1.0, average=Exponential(0.5))
    for _ in range(2):
        optimizer.step({"t": backend.array(np.full((3, 8), -1.0, F))})
    larger = backend.array(np.full((5, 8), 7.0, F))
    larger[:3] = table
    optimizer.grow("t", larger)
    found = backend.numpy(optimizer.averages["t"])
    assert (found[:3] == 1.5).all() and (found[3:] == 7).all()


SWAPPED = {kept.name: (kept, False) for kept in PARAMETERS}
SWAPPED |= {f"strided {kept.name}": (kept, True) for kept in PARAMETERS[:3]}


@pytest.mark.parametrize("name", SWAPPED)
def test_swapped(name, backend):
    """The arrays hold the averages, rounded to the nearest; then the parameters, bit for bit."""
    parameter, strided = SWAPPED[name]
    start, *gradients = np.random.default_rng(0).normal(size=(7, 6, 64)).astype(parameter.dtype)
    start = np.repeat(start, 2, 1)[:, ::2] if strided else start
    pair = [array_of(backend, start.copy() if not strided else start) for _ in range(2)]
    optimizers = [make(ga.Adam, w, parameter, "float32", average=Exponential(0.5)) for w in pair]
    numbers = [internals(one).parameters["w"].array for one in optimizers]
    for gradient in gradients:
        for one in optimizers:
            one.step({"w": array_of(backend, gradient)})
        before = backend.numpy(numbers[0])
        with optimizers[0].averages.swapped():
            average = backend.numpy(optimizers[0].averages["w"])
            rounded = average.astype(parameter.dtype).astype(average.dtype)
            assert np.array_equal(state_formats.decoded(numbers[0]), rounded)
        assert np.array_equal(backend.numpy(numbers[0]), before)
        assert np.array_equal(before, backend.numpy(numbers[1]))
    assert not np.array_equal(average, state_formats.decoded(numbers[0]))


def test_swapped_exact_rows(backend):
    """Rows catch up before."""
    pair = [backend.array(np.ones((30, 8), F)) for _ in range(2)]
    both = [ga.Adam({"t": t}, sparse="exact", average=Exponential(0.5)) for t in pair]
    for k in range(9):
        for one in both:
            rows = backend.array(np.array([k, 2 * k]))
            one.step({"t": ga.RowGrad(rows, backend.array(np.ones((2, 8), F)))})
    with both[0].averages.swapped():
        average = backend.numpy(both[0].averages["t"])
        assert np.array_equal(backend.numpy(pair[0]), average)
        assert np.array_equal(
            backend.numpy(both[0].read("t", backend.array(np.array([3])))), average[3:4]
        )
    both[1].flush()
    assert np.array_equal(backend.numpy(pair[0]), backend.numpy(pair[1]))


def test_swapped_tensors():
    """torch sees that its tensor has been written to, both times."""
    w = torch.ones(3)
    optimizer = ga.SGD({"w": w}, lr=1.0, average=Exponential(0.5))
    for _ in range(2):
        optimizer.step({"w": torch.ones(3)})
    versions = [w._version]
    with optimizer.averages.swapped():
        versions.append(w._version)
        assert (w == -0.5).all()
    versions.append(w._version)
    assert (w == -1).all() and versions[0] < versions[1] < versions[2]


REFUSED = {
    "step": lambda one, path: one.step({"w": np.ones(3, F)}),
    "state_dict": lambda one, path: one.state_dict(),
    "load_state_dict": lambda one, path: one.load_state_dict({}),
    "save": lambda one, path: one.save(path),
    "load": lambda one, path: one.load(path),
    "write": lambda one, path: one.write("w", np.ones(3, F)),
    "add": lambda one, path: one.add({"x": np.ones(3, F)}),
    "grow": lambda one, path: one.grow("w", np.ones(4, F)),
    "deepcopy": lambda one, path: copy.deepcopy(one),
    "pickle": lambda one, path: pickle.dumps(one),
    "again": lambda one, path: one.averages.swapped().__enter__(),
    "prepare_replay": lambda one, path: one.prepare_replay(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_while_averages_are_in(name, tmp_path):
    w = np.ones(3, F)
    optimizer = ga.SGD({"w": w}, lr=1.0, average=Exponential(0.5))
    path = tmp_path / "run.safetensors"
    optimizer.save(path)
    old = path.read_bytes()
    for _ in range(2):
        optimizer.step({"w": np.ones(3, F)})
    with optimizer.averages.swapped():
        with pytest.raises(ga.StateError, match="leave the block of"):
            REFUSED[name](optimizer, path)
        assert (w == -0.5).all() and path.read_bytes() == old
    assert (w == -1).all()
    optimizer.step({"w": np.ones(3, F)})
    assert (w == -2).all() and optimizer.step_count == 3


def test_an_exception_in_the_block():
    w = np.ones(3, F)
    optimizer = ga.SGD({"w": w}, lr=1.0, average=Exponential(0.5))
    optimizer.step({"w": np.ones(3, F)})
    before = w.copy()
    with pytest.raises(ZeroDivisionError), optimizer.averages.swapped():
        w /= 1 // int(w[0] * 0)
    assert np.array_equal(w, before)
    w.setflags(write=False)
    with pytest.raises(ga.ParameterError, match="read-only"), optimizer.averages.swapped():
        raise AssertionError("the block is not entered")
    w.setflags(write=True)
    optimizer.step({"w": np.ones(3, F)})


@pytest.mark.parametrize("where", ["swapped", "_swap", "_end_block", "_put_back", "_overwrite"])
def test_an_interrupt_at_any_line(where):
    """The parameters come back at the end of the block, or with the next call."""
    line, interrupted = 0, True
    while interrupted:
        w = np.ones(3, F)
        optimizer = ga.SGD({"w": w}, lr=1.0, average=Exponential(0.5))
        for _ in range(2):
            optimizer.step({"w": np.ones(3, F)})
        seen = []

        def trace(frame, event, _, seen=seen, line=line):
            if frame.f_code.co_name == where and event == "line":
                seen.append(frame.f_lineno)
                if len(seen) == line + 1:
                    raise KeyboardInterrupt
            return trace

        interrupted = False
        try:
            sys.settrace(trace)
            with optimizer.averages.swapped():
                pass
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(None)
        optimizer.step({"w": np.ones(3, F)})
        assert (w == -2).all() and optimizer.step_count == 3, (where, line)
        line += 1
    assert line > 1 and (optimizer.averages["w"] == -1.25).all()


def test_without_an_average():
    optimizer = ga.Adam({"w": np.ones(3, F)})
    assert list(optimizer.averages) == [] and "w" not in optimizer.averages
    for ask in (lambda: optimizer.averages["w"], optimizer.averages.swapped().__enter__):
        with pytest.raises(ga.StateError, match=r"keeps no averages; make it with average="):
            ask()


@ga.rule
def with_the_name(p, g, average, h):
    return p - h.lr * g, average


@ga.rule
def of_gradients(p, g, average, h):
    average = 0.9 * average + 0.1 * g
    return p - h.lr * average, average


@ga.rule
def with_the_prefix(p, g, h):
    return p - h.lr * h.average_rate * g


WRONG = {
    "no average": ({"average": 0.999}, "average: got 0.999, expected one of gpuadapt.averages"),
    "a class": ({"average": Exponential}, "average: got <class"),
    "8 bits": ({"average": Equal(), "state_dtype": {"average": "8bit"}}, "kept in float32"),
    "its start": ({"average": Equal(), "initial": {"average": 0.0}}, "no state 'average'"),
    "a group's": (None, "average"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name):
    given, message = WRONG[name]
    params = {"w": np.ones(3, F)}
    if given is None:
        given, params = {}, [{"params": params, "average": Equal()}]
    with pytest.raises(ga.HyperparameterError, match=message):
        ga.Adam(params, **given)


VALUES = {
    "decay": (lambda: Exponential(1.0), "average_decay: got 1.0"),
    "decay, corrected": (
        lambda: Exponential(-0.1, bias_correction=True),
        "average_decay: got -0.1",
    ),
    "a schedule, corrected": (
        lambda: Exponential(lambda t: 0.5, bias_correction=True),
        "number in",
    ),
    "bias_correction": (lambda: Exponential(0.5, bias_correction=0.1), "expected a bool"),
    "start": (lambda: Equal(-1), "start: got -1, expected a whole number from 0"),
    "every": (lambda: Equal(every=0), "every: got 0, expected a whole number from 1"),
    "period": (lambda: Lookahead(every=2.5), "every: got 2.5"),
    "alpha": (lambda: Lookahead(0.0), "average_alpha: got 0.0"),
    "missing": (lambda: halfway(rate=0.1), "got the hyperparameters rate, expected rate, pull"),
    "unknown": (lambda: halfway(rate=0.1, pull=0.1, x=1), "expected rate, pull"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_are_refused(name):
    given, message = VALUES[name]
    with pytest.raises(ga.HyperparameterError, match=message):
        given()


def test_counts_stay():
    optimizer = ga.SGD({"w": np.ones(3, F)}, average=Equal(5))
    for name, value in (("average_start", 3), ("average_every", lambda step: 1)):
        before = optimizer.param_groups[0][name]
        optimizer.param_groups[0][name] = value
        with pytest.raises(ga.HyperparameterError, match=f"{name}: got"):
            optimizer.step({"w": np.ones(3, F)})
        optimizer.param_groups[0][name] = before
    optimizer.step({"w": np.ones(3, F)})
    with pytest.raises(ga.HyperparameterError, match="average_every: got a schedule"):
        ga.SGD([{"params": np.ones(3, F), "average_every": lambda step: 1}], average=Equal())


def test_a_state_of_the_users_own_may_have_the_name():
    """Without an average it is a state like others."""
    optimizer = ga.Optimizer(of_gradients, np.ones(3, F), lr=0.1, state_dtype="bfloat16")
    assert str(optimizer.state["0"]["average"].dtype) == "bfloat16"


@pytest.mark.parametrize("rule", [with_the_name, with_the_prefix], ids=lambda rule: rule.name)
def test_a_rule_with_these_names(rule):
    values = dict.fromkeys(rule.hyperparameters, 0.1)
    with pytest.raises(ga.RuleError, match="'average'"):
        ga.Optimizer(rule, np.ones(3, F), average=Equal(), **values)


@pytest.mark.parametrize("name", ["lookahead", "own"])
def test_parameters_that_are_made_anew(name):
    with pytest.raises(ga.HyperparameterError, match="which changes the parameter, but 'ftrl'"):
        ga.FTRL(np.ones(3, F), average=AVERAGES[name])


OWN = {
    "arguments": ("def f(p, a, b, h): return p, a", "takes (parameter, average, h)"),
    "one result": ("def f(p, a, h): return a", "returns 1 values, expected 2"),
    "a branch": ("def f(p, a, h):\n    if p > 0: a = p\n    return p, a", "if is not allowed"),
}


@pytest.mark.parametrize("name", OWN)
def test_averages_that_are_none(name, tmp_path):
    text, message = OWN[name]
    path = tmp_path / "own.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("own", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ga.RuleError, match=re.escape(message)):
        ga.averages.average(module.f)


def test_representations():
    shown = {repr(one) for one in AVERAGES.values()}
    assert shown == {
        "Exponential(0.7)", "Exponential(0.7, bias_correction=True)",
        "Equal(start=0, every=1)", "Equal(start=3, every=2)",
        "Lookahead(alpha=0.4, every=3)", "halfway(rate=0.2, pull=0.1)",
    }  # fmt: skip
    assert Equal(1) == Equal(1) != Equal(2)
    assert Exponential(0.5) != Exponential(0.5, bias_correction=True)
    assert isinstance(halfway(rate=0.1, pull=0.1), Average)


def test_effective_rates_and_stats():
    w = np.ones(4, F)
    pair = [ga.Adam({"w": w.copy()}, **more) for more in ({}, {"average": Exponential()})]
    for one in pair:
        one.step({"w": np.arange(1, 5, dtype=F)}, stats=["w"])
    assert np.array_equal(pair[0].effective_lr("w"), pair[1].effective_lr("w"))
    assert pair[0].stats("w") == pair[1].stats("w")


HINTS = {
    "ema_decay": lambda: ga.Adam(np.ones(3), ema_decay=0.9),
    "swa_start": lambda: ga.Adam(np.ones(3), swa_start=9),
    "lookahead": lambda: ga.Adam(np.ones(3), lookahead=True),
    "AveragedModel": lambda: ga.AveragedModel,
    "EMA": lambda: ga.EMA,
    "Lookahead": lambda: ga.Lookahead,
    "torch": lambda: gpuadapt.torch.Adam([torch.ones(3)], average=Equal()),
}


@pytest.mark.parametrize("name", HINTS)
def test_hints(name):
    expected = "AveragedModel" if name == "torch" else "average=averages"
    with pytest.raises((ga.HyperparameterError, AttributeError), match=expected):
        HINTS[name]()


def test_the_mapping():
    optimizer = ga.Adam({"w": np.ones(3, F), "v": np.zeros(2, F)}, average=Equal())
    averages = optimizer.averages
    assert list(averages) == ["w", "v"] and len(averages) == 2 and averages.get("x") is None
    with pytest.raises(KeyError):
        averages["x"]
    averages["w"][...] = 7  # a new array each time
    assert (averages["w"] == 1).all()


def test_averages_are_not_converted():
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = ga.Adam({"w": np.ones(3, F)}, average=Equal())
    with pytest.raises(ga.StateError, match="averages of parameters are not converted"):
        ga.convert.from_torch(torch.optim.Adam([w]).state_dict(), optimizer)
