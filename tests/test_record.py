"""`Record`: its rows are those of `stats`, `last` and `effective_lr`; it changes no bit."""

import copy
import csv
import io
import json
import math
import pickle
import sys
from pathlib import Path

import hoststreams
import numpy as np
import pytest
from cases import KINDS
from conftest import installed
from formats_table import PAIRS, dtype, make
from test_same_bits import FILE, KEYS, of_formats

import gpuadapt as ga
from gpuadapt import record, sampling, stats
from gpuadapt.language import sq, where
from gpuadapt.optimizer import internals

RATES = dict(zip(record.RATES, stats.QUANTILES, strict=True))


def pair(make, backend, start):
    """Two optimizers of arrays with the same numbers."""
    return [make({name: backend.array(a) for name, a in start.items()}) for _ in range(2)]


def assert_like(row, found):
    """A row has the numbers of `Stats`, bit for bit."""
    rates = found.rates and dict(found.rates)
    ours = {share: row[name] for name, share in RATES.items()}
    assert repr((row["lost"], row["ratio"])) == repr(found[:2])
    assert ours == (rates or dict.fromkeys(stats.QUANTILES))


def gradients(random, dtype, rows=False):
    """Two gradients of a (30, 12) table: by rows with duplicates, or of all elements."""
    for _ in range(2):
        if rows:
            yield random.integers(0, 30, 9), random.normal(size=(9, 12)).astype(dtype)
        else:
            yield None, random.normal(size=(30, 12)).astype(dtype)


def given(backend, rows, values):
    values = backend.array(values)
    return values if rows is None else ga.RowGrad(backend.array(rows), values)


LOOK = {"all": 10**6, "some": 40}
"""Elements to look at of the 360."""


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case.name)
def test_rows_are_those_of_stats(case, backend):
    """Of a small parameter, for each kind of rule; by rows too."""
    start = {"w": np.random.default_rng(1).normal(size=(30, 12)).astype(np.float32)}
    for rows in (False, True):
        ours, theirs = pair(case.optimizer, backend, start)
        recorded = ga.Record(ours, every=1)
        for gradient in gradients(np.random.default_rng(2), np.float32, rows):
            ours.step({"w": given(backend, *gradient)})
            theirs.step({"w": given(backend, *gradient)}, stats=["w"])
            assert_like(recorded.rows[-1], theirs.stats("w"))


def quantiles(backend, optimizer, places):
    rates = backend.numpy(optimizer.effective_lr("w")).astype(np.float64).ravel()
    return np.quantile(rates[places], stats.QUANTILES).tolist()


@pytest.mark.parametrize(("parameter", "state"), PAIRS, ids=lambda one: getattr(one, "name", one))
def test_a_sample_is_what_it_would_be_of_these_elements_alone(parameter, state, backend):
    """In each format. Where elements do not depend on others, a step of the sample says so."""
    random = np.random.default_rng(3)
    w = random.normal(size=(30, 12)).astype(parameter.dtype)
    places = sampling.places("w", w.shape, sampling.Sampling(40, False))
    assert len(set(places.tolist())) == 40 and (np.diff(places) > 0).all()
    ours = make(ga.Adam, backend.array(w), parameter, state)
    alone = make(ga.Adam, backend.array(w.ravel()[places]), parameter, state)
    drawn = state != "float32" or "stochastic" in parameter.settings.values()
    recorded = ga.Record(ours, every=1, sample=40)
    for _, gradient in gradients(random, parameter.dtype):
        before = backend.numpy(ours.params["w"]).ravel()[places].astype(np.float64)
        ours.step({"w": backend.array(gradient)})
        row = recorded.rows[-1]
        assert [row[name] for name in RATES] == quantiles(backend, ours, places)
        assert (row["elements"], row["sampled"]) == (360, 40)
        if not drawn:
            alone.step({"w": backend.array(gradient.ravel()[places])}, stats=["w"])
            assert_like(row, alone.stats("w"))
        elif len(internals(ours).parameters["w"].companions) == 0:
            after = backend.numpy(ours.params["w"]).ravel()[places].astype(np.float64)
            norms = [np.sqrt(np.square(one).sum()) for one in (after - before, before)]
            assert row["ratio"] == norms[0] / norms[1]


