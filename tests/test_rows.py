"""Updates by rows: equal to dense ones bit for bit, whatever the ids, layouts and threads."""

import os
import subprocess
import sys
from pathlib import Path

import lazy
import numpy as np
import pytest
from cases import CASES, KINDS
from conftest import BACKENDS, installed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bits import LAYOUTS, assert_same_bits

import gpuadapt as ga
from gpuadapt.kernels.cpu import rows as cpu
from gpuadapt.kernels.cuda import rows as cuda
from gpuadapt.oracle import any_bits

ADAM = next(case for case in CASES if case.name == "adam+l2+max")
ALLOWING = [
    case
    for case in KINDS
    if case.name in ("adagrad", "rmsprop", "adam", "amsgrad", "radam", "ftrl")
]
"""Those that may keep one second moment for each row."""


def typed(cases):
    """All of them in float32, and one in float64: a kernel takes seconds to compile."""
    pairs = [(case, "float32") for case in cases] + [(ADAM, "float64")]
    return pytest.mark.parametrize(
        ("case", "dtype"),
        [pytest.param(case, np.dtype(dtype), id=f"{case.name}-{dtype}") for case, dtype in pairs],
    )


def step(optimizer, backend, rows, values, duplicates="sum"):
    rows, values = backend.array(rows), backend.array(values)
    optimizer.step({"table": ga.RowGrad(rows, values, duplicates=duplicates)})


def train(case, backend, table, batches, **changes):
    """The table and the states after steps by rows, as NumPy arrays."""
    ours = backend.array(table)
    optimizer = case.optimizer({"table": ours}, **changes)
    for batch in batches:
        step(optimizer, backend, *batch)
    return [backend.numpy(a) for a in (ours, *optimizer.state["table"].values())]


def draw(random, count, shape, dtype, n, steps=3):
    """A table and batches in which some rows occur often and some never."""
    table = random.normal(size=(count, *shape)).astype(dtype)
    ids = [(count ** random.random(n)).astype(np.int64) - 1 for _ in range(steps)]
    return table, [(rows, random.normal(size=(n, *shape)).astype(dtype)) for rows in ids]


def assert_equal(got, expected, **where):
    for a, b in zip(got, expected, strict=True):
        assert_same_bits(a, b, **where)


@typed([*KINDS, ADAM])
def test_rows_are_the_dense_step_on_the_sums(case, backend, dtype):
    table, batches = draw(np.random.default_rng(0), 40, (12,), dtype, 150)
    got = train(case, backend, table, batches)
    assert_equal(got, lazy.train(case, table, batches), case=case.name)
    assert not np.array_equal(got[0], table)


def test_adagrad_by_rows_is_dense_adagrad(backend, dtype):
    """A zero gradient changes nothing there, so all rows agree."""
    table, batches = draw(np.random.default_rng(1), 50, (4,), dtype, 60)
    for case in (c for c in CASES if c.name in ("adagrad", "sgd")):
        dense = backend.array(table)
        optimizer = case.optimizer({"table": dense})
        for rows, values in batches:
            gradient = np.zeros_like(table)
            for row, total in lazy.merged(rows, values).items():
                gradient[row] = total
            optimizer.step({"table": backend.array(gradient)})
        states = [backend.numpy(s) for s in optimizer.state["table"].values()]
        assert_equal(train(case, backend, table, batches), [backend.numpy(dense), *states])


def test_any_bits(backend, dtype):
    random = np.random.default_rng(2)
    table = any_bits(random, 30 * 5, dtype).reshape(30, 5)
    batches = [
        (random.integers(30, size=70), any_bits(random, 70 * 5, dtype).reshape(70, 5), how, 1e3)
        for how in ("sum", "mean")
    ]
    got = train(ADAM, backend, table, [batch[:3] for batch in batches], max_row_norm=1e3)
    assert_equal(got, lazy.train(ADAM, table, batches))


WIDTHS = (1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 64, 100, 130, 512)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width(width, backend, dtype):
    """With duplicates summed and averaged, rows scaled down, and both types of row numbers."""
    random = np.random.default_rng(width)
    table, batches = draw(random, 20, (width,), dtype, 45, steps=2)
    most = float(np.sqrt(width))
    batches = [(batches[0][0].astype(np.int32), batches[0][1], "sum"), (*batches[1], "mean")]
    got = train(ADAM, backend, table, batches, max_row_norm=most)
    expected = lazy.train(ADAM, table, [(*batch, most) for batch in batches])
    assert_equal(got, expected, width=width)


