"""Exact rows: what dense steps do, at the cost of the rows that occur."""

import copy
import itertools
import math
import pickle
from functools import partial

import hostcupy
import lazy
import numba
import numpy as np
import pytest
from cases import CASES
from conftest import installed
from formats_table import Kept
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bits import assert_same_bits

import gpuadapt as ga
from gpuadapt.group import coefficients
from gpuadapt.kernels.catchup import plan
from gpuadapt.kernels.catchup.plan import catch_up_plan, ignores_zero_gradients
from gpuadapt.optimizer import internals
from gpuadapt.oracle import evaluate


def case(name):
    return next(case for case in CASES if case.name == name)


METHODS = {
    **{name: case(name).optimizer for name in ("momentum", "adagrad", "rmsprop", "adadelta")},
    **{name: case(name).optimizer for name in ("adam", "adamw", "amsgrad")},
    "adam, row-wise": lambda params, **more: case("adam").optimizer(params, rowwise=True, **more),
}
CLOSED_FORMS = ["momentum", "rmsprop", "adam", "adamw", "adam, row-wise"]
"""Adadelta is as RMSprop here: nothing moves the parameter, and states fade."""

BY_CUDA_TEXT = ("rmsprop", "adadelta")
"""Replayed bit for bit by one backend: a CPU kernel takes seconds to compile, and a replay knows
of a rule only that it is called."""

RATES = {
    "constant": 0.01,
    "warm-up": lambda step: 0.02 * min(1, (step + 1) / 20),
    "falling": lambda step: 0.02 / (1 + step),
    "jumping": lambda step: [0.0, 1e-4, 0.3][step % 3],
}


def arrays(optimizer, backend, name="table"):
    """A parameter and its states, as NumPy arrays."""
    kept = optimizer.state[name].values()
    return [backend.numpy(a) for a in (optimizer.params[name], *kept)]


def dense(shape, rows, values, how="sum"):
    gradient = np.zeros(shape, values.dtype)
    for row, total in lazy.merged(rows, values, how).items():
        gradient[row] = total
    return gradient


@st.composite
def runs(draw):
    """A table, the batches of some steps (None for no gradient), and a rate."""
    count, width = draw(st.integers(1, 9)), draw(st.sampled_from([1, 3, 4, 40, 130]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.sampled_from([None, 0, 1, 2, 5]), min_size=1, max_size=20))
    batches = []
    for n in sizes:
        scale = 10.0 ** draw(st.integers(-7, 3))
        rows = random.integers(count, size=n or 0)
        values = (scale * random.normal(size=(n or 0, width))).astype(np.float32)
        batches.append(None if n is None else (rows, values))
    table = (10.0 ** draw(st.integers(-4, 1)) * random.normal(size=(count, width))).astype("f4")
    return table, batches, RATES[draw(st.sampled_from(list(RATES)))], random


def take(optimizer, backend, batch):
    gradient = batch and ga.RowGrad(*map(backend.array, batch))
    optimizer.step({"table": gradient})


@pytest.mark.parametrize("name", METHODS)
@given(run=runs())
@settings(max_examples=25)
def test_bits_are_those_of_dense_steps(name, run):
    """On both backends, whatever is read between; a method of no momentum needs no replay."""
    table, batches, lr, random = run
    whole = table.copy()
    by_dense = METHODS[name]({"table": whole}, lr=lr)
    with installed("cpu") as cpu:
        for batch in batches:
            by_dense.step({"table": batch and dense(table.shape, *batch)})
        expected = arrays(by_dense, cpu)
    for where in ("host",) if name in BY_CUDA_TEXT else ("cpu", "host"):
        with installed(where) as backend:
            ours = backend.array(table)
            optimizer = METHODS[name]({"table": ours}, lr=lr, sparse="exact", exactness="bits")
            for batch in batches:
                take(optimizer, backend, batch)
                if random.random() < 0.3:
                    optimizer.read("table", backend.array(random.integers(len(table), size=4)))
            optimizer.flush()
            for a, b in zip(arrays(optimizer, backend), expected, strict=True):
                assert_same_bits(a, b, name=name, backend=where)


@pytest.mark.parametrize("name", CLOSED_FORMS)
@given(run=runs())
@settings(max_examples=25)
def test_closed_forms_are_the_same_on_both_backends(name, run):
    table, batches, lr, random = run
    at = [random.integers(len(table), size=3) if random.random() < 0.3 else None for _ in batches]
    found = []
    for where in ("cpu", "host"):
        with installed(where) as backend:
            ours = backend.array(table)
            optimizer = METHODS[name]({"table": ours}, lr=lr, sparse="exact")
            rows = []
            for batch, read in zip(batches, at, strict=True):
                take(optimizer, backend, batch)
                if read is not None:
                    rows.append(backend.numpy(optimizer.read("table", backend.array(read))))
            optimizer.flush()
            found.append([*arrays(optimizer, backend), *rows])
    for a, b in zip(*found, strict=True):
        assert_same_bits(a, b, name=name)