@pytest.mark.parametrize("settings", [{}, {"state_dtype": "8bit"}, {"rowwise": True}])
def test_parameters_are_compared_together_as_each_alone(settings, backend):
    """Of several types, with counts of updates and groups of their own, by rows, and empty ones."""
    random = np.random.default_rng(10)
    start = {
        "a": random.normal(size=(20, 16)), "b": random.normal(size=(7, 16)),
        "c": random.normal(size=(20, 16)), "d": random.normal(size=(0, 16)),
        "e": random.normal(size=(5, 8)).astype(np.float64), "f": random.normal(size=(2, 8)),
    }  # fmt: skip
    start = {name: one if name == "e" else one.astype(np.float32) for name, one in start.items()}

    def made():
        params = {name: backend.array(one) for name, one in start.items()}
        last = {"params": {"f": params.pop("f")}, "lr": 0.5}
        return ga.Adam([{"params": params}, last], **settings)

    ours, theirs = made(), made()
    recorded = ga.Record(ours, every=1, sample=10**6)
    for step in range(3):
        grads = {
            name: backend.array(random.normal(size=one.shape).astype(one.dtype))
            for name, one in start.items()
        }
        if step == 1:
            grads["b"] = None
            rows = backend.array(np.array([3, 1, 3]))
            values = backend.array(random.normal(size=(3, 16)).astype(np.float32))
            grads["a"] = ga.RowGrad(rows, values)
        ours.step(grads)
        for name in start:  # one after the other
            alone = {key: grads[key] if key == name else None for key in grads}
            if grads[name] is not None:
                theirs.step(alone, stats=[name])
                (row,) = [row for row in recorded.rows if (row["step"], row["name"]) == (
                    step + 1, name)]  # fmt: skip
                assert_like(row, theirs.stats(name))


def test_the_sample_is_shared(backend):
    params = {
        str(k): backend.array(np.ones(n, np.float32)) for k, n in enumerate((5000, 900, 70, 9))
    }
    optimizer = ga.SGD(params, lr=0.5)
    recorded = [ga.Record(optimizer, every=1, sample=n) for n in (4000, 100)]
    recorded.append(ga.Record(optimizer, every=1, sample=100, names="0"))
    optimizer.step(
        {name: backend.array(np.ones(p.shape, np.float32)) for name, p in params.items()}
    )
    assert [[row["sampled"] for row in one.rows] for one in recorded] == [
        [1000, 900, 70, 9], [64, 64, 64, 9], [100],
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["C", "F", "gaps"])
def test_a_sample_of_any_strides(order, backend):
    random = np.random.default_rng(4)
    wide = random.normal(size=(30, 24)).astype(np.float32)
    w = {"C": wide, "F": np.asfortranarray(wide), "gaps": wide[:, ::2]}[order]
    places = sampling.places("w", w.shape, sampling.Sampling(40, False))
    ours = ga.Adam({"w": backend.array(w)})
    alone = ga.Adam({"w": backend.array(w.ravel()[places])})
    recorded = ga.Record(ours, every=1, sample=40)
    gradient = random.normal(size=w.shape).astype(np.float32)
    ours.step({"w": backend.array(gradient)})
    alone.step({"w": backend.array(gradient.ravel()[places])}, stats=["w"])
    assert_like(recorded.rows[-1], alone.stats("w"))
    assert [recorded.rows[-1][name] for name in RATES] == quantiles(backend, ours, places)