def test_frequent_rows(backend, dtype):
    """Half of a batch is one row, and others occur around the counts at which paths change."""
    random = np.random.default_rng(3)
    counts = [3000, 513, 512, 511, 257, 256, 255, 129, 128, 127, 2, 1]
    rows = random.permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    values = random.normal(size=(len(rows), 6)).astype(dtype)
    table = random.normal(size=(40, 6)).astype(dtype)
    batches = [(rows, values, "sum"), (np.sort(rows), values, "mean")]
    expected = lazy.train(ADAM, table, batches)
    assert_equal(train(ADAM, backend, table, batches), expected)


@pytest.mark.parametrize(
    "counts", [[256, 384, 128, 1, 640], [1000], [3, 1000], [1000, 3], [256, 256, 257]]
)
def test_frequent_rows_where_they_begin_and_end(counts, backend):
    """At multiples of the distance at which they are looked for, and at a batch's ends."""
    random = np.random.default_rng(len(counts))
    rows = random.permutation(np.repeat(np.arange(len(counts)), counts))
    values = random.normal(size=(len(rows), 4)).astype(np.float32)
    table = random.normal(size=(len(counts) + 1, 4)).astype(np.float32)
    batches = [(rows, values)] * 2
    assert_equal(train(ADAM, backend, table, batches), lazy.train(ADAM, table, batches))


def test_rows_that_ascend_in_every_part_but_not_across(backend):
    """Where ids ascend nothing is sorted."""
    random = np.random.default_rng(0)
    half = np.arange(5000) // 100
    values = random.normal(size=(10_000, 4)).astype(np.float32)
    table = random.normal(size=(50, 4)).astype(np.float32)
    for rows in (np.concatenate([half, half]), np.sort(np.concatenate([half, half]))):
        batches = [(rows, values)]
        assert_equal(train(ADAM, backend, table, batches), lazy.train(ADAM, table, batches))


@pytest.mark.parametrize("order", ["ascending", "by blocks", "interleaved"])
def test_the_order_of_ids_does_not_matter(order, backend):
    """As long as the occurrences of each row keep theirs."""
    random = np.random.default_rng(4)
    table, [(rows, values)] = draw(random, 30, (9,), np.float32, 400, steps=1)
    other = {
        "ascending": np.sort(rows),
        "by blocks": rows[np.argsort(random.permutation(30)[rows], kind="stable")],
        "interleaved": random.permutation(rows),
    }[order]
    moved = np.empty_like(values)
    for row in range(30):
        moved[other == row] = values[rows == row]
    expected = train(ADAM, backend, table, [(rows, values)])
    assert_equal(train(ADAM, backend, table, [(other, moved)]), expected)
    assert not np.array_equal(values, moved)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["table", "values", "both"])
def test_layouts_do_not_matter(layout, which, backend, dtype):
    random = np.random.default_rng(6)
    arrange = LAYOUTS[layout]
    shape = arrange(np.zeros((11, 6), dtype)).shape
    table = random.normal(size=(11, 6)).astype(dtype)
    values = random.normal(size=(2, 11, 6)).astype(dtype)
    batches = [(random.integers(shape[0], size=shape[0]), v.reshape(shape)) for v in values]
    expected = lazy.train(ADAM, table.reshape(shape), batches)
    placed = arrange(table) if which != "values" else table.reshape(shape)
    # Only the place in memory is another: not the numbers.
    placed[...] = table.reshape(shape)
    given = []
    for rows, value in batches:
        laid = arrange(value.reshape(11, 6)) if which != "table" else value.copy()
        laid[...] = value
        given.append((rows[::-1].copy()[::-1], laid))
    assert_equal(train(ADAM, backend, placed, given), expected)


def test_rows_of_every_rank(backend):
    random = np.random.default_rng(7)
    for shape in ((), (1,), (2, 3), (2, 1, 3)):
        table, batches = draw(random, 9, shape, np.float32, 20)
        assert_equal(train(ADAM, backend, table, batches), lazy.train(ADAM, table, batches))