EVERY_OPTION = {
    "weight_decay": 0.1, "decay": "decoupled", "maximize": True, "max_row_norm": 0.5, "eps": 0.01,
}  # fmt: skip


def test_closed_forms_with_every_option_are_the_same_on_both_backends():
    """Options of the optimizer and of the step, rows that are away for 1 to 40 steps."""
    found = []
    for where in ("cpu", "host"):
        with installed(where) as backend:
            random = np.random.default_rng(11)
            ours = backend.array(random.normal(size=(12, 40)).astype(np.float32))
            optimizer = ga.Adam({"table": ours}, lr=0.01, sparse="exact", **EVERY_OPTION)
            for step in range(1, 81):
                rows = np.flatnonzero(step % np.arange(1, 49, 4) == 0)
                values = random.normal(size=(len(rows), 40)).astype(np.float32)
                gradient = ga.RowGrad(backend.array(rows), backend.array(values))
                scales = {"grad_scale": 4.0, "max_norm": 0.7, "clip_value": 0.1}
                optimizer.step({"table": gradient}, **scales)
            assert internals(optimizer).parameters["table"].history.plan is not None
            optimizer.flush()
            found.append(arrays(optimizer, backend))
    for a, b in zip(*found, strict=True):
        assert_same_bits(a, b)


ULPS = 4


def ulps(a, b, largest):
    """How far apart numbers are, in units of the last place of others; subnormal ones are 0.

    So are those of which rounding decides whether they are.
    """
    smallest = np.finfo(a.dtype).tiny
    unit = np.spacing(np.maximum(largest, smallest))
    apart = np.abs(a.astype(np.float64) - b) / unit
    return apart[np.maximum(np.abs(a), np.abs(b)) >= 1.001 * float(smallest)].max(initial=0)


SCHEDULES = {
    "constant": lambda step: 1.0,
    "warm-up from 0": lambda step: min(1, step / 20),
    "0 at one step": lambda step: float(step != 30),
    "0 for a while": lambda step: float(not 25 <= step < 60),
    "down to 0": lambda step: max(0.0, 1 - step / 50),
    "through 0 and back": lambda step: abs(step % 14 - 7) / 7,
    "jumping": lambda step: [0.0, 1e-4, 30.0][step % 3],
    "growing": lambda step: 1e-6 * 1.3 ** min(step, 50),
    "late": lambda step: 1e-8 if step < 90 else 1.0,
}

OTHERS = {
    "beta2": lambda step: 1 - (step + 2) ** -0.8,
    "beta1": lambda step: 0.0 if step % 9 == 4 else 0.8,
    "eps": lambda step: 0.1 * 0.9**step,
    "momentum": lambda step: 0.9 if step % 20 else 0.0,
    "weight_decay": lambda step: 0.1 * (step % 3),
}
"""Schedules of what else rules read."""


@ga.rule
def erratic(p, g, b, c, h):
    """Every number of the step at its worst: states that grow, a change of sign, of form."""
    b = h.fade * b + g
    c = 0.9 * c + sq(g)  # noqa: F821
    rate = where(h.t > 40, h.lr / (sqrt(c) + h.eps), h.turn * h.lr)  # noqa: F821
    return (p - rate * b) * h.scale, b, c


ERRATIC = {
    "fade": lambda step: 1.1 if step % 25 == 7 else 0.8,
    "eps": lambda step: 1e-3 if step % 2 else 1e-5,
    "turn": lambda step: -1.0 if step % 30 > 20 else 1.0,
    "scale": lambda step: 3.0 if step == 70 else 0.99,
}

FAR = {
    "sgd+l2+max": "cpu", "momentum": "cpu", "adam": "cpu", "adamw": "cpu",
    "radam-uncorrected": "host", "velocity": "host", "adam-inside": "host", "erratic": "host",
}  # fmt: skip
"""Methods with a closed form, each by one backend, which has the bits of both. The CPU's kernels
are those that other tests compile, and that of a rule without states."""

BY_CUDA = ("warm-up from 0", "jumping", "late", "beta2")
"""Those whose runs a slow backend takes."""


