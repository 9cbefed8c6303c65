"""`RowGrad`: what it takes, what it makes, and what a step with it refuses, counts and keeps."""

import copy
import pickle
import tracemalloc

import hostcupy
import lazy
import numpy as np
import pytest
from conftest import installed
from test_rows import ADAM, train

import gpuadapt as ga
from gpuadapt.optimizer import internals


def rows_and_values(dtype=np.float32):
    random = np.random.default_rng(0)
    return np.array([4, 1, 4, 9, 1, 4]), random.normal(size=(6, 3)).astype(dtype)


@pytest.mark.parametrize("duplicates", ["sum", "mean"])
def test_dense_and_coalesced(duplicates, dtype):
    rows, values = rows_and_values(dtype)
    gradient = ga.RowGrad(rows, values, duplicates=duplicates)
    expected = np.zeros((12, 3), dtype)
    for row, total in lazy.merged(rows, values, duplicates).items():
        expected[row] = total
    assert np.array_equal(gradient.to_dense((12, 3)), expected)
    merged = gradient.coalesced()
    assert merged.rows.tolist() == [1, 4, 9]
    assert np.array_equal(merged.values, expected[[1, 4, 9]])
    assert merged.values.dtype == dtype
    back = ga.RowGrad.from_dense(expected)
    assert np.array_equal(back.rows, merged.rows) and np.array_equal(back.values, merged.values)
    assert (
        repr(gradient) == f"RowGrad(6 rows, values NumPy {np.dtype(dtype)} array of shape (6, 3))"
    )


def test_coalescing_first_changes_nothing(backend):
    rows, values = rows_and_values()
    table = np.ones((12, 3), np.float32)
    merged = ga.RowGrad(rows, values).coalesced()
    expected = train(ADAM, backend, table, [(rows, values)])
    got = train(ADAM, backend, table, [(merged.rows, merged.values)])
    assert all(map(np.array_equal, got, expected))


def test_from_dense_of_any_rank():
    assert ga.RowGrad.from_dense(np.array([0.0, 2.0, 0.0])).rows.tolist() == [1]
    cube = np.zeros((4, 2, 3), np.float32)
    cube[3, 1, 2] = 5
    gradient = ga.RowGrad.from_dense(cube)
    assert gradient.rows.tolist() == [3] and gradient.values.shape == (1, 2, 3)
    assert np.array_equal(gradient.to_dense(cube.shape), cube)
    nothing = ga.RowGrad.from_dense(np.zeros((3, 2)))
    assert nothing.values.shape == (0, 2) and not nothing.to_dense((3, 2)).any()


@pytest.mark.parametrize("kind", ["csr_array", "csr_matrix"])
def test_from_scipy(kind, dtype):
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.zeros((5, 4), dtype)
    dense[1, 2], dense[4] = 3, [1, 0, 2, 0]
    gradient = ga.RowGrad.from_scipy(getattr(sparse, kind)(dense))
    assert gradient.rows.tolist() == [1, 4]
    assert type(gradient.values) is np.ndarray and np.array_equal(gradient.values, dense[[1, 4]])
    table = np.ones((5, 4), dtype)
    ga.SGD(table, lr=0.5).step(gradient)
    assert np.array_equal(table, 1 - dense / 2)
    with pytest.raises(ga.GradientError, match="expected a CSR matrix"):
        ga.RowGrad.from_scipy(sparse.coo_array(dense))


