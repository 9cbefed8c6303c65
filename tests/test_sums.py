"""Gradients of one parameter add up: rows, arrays of the whole of it, and both together."""

import re
from types import SimpleNamespace as Tensor

import hostcupy
import ml_dtypes
import numpy as np
import pytest
from test_exact import METHODS
from test_rows import ADAM

import gpuadapt as ga

SHAPE = (12, 3)
RANDOM = np.random.default_rng(5)
START = RANDOM.normal(size=SHAPE).astype(np.float32)
ROWS = [np.array([4, 1, 4, 9]), np.array([1, 11, 4], np.int32), np.array([0, 4], np.uint8)]
VALUES = [RANDOM.normal(size=(len(rows), 3)).astype(np.float32) for rows in ROWS]
DENSE = [RANDOM.normal(size=SHAPE).astype(np.float32) for _ in range(2)]


def stepped(backend, gradient, **settings):
    """The table and the states after one step."""
    table = backend.array(START)
    optimizer = ADAM.optimizer({"table": table}, **settings)
    optimizer.step({"table": gradient})
    return [backend.numpy(a) for a in (table, *optimizer.state["table"].values())]


def parts(backend, **settings):
    """Gradients of rows, on a backend."""
    return [
        ga.RowGrad(backend.array(rows), backend.array(values), **settings)
        for rows, values in zip(ROWS, VALUES, strict=True)
    ]


def assert_alike(got, expected, what):
    for a, b in zip(got, expected, strict=True):
        assert np.array_equal(a, b), what


def test_rows_follow_one_another(backend):
    """By +, by `sum`, as a list and as a tuple; in order of occurrence, whatever the integers."""
    rows, values = np.concatenate(ROWS).astype(np.int64), np.concatenate(VALUES)
    expected = stepped(backend, ga.RowGrad(backend.array(rows), backend.array(values)))
    a, b, c = parts(backend)
    given = {"+": a + b + c, "sum": sum([a, b, c]), "list": [a, b, c], "tuple": (a, None, b, c)}
    for way, gradient in given.items():
        assert_alike(stepped(backend, gradient), expected, way)
    assert (a + b).rows.dtype == np.int64 and len(b.rows) == 3
    assert_alike(stepped(backend, [a]), stepped(backend, a), "one")


def test_a_sum_exists_until_it_has_been_read():
    """Its memory is the step's own; after it has been given back, a large array has none."""
    table = np.zeros(5_000_000, np.float32)
    gradient = np.ones_like(table)
    optimizer = ga.SGD({"table": table}, lr=1.0)
    for k in (1, 2):  # the second step has a plan
        optimizer.step({"table": [gradient, gradient]})
        assert (table == -2 * k).all()


@pytest.mark.parametrize(
    "order", [(0, "d"), ("d", 0), (0, 1, "d"), ("d", 0, "e"), ("d", None, "e"), ("e", 0, 1, "d")]
)
def test_rows_and_arrays_are_the_dense_sum(backend, order):
    """The rows first; the sum is that of arrays, in float32."""
    letters = {"d": DENSE[0], "e": DENSE[1], None: None}
    found = dict(enumerate(parts(backend)))
    given = [backend.array(letters[k]) if k in ("d", "e") else found.get(k) for k in order]
    rows = [found[k] for k in order if k in found]
    arrays = [letters[k] for k in order if k in ("d", "e")]
    total = [backend.numpy(sum(rows).to_dense(SHAPE))] if rows else []
    total += arrays
    expected = stepped(backend, backend.array(sum(total[1:], total[0])))
    assert_alike(stepped(backend, given), expected, order)


def test_a_row_gradient_and_an_array_are_an_array(backend):
    (a, *_), d = parts(backend), backend.array(DENSE[0])
    expected = backend.numpy(a.to_dense(SHAPE)) + DENSE[0]
    for total in (a + d, d + a, sum([a, d])):
        assert type(total) is type(d) and np.array_equal(backend.numpy(total), expected)


def test_rows_out_of_range_are_counted_beside_an_array(backend):
    far = ga.RowGrad(backend.array(np.array([12, -1])), backend.array(VALUES[2]))
    d = backend.array(DENSE[0])
    assert_alike(stepped(backend, [far, d], check="skip"), stepped(backend, d), "skip")
    optimizer = ga.SGD({"table": backend.array(START)}, check="skip")
    optimizer.step({"table": [far, far, d]})
    assert optimizer.skipped_rows == 4
    with pytest.raises(ga.RowIndexError, match="gradient of 'table': row 12 at position 0"):
        stepped(backend, [far, d], check="raise")