@pytest.mark.parametrize("name", FAR)
def test_no_farther_from_float64_than_dense_steps_are(name):
    """By more than 4 units, whatever the schedule and however long rows have missed steps.

    Units are those of the last place of the largest that an element has been on the way; for
    states, which are as near to dense ones as their rounding in each step allows, of the terms that
    they are the sums of.
    """
    settings_, make = {}, partial(ga.Optimizer, erratic, **dict.fromkeys(ERRATIC, 1.0))
    if name == "erratic":
        settings_ = ERRATIC
    else:
        make = case(name).optimizer
    for schedule in [*SCHEDULES, *OTHERS]:
        given_ = settings_ | {"lr": lambda step, of=schedule: 0.01 * SCHEDULES[of](step)}
        if schedule in OTHERS:
            given_ = settings_ | {schedule: OTHERS[schedule]}
        if FAR[name] == "host" and schedule not in BY_CUDA:
            continue
        steps = 1150 if schedule == "constant" else 120
        with installed(FAR[name]) as backend:
            compare_to_float64(make, backend, given_, steps, (name, FAR[name], schedule))


def compare_to_float64(make, backend, changes, steps, which):
    """Rows have gradients of all magnitudes, now and then: each in every so many steps."""
    random = np.random.default_rng(7)
    often = np.array([1, 4, 7, 12, 33, 34, 39, 60, 75, 110, steps, steps])
    table = random.normal(size=(len(often), 5)).astype(np.float32)
    table *= 10.0 ** random.integers(-3, 2, size=(len(often), 1))
    table[-1] = 0
    ours = backend.array(table)
    optimizer = make({"table": ours}, lr=0.01, sparse="exact")
    group, (settings_,) = internals(optimizer).groups[0], optimizer.param_groups
    if not set(changes) <= set(settings_):
        return
    settings_.update(changes)
    narrow = [table, *(backend.numpy(a) for a in optimizer.state["table"].values())]
    wide = [a.astype(np.float64) for a in narrow]
    largest, terms = np.abs(wide[0]), [np.abs(state) for state in wide[1:]]
    for step in range(steps):
        rows = np.flatnonzero(step % often == 0)
        scales = 10.0 ** random.integers(-20, 4, size=(len(rows), 1))
        values = (scales * random.normal(size=(len(rows), 5))).astype(np.float32)
        take(optimizer, backend, (rows, values))
        now = group.prepare(step)
        numbers = coefficients(now.rule, now.values, step + 1, group.largest_value)
        gradient = dense(table.shape, rows, values)
        narrow = evaluate(group.rule, [narrow[0], gradient, *narrow[1:]], numbers)
        wide = evaluate(group.rule, [wide[0], gradient.astype(float), *wide[1:]], numbers)
        largest = np.maximum(largest, np.abs(wide[0]))
        # The sizes of the terms of which a state is the sum, whatever their signs are.
        signs = [sign * np.abs(gradient).astype(float) for sign in (1, -1)]
        sums = [evaluate(group.rule, [wide[0], g, *terms], numbers)[1:] for g in signs]
        terms = [np.maximum(*map(np.abs, pair)) for pair in zip(*sums, strict=True)]
    optimizer.flush()
    close, *states = arrays(optimizer, backend)
    assert not np.isnan(close).any(), which
    units = np.spacing(np.maximum(largest, np.finfo(np.float32).tiny).astype(np.float32))
    far, whole = (np.abs(a.astype(float) - wide[0]) / units for a in (close, narrow[0]))
    assert (far.max(axis=1) <= whole.max(axis=1) + ULPS).all(), which
    for a, b, size in zip(states, narrow[1:], terms, strict=True):
        assert ulps(a, b, size.astype(np.float32)) <= steps / 2 + 1, which


def test_a_run_is_closer_than_dense_steps_are():
    """300 steps of Adam, each row in 3 % of them: a sum is rounded once, not in every step."""
    random = np.random.default_rng(0)
    start = random.normal(size=(100, 16)).astype(np.float32)
    exact, whole, wide = start.copy(), start.copy(), start.astype(np.float64)
    by_rows = ga.Adam({"table": exact}, lr=1e-3, sparse="exact")
    others = [ga.Adam({"table": table}, lr=float(np.float32(1e-3))) for table in (whole, wide)]
    for _ in range(300):
        rows = np.flatnonzero(random.random(100) < 0.03)
        values = random.normal(size=(len(rows), 16)).astype(np.float32)
        by_rows.step({"table": ga.RowGrad(rows, values)})
        gradient = dense(start.shape, rows, values)
        for one in others:
            one.step({"table": gradient.astype(internals(one).parameters["table"].compute_dtype)})
    by_rows.flush()
    units = np.spacing(np.maximum(np.abs(start), np.abs(whole)))
    ours, theirs = (np.abs(table - wide) / units for table in (exact, whole))
    assert ours.max() < theirs.max()
    for share in (0.5, 0.9, 0.99):
        assert np.quantile(ours, share) < np.quantile(theirs, share) / 2