GOOD = np.zeros((2, 3), np.float32)
ROWS = np.zeros(2, np.int64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ga.RowGrad([0.0, 1.0], GOOD), "rows: got NumPy float64.*, expected an array of i"),
        (lambda: ga.RowGrad([[0], [0, 1]], GOOD), "rows: got list"),
        (lambda: ga.RowGrad([2**70, 1], GOOD), "rows: got NumPy object"),
        (lambda: ga.RowGrad(True, GOOD), "rows: got bool"),
        (lambda: ga.RowGrad([True, False], GOOD), "rows: got NumPy bool"),
        (lambda: ga.RowGrad(ROWS.astype(float), GOOD), "rows: got NumPy float64"),
        (lambda: ga.RowGrad(ROWS[:, None], GOOD), r"\(2, 3\), expected .* shape \(2, 1, ...\)"),
        (lambda: ga.RowGrad(0, np.float32(1)), "rows: got int, expected an array of integers"),
        (lambda: ga.RowGrad(np.ma.masked_less(ROWS, 1), GOOD), "rows: got numpy.ma"),
        (lambda: ga.RowGrad(ROWS, GOOD.tolist()), "values: got list"),
        (lambda: ga.RowGrad(ROWS, GOOD.astype(np.uint16)), "values: got NumPy uint16"),
        (lambda: ga.RowGrad(ROWS, GOOD.astype(int)), "values: got NumPy int64"),
        (lambda: ga.RowGrad(ROWS, np.ma.masked_less(GOOD, 1)), "values: got numpy.ma"),
        (lambda: ga.RowGrad(ROWS, GOOD[:1]), r"of shape \(1, 3\), expected .* shape \(2, ...\)"),
        (lambda: ga.RowGrad(ROWS, GOOD, duplicates="first"), "duplicates: got 'first', expected"),
        (lambda: ga.RowGrad(ROWS, GOOD, duplicates=["sum"]), "duplicates: got .'sum'., expected"),
        (lambda: ga.RowGrad(ROWS, GOOD).to_dense((5, 4)), r"shape: got \(5, 4\), expected"),
        (lambda: ga.RowGrad(ROWS, GOOD).to_dense(()), r"shape: got \(\)"),
        (lambda: ga.RowGrad(ROWS, GOOD).to_dense(5), r"shape: got \(5,\), expected"),
        (lambda: ga.RowGrad(ROWS, GOOD).to_dense((-1, 3)), r"shape: got \(-1, 3\), expected"),
        (lambda: ga.RowGrad(ROWS, GOOD).to_dense((1.5, 3)), r"shape: got \(\), expected"),
        (lambda: ga.RowGrad(ROWS, GOOD).to_dense((0, 3)), "row 0 at position 0 is not in a table"),
        (lambda: ga.RowGrad.from_dense([1.0]), "gradient: got list"),
        (lambda: ga.RowGrad.from_dense(np.array(1.0)), "gradient: got NumPy"),
        (lambda: ga.RowGrad.from_dense(np.ones(3, int)), "gradient: got NumPy int64"),
        (lambda: ga.RowGrad.from_dense(np.ma.masked_less(GOOD, 1)), "gradient: got numpy.ma"),
        (lambda: ga.RowGrad.from_scipy(GOOD), "gradient: got NumPy"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises((ga.GradientError, ga.RowIndexError), match=message):
        make()


@pytest.mark.parametrize(
    ("table", "gradient"),
    [
        (np.zeros((5, 4), np.float32), ga.RowGrad(ROWS, GOOD)),
        (np.zeros(5, np.float32), ga.RowGrad(ROWS, GOOD)),
        (np.zeros((), np.float32), ga.RowGrad(ROWS, np.zeros(2, np.float32))),
    ],
)
def test_rows_of_another_table(table, gradient):
    with pytest.raises(ga.GradientError, match=r"gradient of '0': got RowGrad.*expected rows of"):
        ga.SGD(table).step(gradient)


def test_rows_on_another_device(host):
    optimizer = ga.SGD(hostcupy.ndarray(np.zeros((5, 3), np.float32), device=1))
    gradient = ga.RowGrad(hostcupy.ndarray(ROWS, device=1), hostcupy.ndarray(GOOD, device=0))
    with pytest.raises(ga.GradientError, match="gradient of '0': got RowGrad"):
        optimizer.step(gradient)
    with pytest.raises(ga.GradientError, match="values: got NumPy"):
        ga.RowGrad(hostcupy.ndarray(ROWS), GOOD)


def test_gradients_that_are_the_table():
    table = np.zeros((2, 3), np.float32)
    with pytest.raises(ga.GradientError, match="shares memory with parameter '0'"):
        ga.SGD(table).step(ga.RowGrad(ROWS, table))


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("n", [6, 40_000])
@pytest.mark.parametrize("wrong", [-1, 10, -(2**31), 2**31 - 1])
def test_a_row_that_is_not_there_changes_nothing(wrong, n, index, backend):
    """With the first wrong position and its value; other parameters come before it."""
    random = np.random.default_rng(0)
    rows = random.integers(10, size=n).astype(index)
    values = random.normal(size=(n, 3)).astype(np.float32)
    tables = {name: backend.array(np.ones((10, 3), np.float32)) for name in "ab"}
    optimizer = ga.Adam(tables, check="raise")
    good = ga.RowGrad(backend.array(rows), backend.array(values))
    optimizer.step({"a": good, "b": good})
    state = optimizer.state_dict()
    before = {k: backend.numpy(v) for k, v in tables.items()}
    bad = rows.copy()
    bad[[n // 3, n // 2, n - 1]] = wrong, -8, -7
    found = rf"gradient of 'b': row {wrong} at position {n // 3} is not in a table of 10 rows"
    with pytest.raises(ga.RowIndexError, match=found) as caught:
        optimizer.step({"a": good, "b": ga.RowGrad(backend.array(bad), good.values)})
    assert isinstance(caught.value, IndexError) and isinstance(caught.value, ga.Error)
    for name, table in tables.items():
        assert np.array_equal(backend.numpy(table), before[name])
        for letter in "mv":
            kept = backend.numpy(optimizer.state[name][letter])
            assert np.array_equal(kept, backend.numpy(state["state"][name][letter]))
    assert optimizer.step_count == 1 and optimizer.skipped_rows == 0
    optimizer.step({"a": good, "b": good})


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)] + [">i2", ">u8"]


@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 1, 2)])
def test_row_numbers_of_any_integers_and_shape(shape, backend):
    """In steps, in a norm, in `stats`, `read`, `coalesced` and `to_dense`."""
    rows, values = rows_and_values()
    whole = ga.RowGrad(backend.array(rows), backend.array(values))
    expected = train(ADAM, backend, np.ones((12, 3), np.float32), [(rows, values)])
    table = backend.array(expected[0])
    optimizer = ga.SGD({"table": table})
    for integer in INTEGERS:
        if integer.startswith(">") and backend.name != "cpu":
            continue
        given = backend.array(rows.astype(integer).reshape(shape))
        gradient = ga.RowGrad(given, backend.array(values.reshape(*shape, 3)))
        assert gradient.rows is given and repr(gradient).startswith("RowGrad(6 rows, ")
        ours = backend.array(np.ones((12, 3), np.float32))
        optimizer = ADAM.optimizer({"table": ours})
        optimizer.step({"table": gradient}, stats=["table"])
        got = [backend.numpy(a) for a in (ours, *optimizer.state["table"].values())]
        assert all(map(np.array_equal, got, expected)), integer
        read = backend.numpy(optimizer.read("table", given))
        assert np.array_equal(read, expected[0][rows].reshape(*shape, 3)), integer
        merged = gradient.coalesced()
        assert merged.rows.dtype == np.int64 or integer == "int32"
        assert np.array_equal(backend.numpy(merged.values), backend.numpy(whole.coalesced().values))
        dense = backend.numpy(gradient.to_dense((12, 3)))
        assert np.array_equal(dense, backend.numpy(whole.to_dense((12, 3)))), integer