def test_whole_rows_are_taken_where_a_rule_takes_means_over_them(backend):
    random = np.random.default_rng(5)
    w, gradient = random.normal(size=(2, 30, 12)).astype(np.float32)
    places = sampling.places("w", w.shape, sampling.Sampling(40, True))
    assert places.shape == (3, 12) and (np.diff(places) == 1).all()
    rows = places[:, 0] // 12
    for sample in (40, 5):
        ours = ga.Adam({"w": backend.array(w)}, rowwise=True)
        recorded = ga.Record(ours, every=1, sample=sample)
        ours.step({"w": backend.array(gradient)})
        assert recorded.rows[0]["sampled"] == (36 if sample == 40 else 12)
        if sample == 40:
            alone = ga.Adam({"w": backend.array(w[rows])}, rowwise=True)
            alone.step({"w": backend.array(gradient[rows])}, stats=["w"])
            assert_like(recorded.rows[0], alone.stats("w"))


@pytest.mark.parametrize("settings", [{}, {"state_dtype": "8bit"}, {"rowwise": True}])
@pytest.mark.parametrize("sparse", ["lazy", "exact"])
def test_a_sample_of_rows_is_what_it_would_be_of_a_gradient_of_these_rows(
    sparse, settings, backend
):
    """With duplicates and with rows that catch up; 8 bits are rounded at random by element."""
    random = np.random.default_rng(6)
    w = random.normal(size=(50, 16)).astype(np.float32)
    ours, theirs = pair(lambda p: ga.Adam(p, sparse=sparse, **settings), backend, {"w": w})
    for step in range(12):
        rows, values = random.integers(0, 50, 7), random.normal(size=(7, 16)).astype(np.float32)
        if step == 11:
            recorded = ga.Record(ours, every=1, sample=32)
            chosen = np.unique(rows)[sampling.spread(len(set(rows)), 2, "w")]
            of_these = np.isin(rows, chosen)
            theirs.step({"w": given(backend, rows[of_these], values[of_these])}, stats=["w"])
        ours.step({"w": given(backend, rows, values)})
        if step < 11:
            theirs.step({"w": given(backend, rows, values)})
    assert recorded.rows[0]["sampled"] == 32 and recorded.rows[0]["elements"] == 800
    assert_like(recorded.rows[0], theirs.stats("w"))


SAME = {
    name: (compute, key)
    for name, (compute, key) in KEYS.items()
    if compute is of_formats
    or (key[2] == "float32" and key[1] in (KINDS if key[0] in ("rows", "exact") else KINDS[-1:]))
}
"""Of `test_same_bits` every format and traversal, and every kind of rule by rows."""


@pytest.mark.parametrize("name", SAME)
def test_recording_changes_no_bit(name, backend, monkeypatch):
    compute, key = SAME[name]
    records, construct = [], ga.Optimizer.__init__

    def recorded(self, *arguments, **settings):
        construct(self, *arguments, **settings)
        records.append(ga.Record(self, every=2, sample=30))

    monkeypatch.setattr(ga.Optimizer, "__init__", recorded)
    assert compute(backend, *key) == json.loads(FILE.read_text())[name]
    assert records[0].rows


@pytest.mark.parametrize("exactness", ["close", "bits"])
@pytest.mark.parametrize("settings", [{}, {"state_dtype": "bfloat16"}, {"rowwise": True}])
def test_rows_that_are_looked_at_catch_up_as_if_they_were_not(exactness, settings, backend):
    """In one go, when a step updates them: after a skipped step they are as far behind as before.

    In two goes they would have other bits.
    """
    w = np.random.default_rng(7).normal(size=(40, 16)).astype(np.float32)
    kept = {"sparse": "exact", "exactness": exactness, **settings}
    for dense in (False, True):  # the last gradients are of all rows
        ours, theirs = both = pair(lambda p: ga.Adam(p, **kept), backend, {"w": w})
        random = np.random.default_rng(8)
        for step in range(30):
            rows, values = random.integers(0, 40, 3), random.normal(size=(3, 16)).astype(np.float32)
            if dense and step > 27:
                rows, values = None, random.normal(size=(40, 16)).astype(np.float32)
            if step in (25, 28):
                values[0] = np.inf
            if step == 20:
                recorded = ga.Record(ours, every=1, sample=48)
            for one in both:
                one.step({"w": given(backend, rows, values)}, skip_nonfinite=True)
            lasts = [backend.numpy(internals(one).parameters["w"].history.last) for one in both]
            assert np.array_equal(*lasts)
            for name in theirs.state["w"]:
                assert np.array_equal(*(bits(backend, one.state["w"][name]) for one in both))
            assert np.array_equal(*(bits(backend, one.params["w"]) for one in both))
        assert dense or min(lasts[0]) < theirs.step_count
        assert [row["skipped"] for row in recorded.rows] == [
            step in (25, 28) for step in range(20, 30)
        ]