def in_other_formats(make, kept, backend, rows, steps, share, exactness="close", **given_):
    """By rows and by dense steps: two optimizers of a table of 20 columns."""
    random = np.random.default_rng(3)
    table = random.normal(size=(rows, 20)).astype(kept.dtype)
    given_ |= kept.settings
    exact = {"sparse": "exact", "exactness": exactness}
    by_rows = make({"table": backend.array(table)}, **exact, **given_)
    by_dense = make({"table": backend.array(table)}, **given_)
    for _ in range(steps):
        taken = np.flatnonzero(random.random(rows) < share)
        values = random.normal(size=(len(taken), 20)).astype(kept.dtype)
        take(by_rows, backend, (taken, values))
        by_dense.step({"table": backend.array(dense(table.shape, taken, values))})
    return by_rows, by_dense


def assert_same_saved(exact, whole, backend):
    """All bits that a save has, those of companions and 8-bit codes too."""
    exact.flush()
    for letter, a in internals(exact).parameters["table"].saved_arrays.items():
        b = internals(whole).parameters["table"].saved_arrays[letter]
        assert_same_bits(backend.numpy(a), backend.numpy(b), letter=letter)
    assert_same_bits(*(backend.numpy(one.params["table"]) for one in (exact, whole)))


@pytest.mark.parametrize(
    ("parameter", "state", "backend"),
    [
        ("bfloat16", "bfloat16", "cpu"),
        ("bfloat16", "bfloat16", "host"),
        ("float32", "8bit", "host"),
    ],
    indirect=["backend"],
)
def test_of_other_formats_with_their_random_bits(parameter, state, backend):
    """Equal to dense steps of the same formats: random bits go by the step that was missed.

    Blocks of 8 bits by their CUDA text alone: on the CPU they take half a minute to compile.
    """
    kept = Kept(parameter, {"rounding": "stochastic"} if parameter == "bfloat16" else {})
    form = {"lr": 0.01, "state_dtype": state}
    exact, whole = in_other_formats(ga.Adam, kept, backend, 20, 25, 0.2, **form)
    found = (backend.numpy(one.params["table"]) for one in (exact, whole))
    assert not np.array_equal(*found)
    assert_same_saved(exact, whole, backend)


@pytest.mark.parametrize(
    ("make", "dtype", "form", "backend"),
    [
        (ga.SGD, "bfloat16", {"rounding": "kahan"}, "cpu"),
        (ga.SGD, "float16", {"rounding": "kahan"}, "host"),
        (ga.Adagrad, "float32", {"state_dtype": "8bit"}, "host"),
    ],
    indirect=["backend"],
)
def test_numbers_that_a_step_without_a_gradient_writes_in_another_way(make, dtype, form, backend):
    """The rule changes nothing, and still these formats have other bits after a dense step."""
    kept = Kept(dtype, form)
    exact, whole = in_other_formats(make, kept, backend, 200, 12, 0.3, "bits", lr=0.1)
    assert_same_saved(exact, whole, backend)


def test_float64_is_replayed(host):
    """What a closed form computes in float32 would not do."""
    random = np.random.default_rng(2)
    table = random.normal(size=(12, 5))
    exact, whole = host.array(table), host.array(table)
    by_rows = METHODS["adam"]({"table": exact}, sparse="exact")
    by_dense = METHODS["adam"]({"table": whole})
    for _ in range(30):
        rows = np.flatnonzero(random.random(12) < 0.1)
        values = random.normal(size=(len(rows), 5))
        take(by_rows, host, (rows, values))
        by_dense.step({"table": host.array(dense(table.shape, rows, values))})
    assert_alike(by_rows, by_dense, host)


def test_more_steps_than_are_remembered(backend, monkeypatch):
    """Each step brings some rows up to date: none is left behind, and dense bits stay."""
    monkeypatch.setattr(plan, "MIN_LENGTH", 8)
    random = np.random.default_rng(4)
    for exactness in ("bits", "close"):
        table = random.normal(size=(31, 4)).astype(np.float32)
        exact, whole = backend.array(table), backend.array(table)
        settings_ = {"sparse": "exact", "exactness": exactness}
        by_rows = METHODS["adam"]({"table": exact}, **settings_)
        by_dense = METHODS["adam"]({"table": whole})
        for _ in range(50):
            rows = random.integers(5, size=2)
            values = random.normal(size=(2, 4)).astype(np.float32)
            take(by_rows, backend, (rows, values))
            by_dense.step({"table": backend.array(dense(table.shape, rows, values))})
        history = internals(by_rows).parameters["table"].history
        assert backend.numpy(history.last).min() > 50 - 8
        by_rows.flush()
        if exactness == "bits":
            assert_same_bits(backend.numpy(exact), backend.numpy(whole))
        else:
            np.testing.assert_allclose(backend.numpy(exact), backend.numpy(whole), rtol=1e-5)