def test_what_is_averaged_or_in_use_is_so_before(backend):
    mean, (_, few, _) = parts(backend, duplicates="mean")[0], parts(backend, count=1)
    both = mean + few
    assert both.duplicates == "sum" and both.count is None
    expected = backend.numpy(mean.to_dense(SHAPE)) + backend.numpy(few.to_dense(SHAPE))
    assert np.array_equal(backend.numpy(both.to_dense(SHAPE)), expected)
    assert_alike(stepped(backend, [mean, few]), stepped(backend, both), "list")


@pytest.mark.parametrize(
    ("kinds", "wide"),
    [
        (("bfloat16", "bfloat16"), "bfloat16"),
        (("bfloat16", "float16"), "float32"),
        (("float32", "bfloat16"), "float32"),
        (("float16", "float64"), "float64"),
    ],
)
def test_element_types(kinds, wide, host):
    """The result holds what the parts do; on a GPU the bits of bfloat16 are uint16."""
    values = [v.astype(k) for v, k in zip(VALUES[:2], kinds, strict=True)]
    a, b = (ga.RowGrad(r, v) for r, v in zip(ROWS[:2], values, strict=True))
    expected = np.concatenate([v.astype(wide) for v in values])
    assert (a + b).values.dtype == wide and np.array_equal((a + b).values, expected)
    bits = [v.view(np.uint16) if v.dtype == ml_dtypes.bfloat16 else v for v in values]
    a, b = (ga.RowGrad(host.array(r), host.array(v)) for r, v in zip(ROWS[:2], bits, strict=True))
    got = host.numpy((a + b).values)
    assert np.array_equal(got.view(expected.dtype), expected)
    d = DENSE[0].astype(kinds[1])
    total = ga.RowGrad(ROWS[0], values[0]) + d
    assert total.dtype == ("float64" if "float64" in kinds else "float32")


def test_nothing_is_no_gradient():
    table = np.ones(SHAPE, np.float32)
    optimizer = ga.SGD({"table": table, "w": np.ones(3)})
    for nothing in ([], (), [None, None]):
        optimizer.step({"table": nothing, "w": np.ones(3)})
    assert (table == 1).all() and optimizer.state_dict()["state"]["table"]["updates"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: [parts_of()[0], np.ones((5, 3), np.float32)], r"NumPy float32 array of shape \(5"),
        (lambda: [[parts_of()[0]]], r"got list, expected .*RowGrad\(rows, values\)"),
        (lambda: [1.0, 2.0], "got float, expected"),
        (lambda: [ga.RowGrad(ROWS[0], np.ones((4, 2)))], "expected rows of a"),
        (lambda: (ROWS[0], VALUES[0]), r"got NumPy int64.*RowGrad\(rows, values\)"),
        (lambda: [ROWS[0], VALUES[0]], r"got NumPy int64.*RowGrad\(rows, values\)"),
        (lambda: ROWS[0], r"got NumPy int64.*RowGrad\(rows, values\)"),
        (lambda: {"rows": ROWS[0], "values": VALUES[0]}, r"got dict.*RowGrad\(rows, values\)"),
        (lambda: sparse("csr"), r"csr.*RowGrad.from_scipy\(gradient\)"),
        (lambda: sparse("coo"), r"coo.*RowGrad.from_scipy\(gradient.tocsr\(\)\)"),
        (lambda: Tensor(is_sparse=True), r"Namespace.*RowGrad\(rows, values\)"),
        (lambda: Tensor(is_sparse=False, is_sparse_csr=True), r"RowGrad\(rows, values\)"),
        (lambda: Tensor(is_sparse=False), r"Namespace, expected .* of shape \(12, 3\)$"),
        (lambda: Tensor(indices=ROWS[0], values=VALUES[0]), r"RowGrad\(rows, values\)"),
    ],
)
def test_what_cannot_be_added_changes_nothing(given, message):
    """And what are rows in another form are told of `RowGrad`."""
    tables = {name: np.ones(SHAPE, np.float32) for name in "ab"}
    optimizer = ga.SGD(tables)
    with pytest.raises(ga.GradientError, match=f"gradient of 'b': .*{message}"):
        optimizer.step({"a": DENSE[0], "b": given()})
    assert all((table == 1).all() for table in tables.values()) and optimizer.step_count == 0