def test_all_rows_of_an_exact_table_are_those_of_dense_steps(backend):
    """Also of those that have to catch up to be looked at."""
    random = np.random.default_rng(11)
    w = backend.array(np.ones((20, 16), np.float32))
    exact = ga.Adam({"w": w}, sparse="exact", exactness="bits")
    whole = ga.Adam({"w": backend.array(np.ones((20, 16), np.float32))})
    for _ in range(8):
        rows, values = random.permutation(20)[:3], random.normal(size=(3, 16)).astype(np.float32)
        dense = np.zeros((20, 16), np.float32)
        dense[rows] = values
        whole.step({"w": backend.array(dense)})
        exact.step({"w": given(backend, rows, values)})
    recorded = ga.Record(exact, every=1, sample=10**6)
    values = random.normal(size=(20, 16)).astype(np.float32)
    exact.step({"w": backend.array(values)})
    whole.step({"w": backend.array(values)}, stats=["w"])
    assert_like(recorded.rows[0], whole.stats("w"))


@ga.rule
def of_large_rows(p, g, v, h):
    v = sq(g)
    return p - h.lr * where(v > h.threshold, g, 0 * g), v


def test_means_are_over_the_rows_of_each_parameter(backend):
    """Updates of 2^-10 are lost beside 1, and none is made in rows of small gradients."""
    row = np.array([4.0] * 4 + [2.0**-10] * 12, np.float32)
    gradient = np.array([row, row / 64, row])
    params = {name: backend.array(np.ones((3, 16), dtype("bfloat16"))) for name in "ab"}
    optimizer = ga.Optimizer(of_large_rows, params, lr=1.0, threshold=0.5, rowwise=True)
    recorded = ga.Record(optimizer, every=1)
    optimizer.step({name: backend.array(gradient) for name in "ab"})
    assert [row["lost"] for row in recorded.rows] == [0.75, 0.75]


def bits(backend, array):
    found = backend.numpy(array)
    return found.view(f"u{found.itemsize}")


def training(backend, every=2, steps=4, groups=False, record_options=(), **settings):
    """An optimizer of two arrays that is recorded, after some steps; the record."""
    params = {"w": backend.array(np.ones((3, 4), np.float32))}
    other = {"b": backend.array(np.full(5, 2, np.float32))}
    given = [{"params": params}, {"params": other, "lr": 0.5}] if groups else params | other
    optimizer = ga.SGD(given, **{"lr": lambda step: 1 / (1 + step), **settings})
    recorded = ga.Record(optimizer, every=every, **dict(record_options))
    for _ in range(steps):
        optimizer.step(gradient_of(backend))
    return optimizer, recorded


def gradient_of(backend, value=0.25):
    return {
        "w": backend.array(np.full((3, 4), value, np.float32)),
        "b": backend.array(np.full(5, value, np.float32)),
    }


NORM = math.sqrt(17 * 0.25**2)