def test_rows_remembered():
    assert [plan.history_length(n) for n in (0, 1, 300_000, 10**6, 10**9)] == [
        1024, 1024, 2048, 4096, 16384,
    ]  # fmt: skip


def trained(backend, steps=12, **changes):
    """An optimizer of a table that has missed steps, beside a dense one; both may go on."""
    random = np.random.default_rng(5)
    table = random.normal(size=(10, 4)).astype(np.float32)
    given_ = {"lr": 0.1, **changes}
    exact = METHODS["adam"](
        {"table": backend.array(table)}, sparse="exact", exactness="bits", **given_
    )
    whole = METHODS["adam"]({"table": backend.array(table)}, **given_)

    def go_on(by_rows, by_dense, steps=steps):
        for _ in range(steps):
            rows = random.integers(10, size=2)
            values = random.normal(size=(2, 4)).astype(np.float32)
            take(by_rows, backend, (rows, values))
            by_dense.step({"table": backend.array(dense(table.shape, rows, values))})

    go_on(exact, whole)
    return exact, whole, go_on


def assert_alike(exact, whole, backend):
    exact.flush()
    for a, b in zip(arrays(exact, backend), arrays(whole, backend), strict=True):
        assert_same_bits(a, b)


def test_reading(backend):
    exact, whole, _ = trained(backend)
    expected = backend.numpy(whole.params["table"])
    rows = np.array([[3, 0, 3], [9, 9, 1]])
    got = exact.read("table", backend.array(rows.astype(np.int32)))
    assert_same_bits(backend.numpy(got), expected[rows])
    assert_same_bits(backend.numpy(whole.read("table", backend.array(rows))), expected[rows])
    assert not np.array_equal(backend.numpy(exact.params["table"]), expected)
    assert_alike(exact, whole, backend)


def test_rows_that_are_not_there(backend):
    for one in trained(backend, check="raise")[:2]:
        with pytest.raises(ga.RowIndexError, match=r"row 10 at position 1 is not in a table of 10"):
            one.read("table", backend.array(np.array([3, 10, -1])))
    for one in trained(backend, check="skip")[:2]:
        got = backend.numpy(one.read("table", backend.array(np.array([3, 10, -1]))))
        assert got[0].any() and not got[1:].any()
        assert one.skipped_rows == 0


def test_reading_asks_for_rows():
    optimizer = ga.Adam({"w": np.ones((3, 2)), "s": np.ones(())}, sparse="exact")
    for rows in (np.zeros(2), [0.5, 1], "w", hostcupy.ndarray(np.zeros(1, np.int64))):
        with pytest.raises(ga.GradientError, match="expected an array of integers on the table's"):
            optimizer.read("w", rows)
    with pytest.raises(ga.ParameterError, match="'s' has no rows"):
        optimizer.read("s", np.zeros(1, np.int64))
    with pytest.raises(ga.ParameterError, match="no parameter 'x'"):
        optimizer.read("x", np.zeros(1, np.int64))
    assert optimizer.read("w", np.zeros((0, 2), np.int64)).shape == (0, 2, 2)