@pytest.mark.parametrize("shape", [(0, 4), (5, 0), (5, 4)])
def test_nothing_to_do(shape, backend):
    table = np.ones(shape, np.float32)
    nothing = (np.zeros(0, np.int64), np.ones((0, *shape[1:]), np.float32))
    got = train(ADAM, backend, table, [nothing, nothing])
    assert np.array_equal(got[0], table) and not got[1].any()
    if shape[0]:
        empty = (np.arange(3), np.ones((3, *shape[1:]), np.float32))
        moved = train(ADAM, backend, table, [nothing, empty])[0]
        assert np.array_equal(moved[3:], table[3:])


def test_coalescing_is_not_needed(backend):
    """One coordinate in parts of a batch, for 2,000 steps: dense at every step."""
    steps = 2000 if backend.name == "cpu" else 200
    random = np.random.default_rng(8)
    for kind in (ga.Adagrad, ga.SGD):
        sparse, dense = (backend.array(np.ones((1, 1), np.float32)) for _ in range(2))
        by_rows, whole = kind({"table": sparse}, lr=0.01), kind({"table": dense}, lr=0.01)
        for _ in range(steps):
            parts = random.normal(size=(3, 1)).astype(np.float32)
            step(by_rows, backend, np.zeros(3, np.int32), parts)
            whole.step({"table": backend.array((parts[0] + parts[1] + parts[2])[None])})
            assert np.array_equal(backend.numpy(sparse), backend.numpy(dense))