@pytest.mark.parametrize(
    ("params", "given", "said"),
    [
        (lambda w: w, lambda: {"rows": ROWS[0], "values": VALUES[0]}, "RowGrad(rows, values)"),
        (lambda w: {"w": w}, lambda: {"indices": 0, "values": 1}, "RowGrad(rows, values)"),
        (lambda w: w, lambda: (ROWS[0], VALUES[0]), "RowGrad(rows, values)"),
        (lambda w: w, lambda: sparse("csr"), "RowGrad.from_scipy(gradient)"),
        (lambda w: [w], lambda: sparse("csr"), "RowGrad.from_scipy(gradient)"),
        (lambda w: {"w": w}, lambda: sparse("coo"), "RowGrad.from_scipy(gradient.tocsr())"),
    ],
)
def test_one_tables_gradient_in_the_place_of_all(params, given, said):
    """The message says what to write there too; a wrong name alone is not taken for rows."""
    with pytest.raises(ga.GradientError, match=re.escape(said)):
        ga.SGD(params(START.copy())).step(given())
    with pytest.raises(ga.GradientError, match=r"unknown 'v', missing '0'.*gradient\)$"):
        ga.SGD(START.copy()).step({"v": DENSE[0]})


def parts_of():
    return [ga.RowGrad(rows, values) for rows, values in zip(ROWS, VALUES, strict=True)]


def sparse(kind):
    module = pytest.importorskip("scipy.sparse")
    return getattr(module, f"{kind}_array")(DENSE[0])


def test_addition_asks_for_gradients_of_one_table(host):
    a = parts_of()[0]
    for other, message in (
        (ga.RowGrad(ROWS[0], np.ones((4, 2))), "the same row shape and device"),
        (
            ga.RowGrad(*map(host.array, (ROWS[0], VALUES[0]))),
            "the same row shape and device",
        ),
        (np.ones((12, 2), np.float32), r"shape: got \(12, 2\)"),
        (np.ones((5, 3), np.float32), "row 9 at position 3 is not in a table of 5 rows"),
        (np.ones(SHAPE, int), "cannot add NumPy int64"),
        (host.array(DENSE[0]), "cannot add CuPy"),
    ):
        with pytest.raises((ga.GradientError, ga.RowIndexError), match=message):
            a + other
    near, far = (
        ga.RowGrad(*(hostcupy.ndarray(x, device=k) for x in (ROWS[0], VALUES[0]))) for k in (0, 1)
    )
    with pytest.raises(ga.GradientError, match="the same row shape and device"):
        near + far
    for other in (1, 0.0, "rows", None):
        with pytest.raises(TypeError):
            a + other


def test_lists_and_what_is_measured(backend):
    """The norm and `stats` are those of the sum."""
    a, b, _ = parts(backend)
    found = []
    for gradient in (a + b, [a, b]):
        optimizer = ADAM.optimizer({"table": backend.array(START)})
        optimizer.step({"table": gradient}, max_norm=1.0, stats=["table"])
        found.append((optimizer.last, optimizer.stats("table")))
    assert found[0] == found[1] and found[0][0].clip_factor < 1


def test_a_list_is_not_captured(host):
    table = host.array(START)
    optimizer = ga.SGD({"table": table}, check="skip")
    optimizer.capturable = True
    a, b, _ = parts(host)
    stream = host.library.cuda.Stream()
    with stream, pytest.raises(ga.CaptureError, match="'table': several are added up in new"):
        optimizer.step({"table": [a, b]})
    with pytest.raises(ga.CaptureError, match="row numbers with gaps, or of other types"):
        optimizer.step({"table": ga.RowGrad(host.array(ROWS[2]), host.array(VALUES[2]))})
    assert np.array_equal(host.numpy(table), START)
    optimizer.step({"table": a})


def test_arrays_that_are_updated_by_rows(backend):
    """Where all gradients are rows to the kernel, sums of arrays are too."""
    d, e = map(backend.array, DENSE)
    found = [stepped(backend, gradient, max_row_norm=0.5) for gradient in ([d, e], d + e)]
    assert_alike(*found, "max_row_norm")


def test_a_list_once_rows_have_missed_steps():
    for gradient in (DENSE, [parts_of()[0], *DENSE]):
        found = []
        for given in (gradient, [sum(gradient[1:], gradient[0])]):
            table = START.copy()
            make = METHODS["momentum"]
            optimizer = make({"table": table}, lr=0.1, sparse="exact", exactness="bits")
            optimizer.step({"table": parts_of()[1]})
            optimizer.step({"table": given})
            optimizer.flush()
            found.append([table, *optimizer.state["table"].values()])
        assert_alike(*found, len(gradient))