def test_flushing_in_parts(backend):
    exact, whole, _ = trained(backend)
    for fraction in (0, 1.5, "all", math.nan):
        with pytest.raises(ga.HyperparameterError, match="fraction"):
            exact.flush(fraction=fraction)
    done = [backend.numpy(internals(exact).parameters["table"].history.last)]
    for _ in range(4):
        exact.flush("table", fraction=1 / 4)
        done.append(backend.numpy(internals(exact).parameters["table"].history.last))
    assert [int((a == 12).sum()) for a in done][-1] == 10
    assert all((a <= b).all() and (a < b).any() for a, b in itertools.pairwise(done))
    for a, b in zip(arrays(exact, backend), arrays(whole, backend), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("how", ["state_dict", "pickle", "deepcopy"])
def test_going_on_from_a_copy(how, backend):
    exact, whole, go_on = trained(backend)
    if how == "state_dict":
        other, _, _ = trained(backend, steps=3)
        state = exact.state_dict()
        other.load_state_dict(state)
        array = other.params["table"]
        array[...] = exact.params["table"]
    elif backend.name == "cpu":
        other = copy.deepcopy(exact) if how == "deepcopy" else pickle.loads(pickle.dumps(exact))
    else:
        return
    go_on(other, whole)
    assert_alike(other, whole, backend)


@pytest.mark.parametrize("together", [True, False])
def test_a_table_that_is_copied_before_its_optimizer(together):
    """The table's copy has the rows as they were before the optimizer let them catch up."""
    with installed("cpu") as backend:
        exact, whole, go_on = trained(backend)
        pair = exact.params["table"], exact
        table, other = copy.deepcopy(pair) if together else pickle.loads(pickle.dumps(pair))
        assert other.params["table"] is table
        go_on(other, whole)
        assert_alike(other, whole, backend)


def test_what_looks_at_states_brings_them_up_to_date(backend):
    exact, whole, _ = trained(backend)
    rates = [backend.numpy(one.effective_lr("table")) for one in (exact, whole)]
    assert_same_bits(*rates)
    exact, whole, _ = trained(backend)
    batch = np.array([1, 2]), np.ones((2, 4), np.float32)
    exact.step({"table": ga.RowGrad(*map(backend.array, batch))}, stats=["table"])
    with installed("cpu") as cpu:
        other, _, _ = trained(cpu)
        other.step({"table": ga.RowGrad(*batch)}, stats=["table"])
    assert exact.stats("table") == other.stats("table")


def test_steps_with_options_and_without_gradients(host):
    """Clipping now and then, which is another rule, dense gradients, steps that are skipped."""
    backend = host
    exact, whole, _ = trained(backend, check="skip")
    random = np.random.default_rng(6)
    for step in range(14):
        rows, values = random.integers(10, size=2), random.normal(size=(2, 4)).astype(np.float32)
        if step == 5:
            values[0, 0] = np.inf
        options = {"max_norm": 0.5} if step in (1, 2) else {}
        options |= {"skip_nonfinite": True} if step in (4, 5, 6) else {}
        gradient = dense((10, 4), rows, values)
        given_ = ga.RowGrad(backend.array(rows), backend.array(values))
        if step == 7:
            given_, gradient = None, None
        elif step == 11:
            given_ = backend.array(gradient)
        if gradient is not None:
            gradient = backend.array(gradient)
        exact.step({"table": given_}, **options)
        whole.step({"table": gradient}, **options)
        assert exact.step_count == whole.step_count
    assert exact.step_count == 12 + 13
    assert_alike(exact, whole, backend)


@pytest.mark.parametrize(
    "changes", [{}, {"max_row_norm": 0.5}, {"max_row_norm": lambda step: 1 / (1 + step)}]
)
def test_means_and_limits_of_rows(changes, backend):
    """Of groups with settings of their own, with duplicates that are averaged."""
    random = np.random.default_rng(10)
    start = random.normal(size=(9, 6)).astype(np.float32)
    exact, whole = backend.array(start), backend.array(start)
    given_ = {"lr": 0.1, **changes}
    group = {"params": {"table": exact}, "sparse": "exact", "exactness": "bits"}
    by_rows = METHODS["adam"]([group, {"params": [backend.array(start)]}], **given_)
    by_dense = METHODS["adam"]({"table": whole}, **given_)
    for _ in range(12):
        rows, values = random.integers(9, size=4), random.normal(size=(4, 6)).astype(np.float32)
        gradient = ga.RowGrad(backend.array(rows), backend.array(values), duplicates="mean")
        by_rows.step({"table": gradient, "1": None})
        by_dense.step({"table": backend.array(dense(start.shape, rows, values, "mean"))})
    assert internals(by_rows).parameters["1"].history is None
    assert_alike(by_rows, by_dense, backend)


def test_beside_dense_parameters(backend):
    """They have no rows to make up for, and go on in one launch."""
    random = np.random.default_rng(7)
    start = {"table": random.normal(size=(8, 4)), "w": random.normal(size=5)}
    pair = []
    for sparse in ("exact", "lazy"):
        ours = {k: backend.array(v.astype(np.float32)) for k, v in start.items()}
        more = {"exactness": "bits"} if sparse == "exact" else {}
        pair.append(METHODS["adam"](ours, sparse=sparse, **more))
    for step in range(6):
        w = backend.array(random.normal(size=5).astype(np.float32))
        rows, values = random.integers(8, size=2), random.normal(size=(2, 4)).astype(np.float32)
        gradient = dense((8, 4), rows, values)
        by_rows = ga.RowGrad(backend.array(rows), backend.array(values))
        pair[0].step({"table": by_rows if step else backend.array(gradient), "w": w})
        pair[1].step({"table": backend.array(gradient), "w": w})
    assert internals(pair[0]).parameters["w"].history is None
    pair[0].flush()
    for name in start:
        for a, b in zip(*(arrays(one, backend, name) for one in pair), strict=True):
            assert_same_bits(a, b)


def test_dense_gradients_before_and_after_those_of_rows(backend):
    """The plan of a dense step, while no row had skipped one, is not that of a later one."""
    start = np.ones((5, 4), np.float32)
    settings_ = {"sparse": "exact", "exactness": "bits"}
    by_rows = METHODS["adam"]({"table": backend.array(start)}, **settings_)
    by_dense = METHODS["adam"]({"table": backend.array(start)})
    for step in range(12):
        rows = np.arange(1 if 0 < step < 11 else 5)
        values = np.ones((len(rows), 4), np.float32)
        gradient = backend.array(dense(start.shape, rows, values))
        if 0 < step < 11:
            take(by_rows, backend, (rows, values))
        else:
            by_rows.step({"table": gradient})
        by_dense.step({"table": gradient})
    assert_alike(by_rows, by_dense, backend)


def test_one_and_two_threads(monkeypatch):
    random = np.random.default_rng(8)
    table = random.normal(size=(3000, 20)).astype(np.float32)
    batches = [
        ((3000 ** random.random(4000)).astype(np.int64) - 1, random.normal(size=(4000, 20)))
        for _ in range(8)
    ]
    results, before = [], numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, before))
        ours = table.copy()
        optimizer = METHODS["adam"]({"table": ours}, sparse="exact")
        reads = []
        for rows, values in batches:
            optimizer.step({"table": ga.RowGrad(rows, values.astype(np.float32))})
            reads.append(optimizer.read("table", rows[::-1]))
        optimizer.flush()
        results.append([ours, *optimizer.state["table"].values(), *reads])
    numba.set_num_threads(before)
    assert all(map(np.array_equal, *results))