def test_the_columns(backend):
    optimizer, recorded = training(backend)
    assert [(row["step"], row["name"]) for row in recorded.rows] == [
        (2, "w"), (2, "b"), (4, "w"), (4, "b"),
    ]  # fmt: skip
    row = recorded.rows[2]
    assert set(row) == record.COLUMNS | {"lr"}
    assert {type(value) for row in recorded.rows for value in row.values()} == {
        int, float, str, bool,
    }  # fmt: skip
    assert row["lr"] == row["rate_50"] == 0.25 and row["scale"] == row["clip_factor"] == 1.0
    assert row["grad_norm"] == pytest.approx(NORM) and row["skipped"] is False
    assert row["elements"] == row["sampled"] == 12 and row["lost"] == 0.0
    optimizer.step({"w": None, "b": None})
    optimizer.step({"w": gradient_of(backend)["w"], "b": None})
    assert [row["name"] for row in recorded.rows[4:]] == ["w"]


def test_hyperparameters_are_those_of_the_group_at_the_step(backend):
    _, recorded = training(backend, groups=True)
    assert [(row["name"], row["lr"]) for row in recorded.rows] == [
        ("w", 0.5), ("b", 0.5), ("w", 0.25), ("b", 0.5),
    ]  # fmt: skip


@ga.rule
def scaled(p, g, h):
    return p - h.scale * g


def test_a_hyperparameter_with_the_name_of_a_column():
    optimizer = ga.Optimizer(scaled, {"w": np.ones(3)}, scale=0.5)
    recorded = ga.Record(optimizer, every=1)
    optimizer.step({"w": np.ones(3)}, grad_scale=4.0)
    assert recorded.rows[0]["scale"] == 4.0 and recorded.rows[0]["h.scale"] == 0.5
    assert recorded.rows[0]["rate_50"] is None


def test_scale_norm_clip_factor_and_skipped_steps(backend):
    """As `last` has them, with a `LossScale`, its multiple, and a float."""
    optimizer, recorded = training(backend, every=1, steps=0)
    scale = ga.LossScale(8.0)
    optimizer.step(gradient_of(backend, 2.0), grad_scale=scale, max_norm=0.5)
    assert recorded.rows[-1]["scale"] == 8.0 and recorded.rows[-1]["step"] == 1
    assert recorded.rows[-1]["grad_norm"] == pytest.approx(NORM)
    assert recorded.rows[-1]["clip_factor"] == optimizer.last.clip_factor < 1
    float(scale)
    optimizer.step(gradient_of(backend, np.inf), grad_scale=2 * scale)
    skipped = recorded.rows[-1]
    assert skipped["skipped"] is True and skipped["step"] == 2 and optimizer.step_count == 1
    assert (skipped["lost"], skipped["ratio"], skipped["rate_50"]) == (None, None, None)
    assert skipped["lr"] == 0.5 and skipped["scale"] == 8.0
    float(scale)
    optimizer.step(gradient_of(backend, 1.0), grad_scale=scale)
    assert (recorded.rows[-1]["step"], recorded.rows[-1]["scale"]) == (2, 4.0)
    optimizer.step(gradient_of(backend), grad_scale=3.0)
    assert recorded.rows[-1]["scale"] == 3.0 and optimizer.last.grad_norm is not None
    assert float(scale) == 4.0


def test_a_scale_is_as_without_a_record(backend):
    found = []
    for every in (1, 10**9):
        optimizer, _ = training(backend, every=every, steps=0)
        scale = ga.LossScale(8.0, growth=4.0, interval=2)
        for step in range(9):
            optimizer.step(gradient_of(backend, np.inf if step == 3 else 1.0), grad_scale=scale)
            if step % 2:
                assert float(scale) > 0  # which adapts the scale on the CPU
        found.append((scale.state_dict(), bits(backend, optimizer.params["w"]).tolist()))
    assert found[0] == found[1]


def test_steps_that_are_not_recorded_wait_for_nothing(host, monkeypatch):
    """Also while the GPU alone knows how many steps it has skipped."""
    optimizer, recorded = training(host, every=50, steps=3)
    waits = []
    device = hoststreams.Device
    synchronize = device.synchronize
    monkeypatch.setattr(device, "synchronize", lambda self: (waits.append(1), synchronize(self)))
    monkeypatch.setattr(type(optimizer.params["w"]), "get", lambda self: waits.append(2))
    gradient = gradient_of(host)
    for _ in range(40):
        optimizer.step(gradient, skip_nonfinite=True)
    assert not waits and not recorded.rows
    monkeypatch.undo()
    for _ in range(7):
        optimizer.step(gradient, skip_nonfinite=True)
    assert [row["step"] for row in recorded.rows] == [50, 50]