def test_row_numbers_in_place_are_seen(backend):
    """Numbers that are written anew are those of the next step, whatever their type."""
    for integer in (np.int16, np.int64):
        rows = backend.array(np.zeros((2, 1), integer))
        gradient = ga.RowGrad(rows, backend.array(np.ones((2, 1, 3), np.float32)))
        rows[...] = backend.array(np.full((2, 1), 3, integer))
        assert backend.numpy(gradient.to_dense((4, 3)))[:, 0].tolist() == [0, 0, 0, 2]


def test_lists_of_row_numbers():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for rows in ([3, 1], (3, 1), range(3, -1, -2)):
        assert ga.RowGrad(rows, values).to_dense((4, 3))[[3, 1]].tolist() == values.tolist()
    assert ga.RowGrad([[3], [1]], values[:, None]).to_dense((4, 3))[1].tolist() == [3, 4, 5]
    for one in (2, np.uint8(2), np.array(2)):
        assert ga.RowGrad(one, values[0]).to_dense((4, 3))[2].tolist() == [0, 1, 2]
    assert not ga.RowGrad([], values[:0]).to_dense((4, 3)).any()
    table = np.arange(8.0).reshape(4, 2)
    assert ga.SGD({"t": table}).read("t", [[3, 0]]).tolist() == [[[6, 7], [0, 1]]]
    assert ga.SGD({"t": table}).read("t", 1).tolist() == [2, 3]
    said = "rows of 't': got list, expected an array of integers"
    with installed("host") as host, pytest.raises(ga.GradientError, match=said):
        ga.SGD({"t": host.array(table)}).read("t", [1])