def test_what_a_zero_gradient_leaves_of_rules():
    """Derived from the rules: those with a closed form, and those that nothing happens to."""
    rules = {one.name: one.rule for one in CASES}
    are = {name for name, rule in rules.items() if catch_up_plan(rule)}
    replayed = {
        "nesterov", "adagrad+l2+max", "rmsprop-outside", "rmsprop-momentum", "centered",
        "centered-momentum", "centered-velocity",
        "adadelta+l2", "adam+l2+max", "adam-biased", "amsgrad", "amsgrad-uncorrected",
        "amsgrad-corrected", "adamax", "adamax-max", "adamax-biased", "nadam", "radam", "lion",
        "ftrl", "ftrl+max",
    }  # fmt: skip
    assert set(rules) - are == replayed
    assert {name for name in are if ignores_zero_gradients(rules[name])} == {"sgd", "adagrad"}
    adam = catch_up_plan(ga.rules.adam)
    assert adam.displacement.results == ("(_4_rate * _2_mhat)",)
    assert adam.inverse.results == ("sqrt(v)",) and not adam.shrinks
    assert [adam.history.coefficients[name] for name in adam.names[:2]] == ["beta1", "beta2"]
    assert [list(map(dict, form)) for form in adam.powers] == [[{"m": 1, "v": -0.5}, {"v": -0.5}]]
    assert len(catch_up_plan(rules["radam-biased"]).powers) == 2
    assert catch_up_plan(rules["adamw"]).shrinks
    rmsprop = catch_up_plan(rules["rmsprop"])
    assert rmsprop.displacement is None and not rmsprop.shrinks and rmsprop.decays(0)


@ga.rule
def interpolated(p, g, m, v, h):
    m = m + (1 - h.beta1) * (g - m)
    v = v - (v - abs(g)) / h.window
    return p - h.lr * m, m, v


@ga.rule
def fades_twice(p, g, a, h):
    return p - a, h.x * (h.y * a) + g


@pytest.mark.parametrize(
    ("rule", "values", "factors"),
    [
        (interpolated, {"beta1": 0.75, "lr": 0.1, "window": 8.0}, [0.75, 0.875]),
        (fades_twice, {"x": 0.5, "y": 0.75}, [0.375]),
    ],
)
def test_the_factor_by_which_a_zero_gradient_multiplies_a_state(rule, values, factors):
    plan = catch_up_plan(rule)
    scalars = plan.history.evaluate(*(values[name] for name in plan.history.hyperparameters), 1)
    found = dict(zip(plan.history.coefficients, scalars, strict=True))
    assert [found[name] for name in plan.names[: len(factors)]] == factors


@ga.rule
def two_displacements(p, g, a, b, h):
    a = h.x * a + g
    b = h.y * b + g
    return (p - h.lr * a) * h.z - b, a, b


@ga.rule
def products(p, g, a, h):
    return p * a, h.x * a + g


@ga.rule
def drifts(p, g, a, h):
    return p - a, h.x * a + h.y + g


@ga.rule
def two_roots(p, g, a, h):
    a = h.x * a + sq(g)  # noqa: F821
    return p - h.lr / (sqrt(sqrt(a) + h.e) + h.f), a  # noqa: F821


@ga.rule
def passes_zero(p, g, a, h):
    a = h.x * a + g
    return p - h.lr / (a + h.e), a