@st.composite
def problems(draw):
    count, n = draw(st.integers(1, 12)), draw(st.integers(0, 30))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    index = draw(st.sampled_from([np.int32, np.int64]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = np.array(draw(st.lists(st.integers(0, count - 1), min_size=n, max_size=n)), index)
    how = draw(st.sampled_from(["sum", "mean"]))
    most = draw(st.sampled_from([np.inf, 1.0, 1e-3]))
    values = random.normal(size=(n, *shape)).astype(dtype)
    return random.normal(size=(count, *shape)).astype(dtype), (rows, values, how), most


@given(problems())
@settings(max_examples=150)
def test_anything(problem):
    table, batch, most = problem
    limited = {} if most == np.inf else {"max_row_norm": most}
    expected = lazy.train(ADAM, table, [(*batch, most)] * 2)
    for name in ("cpu", "host"):
        with installed(name) as backend:
            got = train(ADAM, backend, table, [batch] * 2, **limited)
            assert_equal(got, expected, backend=name)


# One second moment for each row.


def by_row(case, table, batches, most=np.inf):
    """The method in float64, with the mean of squares over a row in place of the square."""
    table, state = table.astype(np.float64), {}
    for t, batch in enumerate(batches, 1):
        found = lazy.merged(*batch, most)
        at = sorted(found)
        gradient = np.array([found[row] for row in at], np.float64)
        here = {k: v[at] for k, v in state.items()}
        new = case.update(table[at], gradient, here, t, square=_mean_square)
        for k, v in here.items():
            width = v.shape[1] if v.ndim > 1 else 1
            state.setdefault(k, np.zeros((len(table), width)))[at] = v
        table[at] = new
    return table, state


def _mean_square(g):
    return np.mean(g**2, axis=1, keepdims=True)


@typed([case for case in ALLOWING if case.name in ("adagrad", "rmsprop")] + [ADAM])
def test_rowwise(case, backend, dtype):
    random = np.random.default_rng(9)
    table, batches = draw(random, 25, (6,), dtype, 60)
    got = train(case, backend, table, batches, rowwise=True)
    exact, state = by_row(case, table, batches)
    tolerance = 64 * np.finfo(dtype).eps
    np.testing.assert_allclose(got[0], exact, rtol=tolerance, atol=tolerance)
    for letter, array in zip(case.rule.states, got[1:], strict=True):
        assert array.shape == ((25, 6) if letter == "m" else (25,))
        known = state[letter] if letter == "m" else state[letter][:, 0]
        np.testing.assert_allclose(array, known, rtol=tolerance, atol=tolerance)
    with installed("cpu") as here:
        assert_equal(got, train(case, here, table, batches, rowwise=True))


@pytest.mark.parametrize("width", WIDTHS)
def test_rowwise_and_scaled_down_on_every_width(width, backend, dtype):
    """The order of a row's sum is one, in however many parts it is taken."""
    table, batches = draw(np.random.default_rng(width), 15, (width,), dtype, 40, steps=2)
    changes = {"rowwise": True, "max_row_norm": float(np.sqrt(width))}
    got = train(ADAM, backend, table, batches, **changes)
    with installed("cpu") as here:
        assert_equal(got, train(ADAM, here, table, batches, **changes))
    plain = ga.Adam({"table": table.copy()}, rowwise=True)
    mean = [lazy.squares(g) / width for _, g in sorted(lazy.merged(*batches[0]).items())]
    plain.step({"table": ga.RowGrad(*batches[0])})
    v = plain.state["table"]["v"][np.unique(batches[0][0])]
    assert np.array_equal(v, dtype.type(1 - 0.999) * np.array(mean).astype(dtype))


@pytest.mark.parametrize("changes", [{"rowwise": True}, {"max_row_norm": 1.5}])
def test_a_dense_gradient_is_one_of_all_rows(changes, backend, dtype):
    random = np.random.default_rng(10)
    for shape in ((7, 5), (7,), ()):
        table, gradient = random.normal(size=(2, *shape)).astype(dtype)
        ours = backend.array(np.asarray(table))
        optimizer = ADAM.optimizer({"table": ours}, **changes)
        optimizer.step({"table": backend.array(np.asarray(gradient))})
        batch = np.arange(table.size and len(np.atleast_1d(table))), np.atleast_1d(gradient)
        expected = train(ADAM, backend, np.atleast_1d(table), [batch], **changes)
        assert np.array_equal(backend.numpy(ours), expected[0].reshape(shape))


def test_effective_rates_of_rows(backend):
    table = np.zeros((4, 3), np.float32)
    optimizer = ga.Adagrad({"table": backend.array(table)}, lr=0.5, eps=1e-8, rowwise=True)
    values = np.array([[3, 3, 3], [0, 0, 6]], np.float32)
    step(optimizer, backend, np.array([1, 2]), values)
    rates = backend.numpy(optimizer.effective_lr("table"))
    assert rates.shape == (4, 3)
    assert rates[1:3] == pytest.approx(np.array([[0.5 / 3] * 3, [0.5 / 12**0.5] * 3]))


@ga.rule
def squares_of_all_kinds(p, g, v, new_v, keys, h):
    """A square of more than the gradient, squares of numbers alone, names used elsewhere."""
    mean_square = abs(h.scale * g - h.shift * p)
    v = h.rho * v + (1 - h.rho) * sq(mean_square)  # noqa: F821
    new_v = new_v + v * sq(h.rho)  # noqa: F821
    keys = keys + sign(g)  # noqa: F821
    return p - sq(h.lr) * g / (sqrt(v) + h.eps) + keys * h.lr, v, new_v, keys  # noqa: F821


def test_rowwise_of_a_rule_of_ones_own(backend):
    """What only the square reads are hyperparameters too, with schedules."""
    rule = squares_of_all_kinds.rowwise
    assert rule.row_states == ("v", "new_v")
    assert set(rule.hyperparameters) == {"scale", "shift", "rho", "lr", "eps"}
    table, batches = draw(np.random.default_rng(0), 12, (5,), np.float64, 40, steps=2)
    lr, scale, shift, rho, eps = 0.5, [2.0, 3.0], 0.25, 0.75, 1e-3
    ours = backend.array(table)
    given = {"lr": lr, "scale": lambda step: scale[step], "shift": shift, "rho": rho, "eps": eps}
    optimizer = ga.Optimizer(squares_of_all_kinds, {"table": ours}, rowwise=True, **given)
    p, v, new_v, keys = table.copy(), np.zeros((12, 1)), np.zeros((12, 1)), np.zeros((12, 5))
    for t, batch in enumerate(batches):
        step(optimizer, backend, *batch)
        for row, g in lazy.merged(*batch).items():
            v[row] = rho * v[row] + (1 - rho) * np.mean((scale[t] * g - shift * p[row]) ** 2)
            new_v[row] += v[row] * rho**2
            keys[row] += np.sign(g)
            p[row] += -(lr**2) * g / (np.sqrt(v[row]) + eps) + keys[row] * lr
    got = optimizer.state["table"]
    np.testing.assert_allclose(backend.numpy(ours), p, rtol=1e-12)
    np.testing.assert_allclose(backend.numpy(got["new_v"]), new_v[:, 0], rtol=1e-12)


@ga.rule
def no_square_of_the_gradient(p, g, v, h):
    return p - sq(h.lr) * g, v + g  # noqa: F821


def test_which_rules_allow_it():
    with pytest.raises(ga.RuleError, match=r"has no sq\(...\)"):
        no_square_of_the_gradient.rowwise

    for case in KINDS:
        if case in ALLOWING:
            assert case.rule.rowwise.row_states
        else:
            with pytest.raises(ga.RuleError, match="rowwise: "):
                case.optimizer(np.zeros((2, 2)), rowwise=True)
    with pytest.raises(ga.RuleError, match="'adadelta' squares u, which depends on G, U: no mean"):
        ga.Adadelta(np.zeros((2, 2)), rowwise=True)


THREADS = """
import sys
import numpy as np
import gpuadapt as ga
from cases import CASES
import numba
assert numba.get_num_threads() == int(sys.argv[1])
random = np.random.default_rng(0)
rows = (3000 ** random.random(20_000)).astype(np.int64) - 1
cases = [case for case in CASES if case.name in ("sgd", "adagrad", "adadelta", "adam+l2+max")]
for width in (1, 5, 64):
    for case in cases:
        table = random.normal(size=(3000, width)).astype(np.float32)
        values = random.normal(size=(len(rows), width)).astype(np.float32)
        changes = {} if width == 1 else {"max_row_norm": 3.0}
        if width == 64 and case.name.startswith(("adagrad", "adam")):
            changes["rowwise"] = True
        optimizer = case.optimizer(table, **changes)
        for order in (slice(None), slice(None, None, -1)):
            optimizer.step(ga.RowGrad(rows[order], values))
        sys.stdout.buffer.write(table.tobytes())
"""


def test_threads_do_not_matter():
    def bits(threads):
        return subprocess.run(
            [sys.executable, "-c", THREADS, str(threads)],
            cwd=Path(__file__).parent,
            env={**os.environ, "NUMBA_NUM_THREADS": str(threads)},
            capture_output=True,
            check=True,
        ).stdout

    assert cpu.ALONE < 20_000
    one = bits(1)
    assert len(one) == 4 * 3000 * 70 * 4
    assert one == bits(2) == bits(4)


def test_forms_of_cuda_kernels():
    """A lane for each access of a row, up to a warp."""
    widths = (1, 4, 8, 12, 64, 128, 4096)
    lanes = [cuda.launch_config(width, 4, False).lanes for width in widths]
    assert lanes == [1, 1, 2, 4, 16, 32, 32]


SIZES = [(2**20, 2_000, "uint32"), (2**20, 4_100, "uint64"), (7, 1, "uint32"), (40, 700, "uint32")]
"""Rows of a table, of a batch, and the type of keys of both: 32 bits hold 21 + 11, not 21 + 13."""


def clipped_in_part(backend, table, batches):
    """The table after steps, clipped by row and whole, in which some rows are out of range."""
    ours = backend.array(table)
    optimizer = ga.Adam({"table": ours}, lr=0.1, check="skip", max_row_norm=1.5)
    for rows, values in batches:
        used = backend.array(np.array([len(rows) - len(rows) // 7]))
        given = ga.RowGrad(backend.array(rows), backend.array(values), count=used)
        optimizer.step({"table": given}, max_norm=40.0)
    return backend.numpy(ours), repr(optimizer.last), optimizer.skipped_rows


@pytest.mark.parametrize(("count", "n", "key"), SIZES)
@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "cpu"])
def test_keys_of_either_type_have_the_same_bits(name, count, n, key, monkeypatch):
    """With duplicates, hot rows, rows out of range or not in use, clipping and a norm."""
    random = np.random.default_rng(n)
    table, batches = draw(random, count, (2,), np.float32, n, steps=2)
    for rows, _ in batches:
        rows[::9] = np.resize([count, -1, count - 1, 0, 2**31], len(rows[::9]))
    used, compiled = [], cuda.keys_kernel
    monkeypatch.setattr(cuda, "keys_kernel", lambda *of: used.append(of[1]) or compiled(*of))
    with installed("cpu") as backend:
        table_, result, skipped = clipped_in_part(backend, table, batches)
    for bits, kind in ((32, key), (0, "uint64")):
        monkeypatch.setattr(cuda, "NARROW", bits)
        with installed(name) as backend:
            found = clipped_in_part(backend, table, batches)
        assert_same_bits(found[0], table_)
        assert found[1:] == (result, skipped) and skipped > 0
        assert used[-2:] == [kind, kind]


def test_more_blocks_than_cuda_launches_are_refused():
    cuda.check_threads(2**33 - 1)
    with pytest.raises(ga.RowIndexError, match="too many for one launch"):
        cuda.check_threads(2**33)