@pytest.mark.parametrize("sparse", ["lazy", "exact"])
def test_numbers_beyond_int64_are_out_of_range(sparse, backend):
    """The message has the number and the place that were given; nothing wraps around."""
    rows = np.array([[1, 2], [2**64 - 1, 2**63 + 5]], np.uint64)
    gradient = ga.RowGrad(backend.array(rows), backend.array(np.ones((2, 2, 3), np.float32)))
    said = rf"row {2**64 - 1} at position \(1, 0\) is not in a table of 10 rows"
    table = backend.array(np.ones((10, 3), np.float32))
    optimizer = ADAM.optimizer({"t": table}, check="raise", sparse=sparse)
    for refused in (
        lambda: optimizer.step({"t": gradient}),
        lambda: optimizer.read("t", gradient.rows),
        lambda: gradient.to_dense((10, 3)),
    ):
        with pytest.raises(ga.RowIndexError, match=said):
            refused()
    assert (backend.numpy(table) == 1).all() and optimizer.step_count == 0
    optimizer = ADAM.optimizer({"t": table}, check="skip", sparse=sparse)
    optimizer.step({"t": gradient})
    changed = (backend.numpy(table) != 1).any(axis=1)
    assert optimizer.skipped_rows == 2 and np.flatnonzero(changed).tolist() == [1, 2]


@pytest.mark.parametrize("n", [6, 40_000])
def test_skipped_rows(n, backend):
    random = np.random.default_rng(1)
    rows = random.integers(10, size=n)
    values = random.normal(size=(n, 3)).astype(np.float32)
    table = np.ones((10, 3), np.float32)
    bad = rows.copy()
    bad[::3] = np.resize([10, -1, 2**40, -(2**40)], len(bad[::3]))
    kept = rows == bad
    expected = train(ADAM, backend, table, [(rows[kept], values[kept])] * 2)
    ours = backend.array(table)
    optimizer = ADAM.optimizer({"table": ours}, check="skip")
    gradient = ga.RowGrad(backend.array(bad), backend.array(values))
    optimizer.step({"table": gradient})
    optimizer.step({"table": gradient})
    assert np.array_equal(backend.numpy(ours), expected[0])
    assert optimizer.skipped_rows == 2 * (n - kept.sum()) > 0
    optimizer.param_groups[0]["maximize"] = False  # another rule, another kernel
    optimizer.step({"table": gradient})
    assert optimizer.skipped_rows == 3 * (n - kept.sum())
    if backend.name == "cpu":
        assert copy.deepcopy(optimizer).skipped_rows == optimizer.skipped_rows


def test_all_rows_skipped(backend):
    ours = backend.array(np.ones((10, 3), np.float32))
    optimizer = ga.SGD({"table": ours}, check="skip")
    rows = np.full(6, 10)
    optimizer.step({"table": ga.RowGrad(backend.array(rows), backend.array(np.ones((6, 3), "f4")))})
    assert (backend.numpy(ours) == 1).all() and optimizer.skipped_rows == 6