@ga.rule
def goes_to_a_constant(p, g, a, h):
    a = h.x * a + sq(g)  # noqa: F821
    return p - h.lr * (sqrt(a) + h.e), a  # noqa: F821


def test_rules_that_can_only_be_replayed():
    """What a zero gradient leaves of them is not of the form that `catchup.plan` needs."""
    rules = (two_displacements, products, drifts, two_roots, passes_zero, goes_to_a_constant)
    assert [catch_up_plan(rule) for rule in rules] == [None] * len(rules)


def test_where_nothing_is_missed_nothing_is_remembered():
    """A zero gradient changes nothing in Adagrad: exact rows are lazy ones."""
    optimizer = ga.Adagrad({"table": np.ones((4, 2), np.float32)}, sparse="exact")
    optimizer.step({"table": ga.RowGrad(np.array([1]), np.ones((1, 2), np.float32))})
    assert internals(optimizer).parameters["table"].history is None
    optimizer.flush()


def test_settings():
    with pytest.raises(ga.HyperparameterError, match="sparse: got 'no'"):
        ga.Adam(np.ones((2, 2)), sparse="no")
    with pytest.raises(ga.HyperparameterError, match="exactness: got 1"):
        ga.Adam(np.ones((2, 2)), exactness=1)
    optimizer = ga.Adam({"t": np.ones((4, 4))[:, :3]}, sparse="exact")
    with pytest.raises(ga.ParameterError, match="'t': sparse='exact' takes tables whose rows"):
        optimizer.step({"t": ga.RowGrad(np.array([0]), np.ones((1, 3)))})
    optimizer.step({"t": np.ones((4, 3))})
    optimizer.param_groups[0]["sparse"] = "lazy"
    with pytest.raises(ga.HyperparameterError, match="states are made for 'exact'"):
        optimizer.step({"t": np.ones((4, 3))})


def test_launches(host):
    """Nothing waits, and nothing is allocated that another step did not need."""
    launches = hostcupy.RawKernel.launches
    optimizer = ga.Adam({"table": host.array(np.ones((9, 4), np.float32))}, sparse="exact")
    gradient = ga.RowGrad(host.array(np.arange(5)), host.array(np.ones((5, 4), np.float32)))
    for _ in range(2):
        launches.clear()
        optimizer.step({"table": gradient})
    update = "gpuadapt_adam_rows"
    assert launches == ["gpuadapt_keys", update, "gpuadapt_append", update]


KINDS_OF_STEPS = [{}, {"max_norm": 1e9}, {"grad_scale": 2.0}, {"clip_value": 0.5}]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kinds", ["many kinds", "two rules"])
def test_steps_of_several_kinds_in_turns(kinds, seed, backend):
    """Rows, dense and absent gradients, options that change: bits are those of dense steps.

    Two rules alone take plans in turns, each of which has started a history of the table.
    """
    rules_only = kinds == "two rules"
    settings = {"lr": 0.01, "weight_decay": 0.01, "decay": "decoupled"}
    start = {"table": np.ones((40, 8), np.float32), "w": np.ones(5, np.float32)}
    pair = []
    for more in ({"sparse": "exact", "exactness": "bits"}, {}):
        params = {name: backend.array(array) for name, array in start.items()}
        pair.append(ga.Adam(params, **settings, **more))
    by_rows, by_dense = pair
    random = np.random.default_rng(seed)
    for _ in range(40):
        rows = random.permutation(40)[: random.integers(1, 6)]
        values = random.normal(size=(len(rows), 8)).astype(np.float32)
        dense = np.zeros((40, 8), np.float32)
        dense[rows] = values
        given = ga.RowGrad(backend.array(rows), backend.array(values))
        kind = 0 if rules_only else random.integers(4)
        if kind == 2:
            dense = random.normal(size=(40, 8)).astype(np.float32)
            given = backend.array(dense)
        absent = not rules_only and random.random() < 0.3
        w = None if absent else random.normal(size=5).astype(np.float32)
        options = KINDS_OF_STEPS[random.integers(2 if rules_only else len(KINDS_OF_STEPS))]
        for optimizer, gradient in ((by_rows, given), (by_dense, backend.array(dense))):
            grads = {"table": None if kind == 3 else gradient}
            grads["w"] = None if w is None else backend.array(w)
            optimizer.step(grads, **options)
    by_rows.flush()
    for name in start:
        a, b = (backend.numpy(optimizer.params[name]) for optimizer in pair)
        assert np.array_equal(a, b), name
        for letter, state in by_rows.state[name].items():
            other = by_dense.state[name][letter]
            assert np.array_equal(backend.numpy(state), backend.numpy(other)), (name, letter)