def test_every_multiple_is_recorded_once_where_a_gpu_skips_steps(backend):
    optimizer, recorded = training(backend, every=4, steps=0)
    random = np.random.default_rng(9)
    for _ in range(60):
        value = np.inf if random.random() < 0.4 else 1.0
        optimizer.step(gradient_of(backend, value), skip_nonfinite=True)
    taken = [row["step"] for row in recorded.rows if row["name"] == "w" and not row["skipped"]]
    assert taken == [*range(4, optimizer.step_count + 1, 4)] and len(taken) > 5


def test_sinks_get_each_number_with_its_step():
    """By the signatures of `SummaryWriter.add_scalar` and `wandb.log`."""
    scalars, logged = [], []

    class SummaryWriter:
        def add_scalar(self, tag, scalar_value, global_step=None, walltime=None, new_style=False):
            scalars.append((tag, scalar_value, global_step))

    def log(data, step=None, commit=None):
        logged.append((data, step))

    with installed("cpu") as backend:
        sinks = {"add_scalar": SummaryWriter().add_scalar, "log": log}
        _, recorded = training(backend, record_options=sinks)
        training(backend, groups=True, record_options={"log": log})
    assert [step for _, step in logged[:2]] == [2, 4]
    data = logged[1][0]
    assert [(tag, value, 4) for tag, value in data.items()] == scalars[len(scalars) // 2 :]
    columns = ("lost", "ratio", *RATES)
    wanted = {f"{row['name']}/{key}": row[key] for row in recorded.rows[2:] for key in columns}
    row = recorded.rows[2]
    assert data == wanted | {"lr": 0.25, "grad_norm": row["grad_norm"], "clip_factor": 1.0,
                             "skipped": 0.0, "scale": 1.0}  # fmt: skip
    assert {type(value) for value in data.values()} == {float}
    assert logged[-1][0]["group 0/lr"] == 0.25 and logged[-1][0]["group 1/lr"] == 0.5


@pytest.mark.parametrize("sink", ["add_scalar", "log"])
def test_what_a_sink_raises_is_a_warning_and_the_step_is_taken(sink, backend):
    calls = []

    def broken(*given, **named):
        calls.append(given)
        raise OSError("no network")

    optimizer, recorded = training(backend, every=1, steps=0, record_options={sink: broken})
    gradient = gradient_of(backend)
    with pytest.warns(
        ga.RecordWarning, match=rf"{sink} raised OSError\('no network'\). Step 1 has"
    ) as told:
        optimizer.step(gradient)
    assert told[0].filename == __file__
    assert optimizer.step_count == 1 and len(recorded.rows) == 2 and len(calls) == 1
    with pytest.warns(ga.RecordWarning):
        optimizer.step(gradient)
    assert [row["step"] for row in recorded.rows] == [1, 1, 2, 2] and len(calls) == 2


def test_a_step_that_raises_is_not_recorded(backend):
    optimizer, recorded = training(backend, every=1, steps=1)
    before = bits(backend, optimizer.params["w"]).tolist()
    with pytest.raises(ga.GradientError):
        optimizer.step({"w": gradient_of(backend)["w"], "b": gradient_of(backend)["w"]})
    assert bits(backend, optimizer.params["w"]).tolist() == before and len(recorded.rows) == 2


def test_closing_and_several_records(backend):
    optimizer, first = training(backend, every=2, steps=1, record_options={"names": "w"})
    with ga.Record(optimizer, every=3, names=["b", "w"]) as second:
        for _ in range(5):
            optimizer.step(gradient_of(backend))
    first.close()
    first.close()
    for _ in range(6):
        optimizer.step(gradient_of(backend))
    assert [(row["step"], row["name"]) for row in first.rows] == [(2, "w"), (4, "w"), (6, "w")]
    assert [(row["step"], row["name"]) for row in second.rows] == [
        (3, "b"), (3, "w"), (6, "b"), (6, "w"),
    ]  # fmt: skip
    assert optimizer._hooks is None
    assert repr(first) == f"Record(every=2, sample={record.SAMPLE}, 3 rows)"


def test_copies_are_not_recorded_and_go_on_with_the_same_bits(backend):
    optimizer, recorded = training(backend, every=1, steps=1, lr=0.125)
    others = [copy.deepcopy(optimizer)]
    if backend.name == "cpu":
        others.append(pickle.loads(pickle.dumps(optimizer)))
    for one in (optimizer, *others):
        one.step(gradient_of(backend))
    assert [row["step"] for row in recorded.rows] == [1, 1, 2, 2]
    for one in others:
        assert one._hooks is None
        assert (
            bits(backend, one.params["w"]).tolist() == bits(backend, optimizer.params["w"]).tolist()
        )
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(ga.StateError, match="a Record cannot be copied or pickled, but its"):
            copying(recorded)


def test_parameters_that_are_added_and_tables_that_grow(backend):
    optimizer, recorded = training(backend, every=1, steps=0)
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.add({"new": backend.array(np.ones(3, np.float32))})
    optimizer.grow("w", backend.array(np.ones((5, 4), np.float32)))
    optimizer.step({"w": backend.array(np.ones((5, 4), np.float32)), "b": None,
                    "new": backend.array(np.ones(3, np.float32))})  # fmt: skip
    assert [(row["name"], row["elements"]) for row in recorded.rows] == [("w", 20), ("new", 3)]


def test_arrays_of_torch():
    torch = pytest.importorskip("torch")
    w = torch.ones(1000, 3)
    optimizer = ga.Adam({"w": w})
    recorded = ga.Record(optimizer, every=1, sample=50)
    optimizer.step({"w": torch.full((1000, 3), 0.5)})
    assert recorded.rows[0]["sampled"] == 50
    assert recorded.rows[0]["ratio"] == pytest.approx(1e-3, rel=1e-3)


def test_an_optimizer_goes_with_its_records(backend):
    """The last reference to it ends it, without the garbage collector."""
    import gc
    import weakref

    optimizer, recorded = training(backend)
    gone = weakref.ref(optimizer)
    gc.collect()
    gc.disable()
    try:
        del optimizer
        assert gone() is None
    finally:
        gc.enable()
    recorded.close()
    assert recorded.rows


def test_files_are_read_back_as_they_were(tmp_path):
    optimizer = ga.Adam({"w": np.zeros((2, 2)), "b": np.ones(3, np.float32)})
    recorded = ga.Record(optimizer, every=1)
    for value in (1.0, np.inf):
        gradient = {"w": np.full((2, 2), value), "b": np.ones(3, np.float32)}
        optimizer.step(gradient, skip_nonfinite=True)
    assert math.isnan(recorded.rows[0]["ratio"]) and recorded.rows[2]["grad_norm"] == math.inf
    for target in (tmp_path / "rows.csv", io.StringIO(), str(tmp_path / "again.csv")):
        recorded.to_csv(target)
        text = target.getvalue() if hasattr(target, "getvalue") else Path(target).read_text()
        found = list(csv.DictReader(io.StringIO(text)))
        assert [list(row) for row in found] == [list(row) for row in recorded.rows]
        for row, ours in zip(found, recorded.rows, strict=True):
            for name, value in ours.items():
                assert row[name] == ("" if value is None else str(value))
    for target in (tmp_path / "rows.json", io.StringIO()):
        recorded.to_json(target)
        text = target.getvalue() if hasattr(target, "getvalue") else target.read_text()
        found = json.loads(text, parse_constant=lambda _: pytest.fail("not JSON"))
        for row, ours in zip(found, recorded.rows, strict=True):
            finite = {k: v for k, v in ours.items() if not isinstance(v, float) or math.isfinite(v)}
            assert row == dict.fromkeys(ours) | finite
    empty = io.StringIO()
    ga.Record(optimizer).to_json(empty)
    assert json.loads(empty.getvalue()) == []
    with pytest.raises(ga.NotWrittenError):
        recorded.to_csv(tmp_path / "no such folder" / "rows.csv")
    with pytest.raises(ga.CheckpointError, match="path: got 3"):
        recorded.to_json(3)


def test_a_frame_has_a_line_for_each_row(monkeypatch):
    with installed("cpu") as backend:
        _, recorded = training(backend)

    class Pandas:
        DataFrame = staticmethod(lambda rows: ("frame", rows))

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    assert recorded.to_frame() == ("frame", recorded.rows)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ga.PackageError, match="to_frame: pandas is not installed; pip install pan"):
        recorded.to_frame()
    assert issubclass(ga.PackageError, ImportError)