def test_a_table_without_rows_skips_them_all(backend):
    optimizer = ga.SGD({"table": backend.array(np.zeros((0, 3), np.float32))}, check="skip")
    gradient = ga.RowGrad(backend.array(np.array([1, 2])), backend.array(np.ones((2, 3), "f4")))
    optimizer.step({"table": gradient})
    assert optimizer.skipped_rows == 2


def test_a_gradient_stays_what_it_is():
    gradient = ga.RowGrad(ROWS, GOOD)
    for name in ("rows", "values", "duplicates", "other"):
        with pytest.raises(AttributeError):
            setattr(gradient, name, ROWS)


def test_what_fails_on_the_way_changes_nothing(monkeypatch):
    """A sum of frequent rows that cannot be compiled, after a table that could be updated."""
    from gpuadapt.kernels.cpu import rows as cpu

    def fail(compute, form):
        raise OSError("no space")

    tables = {name: np.ones((10, 3), np.float32) for name in "ab"}
    optimizer = ga.SGD(tables, check="skip")
    gradients = {
        name: ga.RowGrad(rows, np.ones((len(rows), 3), np.float32))
        for name, rows in {"a": np.array([3, 10]), "b": np.resize([6, 6, 6, 10], 1200)}.items()
    }
    monkeypatch.setattr(cpu, "_hot_rows", fail)
    with pytest.raises(OSError, match="no space"):
        optimizer.step(gradients)
    assert all((table == 1).all() for table in tables.values())
    assert optimizer.skipped_rows == 0 and optimizer.step_count == 0
    monkeypatch.undo()
    optimizer.step(gradients)
    assert optimizer.skipped_rows == 301


def test_memory_is_kept_from_step_to_step():
    """Batches with and without frequent rows, in turn."""
    optimizer = ga.SGD(np.ones((4000, 8), np.float32))
    batches = [
        ga.RowGrad(rows, np.ones((len(rows), 8), np.float32))
        for rows in (np.arange(4000)[::-1].copy(), np.resize([3, 2], 1400))
    ]
    for batch in batches:
        optimizer.step(batch)
    table = internals(optimizer).parameters["0"]
    update = table.row_update(internals(optimizer).groups[0].rule, "float32")
    work = update._work
    for batch in batches * 2:
        optimizer.step(batch)
    assert update._work is work


def test_a_step_on_a_gpu_waits_for_nothing(host, monkeypatch):
    table = host.array(np.ones((10, 3), np.float32))
    rows = host.array(np.array([3, 10, 3]))
    gradient = ga.RowGrad(rows, host.array(np.ones((3, 3), np.float32)))
    optimizer = ga.Adam({"table": table})
    raising = ga.Adam({"table": host.array(np.ones((10, 3), np.float32))}, check="raise")

    def wait(self):
        raise RuntimeError("waits")

    monkeypatch.setattr(hostcupy.ndarray, "get", wait)
    optimizer.step({"table": gradient})
    with pytest.raises(RuntimeError, match="waits"):
        raising.step({"table": gradient})
    monkeypatch.undo()
    assert optimizer.skipped_rows == 1


def test_more_rows_than_can_be_sorted():
    """Positions and rows share 64 bits."""
    from gpuadapt.kernels.cpu.row_keys import SortedRows

    rows = np.lib.stride_tricks.as_strided(np.zeros(1, np.int64), (2**33,), (0,))
    with pytest.raises(ga.RowIndexError, match="too many to sort at once"):
        SortedRows().load(rows, 2**40, False, 1)


def test_a_memory_map_is_updated_on_disk(tmp_path):
    file = tmp_path / "table.bin"
    table = np.memmap(file, np.float32, "w+", shape=(1000, 4))
    ga.Adam({"table": table}, lr=0.5).step(
        {"table": ga.RowGrad(np.array([7, 999, 7]), np.ones((3, 4), np.float32))}
    )
    table.flush()
    stored = np.fromfile(file, np.float32).reshape(1000, 4)
    assert (stored[[7, 999]] == -0.5).all() and np.count_nonzero(stored) == 8