def test_a_picture_has_the_numbers_of_the_rows(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    with installed("cpu") as backend:
        _, recorded = training(backend)
    before = "matplotlib.pyplot" in sys.modules
    figure = recorded.plot()
    assert ("matplotlib.pyplot" in sys.modules) == before
    rates, ratio, lost, norm = figure.axes
    assert [line.get_label() for line in rates.lines] == ["w", "b"]
    for axis, column, factor in ((rates, "rate_50", 1), (ratio, "ratio", 1), (lost, "lost", 100)):
        for line, name in zip(axis.lines, "wb", strict=True):
            own = [row for row in recorded.rows if row["name"] == name]
            wanted = [(row["step"], factor * row[column]) for row in own]
            assert line.get_xydata().tolist() == [[*map(float, point)] for point in wanted]
    assert norm.lines[0].get_ydata().tolist() == [row["grad_norm"] for row in recorded.rows[::2]]
    figure.savefig(tmp_path / "rates.png")
    assert [line.get_label() for line in recorded.plot("b").axes[0].lines] == ["b"]
    with pytest.raises(ga.StateError, match="plot: nothing has been recorded yet"):
        recorded.plot(["c"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ga.PackageError, match="plot: matplotlib is not installed; pip install"):
        recorded.plot()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"every": 0}, ga.HyperparameterError, "every: got 0, expected a whole number from 1"),
        ({"every": 1.5}, ga.HyperparameterError, "every: got 1.5, expected a whole number"),
        ({"sample": True}, ga.HyperparameterError, "sample: got True, expected a whole number"),
        ({"names": []}, ga.ParameterError, "names: got none, expected names of parameters"),
        ({"names": "v"}, ga.ParameterError, "no parameter 'v'; there are w"),
        ({"log": 3}, ga.HyperparameterError, "log: got int, expected a function"),
    ],
)
def test_what_is_refused(given, error, text):
    optimizer = ga.Adam({"w": np.ones(3)})
    with pytest.raises(error, match=text):
        ga.Record(optimizer, **given)
    assert optimizer._hooks is None


def test_other_optimizers_are_refused():
    with pytest.raises(ga.BackendError, match="Record: got float, expected an optimizer of gpuada"):
        ga.Record(3.0)
    torch = pytest.importorskip("torch")
    from gpuadapt import torch as ours

    with pytest.raises(
        ga.BackendError, match=r"for one of gpuadapt\.torch register_step_post_hook"
    ):
        ga.Record(ours.Adam([torch.ones(3, requires_grad=True)]))


def test_captured_steps_are_not_recorded(host):
    optimizer, recorded = training(host)
    with pytest.raises(ga.CaptureError, match="capturable: a Record waits for the GPU; close it"):
        optimizer.capturable = True
    recorded.close()
    optimizer.capturable = True
    with pytest.raises(ga.CaptureError, match="Record: it waits for the GPU; set `capturable` to"):
        ga.Record(optimizer)