def test_more_than_2_31_elements(tmp_path):
    """Of which a file system keeps only what is written."""
    count, width = 2**31 // 4 + 3, 4
    table = np.memmap(tmp_path / "table.bin", np.float32, "w+", shape=(count, width))
    rows = np.array([count - 1, 0, count - 2, count - 1])
    ga.SGD({"table": table}, lr=1.0).step(
        {"table": ga.RowGrad(rows, np.arange(16, dtype=np.float32).reshape(4, 4))}
    )
    assert table[-1].tolist() == [-12, -14, -16, -18]
    assert table[-2].tolist() == [-8, -9, -10, -11]
    assert table[0].tolist() == [-4, -5, -6, -7]
    for at in (1, 2**31 // 4, 2**29, 2**30 // 4):
        assert not table[at].any()


@pytest.mark.parametrize("width", [2, 64])
def test_a_steady_step_allocates_nothing_of_its_size(width):
    random = np.random.default_rng(0)
    n = 200_000 // width
    table = np.zeros((50_000, width), np.float32)
    optimizer = ga.Adam({"table": table})
    values = random.normal(size=(n, width)).astype(np.float32)
    gradients = [
        {"table": ga.RowGrad(random.integers(50_000, size=n) // (1 + 9 * (k == 1)), values)}
        for k in range(3)
    ]
    for gradient in gradients:
        optimizer.step(gradient)
    tracemalloc.start()
    try:
        for gradient in gradients:
            optimizer.step(gradient)
        assert tracemalloc.get_traced_memory()[1] < 150_000
    finally:
        tracemalloc.stop()


def test_states_of_rows_come_along(backend):
    rows, values = rows_and_values()
    optimizer = ga.Adam({"table": backend.array(np.ones((12, 3), "f4"))}, rowwise=True)
    gradient = {"table": ga.RowGrad(backend.array(rows), backend.array(values))}
    optimizer.step(gradient)
    saved = optimizer.state_dict()
    assert saved["state"]["table"]["v"].shape == (12,)
    ours = backend.array(backend.numpy(optimizer.params["table"]))
    resumed = ga.Adam({"table": ours}, rowwise=True)
    resumed.load_state_dict(saved)
    optimizer.step(gradient)
    resumed.step(gradient)
    assert np.array_equal(backend.numpy(ours), backend.numpy(optimizer.params["table"]))
    with pytest.raises(ga.HyperparameterError, match="rowwise: got True, but the states are made"):
        ga.Adam({"table": ours}).load_state_dict(saved)
    optimizer.param_groups[0]["rowwise"] = False
    with pytest.raises(ga.HyperparameterError, match="rowwise: got False"):
        optimizer.step(gradient)


def test_optimizers_with_rows_can_be_pickled():
    rows, values = rows_and_values()
    optimizer = ga.Adagrad(np.ones((12, 3), np.float32), rowwise=True, max_row_norm=0.5)
    gradient = ga.RowGrad(rows, values)
    optimizer.step(gradient)
    twin = pickle.loads(pickle.dumps(optimizer))
    for each in (optimizer, twin):
        each.step(gradient)
    assert np.array_equal(twin.params["0"], optimizer.params["0"])
    assert np.array_equal(twin.state["0"]["G"], optimizer.state["0"]["G"])


def test_groups_of_tables_and_others():
    """Rows and dense gradients in one step, each group with settings of its own."""
    rows, values = rows_and_values()
    table, weight = np.ones((12, 3), np.float32), np.ones((2, 3), np.float32)
    both = ga.Adam([{"params": {"table": table}, "rowwise": True, "max_row_norm": 0.1},
                    {"params": {"weight": weight}}], lr=0.1)  # fmt: skip
    twins = np.ones((12, 3), np.float32), np.ones((2, 3), np.float32)
    one = ga.Adam(twins[0], lr=0.1, rowwise=True, max_row_norm=0.1)
    two = ga.Adam(twins[1], lr=0.1)
    for _ in range(2):
        both.step({"table": ga.RowGrad(rows, values), "weight": values[:2]})
        one.step(ga.RowGrad(rows, values))
        two.step(values[:2])
    assert np.array_equal(table, twins[0]) and np.array_equal(weight, twins[1])
    assert both.state["table"]["v"].shape == (12,) and both.state["weight"]["v"].shape == (2, 3)


def test_a_schedule_of_the_largest_norm(backend):
    rows, values = np.arange(4), np.full((4, 4), 3.0, np.float32)
    ours = backend.array(np.zeros((4, 4), np.float32))
    optimizer = ga.SGD({"t": ours}, lr=1.0, max_row_norm=lambda step: [2.0, 1.0, np.inf][step])
    gradient = ga.RowGrad(backend.array(rows), backend.array(values))
    path = []
    for _ in range(3):
        optimizer.step({"t": gradient})
        path.append(float(backend.numpy(ours)[0, 0]))
    assert path == pytest.approx([-1.0, -1.5, -4.5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rowwise": 1}, "rowwise: got 1, expected one of False, True"),
        ({"rowwise": "yes"}, "rowwise: got 'yes'"),
        ({"rowwise": np.ones(2)}, "rowwise: got array"),
        ({"max_row_norm": 0}, "max_row_norm: got 0, expected a number > 0"),
        ({"max_row_norm": float("nan")}, "max_row_norm: got nan"),
        ({"max_row_norm": None}, "max_row_norm: got None"),
        ({"max_row_norm": lambda step: -1.0}, "max_row_norm: got -1.0.*from the schedule"),
        ({"check": "warn"}, "check: got 'warn', expected one of None, 'raise', 'skip'"),
        ({"check": True}, "check: got True"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ga.HyperparameterError, match=message):
        ga.Adam(np.zeros((2, 2)), **settings).step(np.zeros((2, 2)))


def test_a_bad_norm_changes_nothing():
    table = np.ones((2, 2))
    optimizer = ga.Adam(table)
    optimizer.param_groups[0]["max_row_norm"] = -1
    with pytest.raises(ga.HyperparameterError, match="max_row_norm: got -1"):
        optimizer.step(np.ones((2, 2)))
    assert (table == 1).all() and optimizer.step_count == 0


def test_backends_agree_in_one_step(host):
    rows, values = rows_and_values()
    w, v = np.ones((12, 3), np.float32), host.array(np.ones((12, 3), np.float32))
    optimizer = ga.Adam({"w": w, "v": v})
    with installed("host"):
        optimizer.step({
            "w": ga.RowGrad(rows, values),
            "v": ga.RowGrad(host.array(rows), host.array(values)),
        })  # fmt: skip
    assert np.array_equal(w, host.numpy(v)) and not (w == 1).all()


def test_rows_in_use(backend):
    """Only the first ``count`` count: in steps, in `coalesced`, in `to_dense`."""
    rows, values = np.array([1, 0, -1, 7]), np.arange(8.0).reshape(4, 2)
    for count in (2, np.array(2), np.array([2]), backend.array(np.array([2]))):
        gradient = ga.RowGrad(backend.array(rows), backend.array(values), count=count)
        expected = np.array([[2.0, 3.0], [0.0, 1.0], [0.0, 0.0]])
        assert np.array_equal(backend.numpy(gradient.to_dense((3, 2))), expected)
        w = backend.array(np.zeros((3, 2)))
        ga.SGD(w, lr=1.0, check="raise").step(gradient)
        assert np.array_equal(backend.numpy(w), -expected)
        assert "in use" in repr(gradient)
    empty = ga.RowGrad(backend.array(rows), backend.array(values), count=0)
    ga.SGD(w, lr=1.0, check="raise").step(empty)
    assert np.array_equal(backend.numpy(w), -expected)
    for wrong in (-1, 5, 1.5, "2", np.array([1, 2])):
        with pytest.raises(ga.GradientError, match="count"):
            ga.RowGrad(backend.array(rows), backend.array(values), count=wrong)
