"""The parameters' arrays: who has them, copies, what their owner may do with them."""

import copy
import pickle
import threading
from collections import UserDict, deque
from types import MappingProxyType

import ml_dtypes
import numpy as np
import pytest
from conftest import installed

import gpuadapt as ga
from gpuadapt.optimizer import internals

F = np.float32


def together(*things):
    return copy.deepcopy(things)


def pickled(*things):
    return pickle.loads(pickle.dumps(things))


def test_params_are_the_arrays_themselves(backend):
    w, table = backend.array(np.ones(3, F)), backend.array(np.ones((4, 8), F))
    optimizer = ga.SGD([{"params": {"w": w}}, {"params": [(table,)]}])
    assert list(optimizer.params) == ["w", "1.0"]
    assert optimizer.params["w"] is w and optimizer.params["1.0"] is table
    assert ga.SGD(optimizer.params).params["w"] is w


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.__setitem__("w", 1),
        lambda p: p.__delitem__("w"),
        lambda p: p.update(w=1),
        lambda p: p.__ior__({"w": 1}),
        lambda p: p.pop("w"),
        lambda p: p.clear(),
        lambda p: p.setdefault("v", 1),
    ],
)
def test_params_say_what_to_do_instead(change):
    optimizer = ga.SGD({"w": np.ones(2)})
    with pytest.raises(ga.ParameterError, match=r"params\[name\]\[...\] = new"):
        change(optimizer.params)
    assert type(copy.deepcopy(optimizer.params)) is dict
    assert optimizer.params | {"v": 1} == {"w": optimizer.params["w"], "v": 1}


SETTINGS = {
    "plain": (F, {}),
    "split": (ml_dtypes.bfloat16, {"master": "split"}),
    "master": (np.float16, {"master": "float32"}),
    "8bit": (F, {"state_dtype": "8bit"}),
    "exact": (F, {"sparse": "exact", "exactness": "bits"}),
}

LAYOUTS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "gaps": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("copied", [together, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, "C") for name in SETTINGS] + [("plain", "Fortran"), ("plain", "gaps")],
)
def test_arrays_and_their_optimizer_stay_together(copied, name, layout):
    """And what is copied goes on as the original does; alone, it has arrays of its own."""
    dtype, settings = SETTINGS[name]
    table = LAYOUTS[layout](np.linspace(-1, 1, 80, dtype=F).reshape(10, 8).astype(dtype))
    optimizer = ga.Adam({"a": {"t": table}}, lr=0.1, **settings)
    grad = ga.RowGrad(np.array([1, 3, 1]), np.full((3, 8), 0.5, dtype))
    steps = name in ("plain", "exact")  # the others would compile for what is not asked here
    for array in internals(optimizer).parameters["a.t"].saved_arrays.values():
        array[...] = 0 if steps else 1
    if steps:
        optimizer.step({"a.t": grad})
    (other,), twin = copied([table], optimizer)
    assert twin.params["a.t"] is other and not np.shares_memory(other, table)
    alone = copied(optimizer)[0]
    assert not np.shares_memory(alone.params["a.t"], table)
    for one in (optimizer, twin, alone):
        if steps:
            one.step({"a.t": grad})
            one.flush()
        assert np.shares_memory(one.params["a.t"], one.params["a.t"])
        np.testing.assert_equal(seen(one), seen(optimizer))


def seen(optimizer):
    """All of an optimizer that steps change, as copies."""
    kept = {name: p.saved_arrays for name, p in internals(optimizer).parameters.items()}
    return copy.deepcopy((dict(optimizer.params), kept, optimizer.step_count))


def test_arrays_on_a_gpu_stay_with_a_deep_copy(host):
    w = host.array(np.ones(3, F))
    v, twin = together(w, ga.SGD(w, lr=1.0))
    twin.step(host.array(np.ones(3, F)))
    assert (host.numpy(v) == 0).all() and (host.numpy(w) == 1).all() and twin.params["0"] is v


def test_a_shallow_copy_is_refused():
    with pytest.raises(ga.StateError, match=r"copy.deepcopy copies the arrays too"):
        copy.copy(ga.SGD(np.ones(2)))


def rows(n=2, width=8):
    return ga.RowGrad(np.arange(n), np.ones((n, width), F))


def dense():
    return np.ones((10, 8), F)


READ_ONLY = {
    "one": ({}, LAYOUTS["C"], dense, {}),
    "one of Fortran's order": ({}, LAYOUTS["Fortran"], dense, {}),
    "with gaps": ({}, LAYOUTS["gaps"], dense, {}),
    "measured": ({}, LAYOUTS["C"], dense, {"max_norm": 1e3}),
    "rows": ({}, LAYOUTS["C"], rows, {}),
    "rows with gaps": ({}, LAYOUTS["gaps"], rows, {}),
    "rowwise": ({"rowwise": True}, LAYOUTS["C"], dense, {}),
    "exact rows": ({"sparse": "exact", "exactness": "bits"}, LAYOUTS["C"], rows, {}),
    "sums": ({}, LAYOUTS["C"], lambda: [rows(), rows()], {}),
}


@pytest.mark.parametrize("many", [0, 3])
@pytest.mark.parametrize("name", READ_ONLY)
def test_an_array_made_read_only_is_not_written(name, many):
    settings, layout, make, options = READ_ONLY[name]
    table = layout(np.ones((10, 8), F))
    others = {str(k): np.ones(5, F) for k in range(many)}
    method = ga.Adam if name == "exact rows" else ga.Adagrad  # which has no steps to miss
    optimizer = method({**others, "t": table}, lr=0.1, **settings)
    grads = {key: np.ones(5, F) for key in others} | {"t": make()}
    for _ in range(2):
        optimizer.step(grads, **options)
    twin = copy.deepcopy(optimizer)
    table.setflags(write=False)
    before = seen(optimizer)
    for _ in range(2):
        with pytest.raises(ga.ParameterError, match="'t': the array has been made read-only"):
            optimizer.step(grads, **options)
        np.testing.assert_equal(seen(optimizer), before)
    if name == "exact rows":
        with pytest.raises(ga.ParameterError, match="'t': the array has been made read-only"):
            optimizer.flush()
    optimizer.step({**grads, "t": None}, **options)
    table.setflags(write=True)
    optimizer.step(grads, **options)
    twin.step({**grads, "t": None}, **options)
    twin.step(grads, **options)
    optimizer.flush()
    twin.flush()
    np.testing.assert_equal(seen(optimizer), seen(twin))


def dict_of_dicts(a, b):
    params = {"x": {"y": a}, "b": b}
    return params, "x.y", lambda new: params["x"].__setitem__("y", new)


def inner_dict(a, b):
    params = {"x": {"y": a}, "b": b}
    return params, "x.y", lambda new: params.__setitem__("x", {"y": new})


def plain_list(a, b):
    params = [a, b]
    return params, "0", lambda new: params.__setitem__(0, new)


def other_types(a, b):
    params = UserDict(x=deque([a]), b=b)
    return params, "x.0", lambda new: params["x"].__setitem__(0, new)


def list_in_a_tuple(a, b):
    params = ([a], b)
    return params, "0.0", lambda new: params[0].__setitem__(0, new)


def plain_dict(a, b):
    params = {"b": b, "a": a}
    return params, "a", lambda new: params.__setitem__("a", new)


def a_proxy(a, b):
    params, name, put = plain_dict(a, b)
    return MappingProxyType(params), name, put


def values(a, b):
    params, _, put = plain_dict(a, b)
    return params.values(), "1", put


def items(a, b):
    params, name, put = plain_dict(a, b)
    return params.items(), name, put


def pairs(a, b):
    params = [("a", a), ("b", b)]
    return params, "a", lambda new: params.__setitem__(0, ("a", new))


def a_group(a, b):
    params = [{"params": a, "lr": 0.5}, {"params": {"b": b}}]
    return params, "0", lambda new: params[0].__setitem__("params", new)


def a_dict_in_a_group(a, b):
    params, name, put = plain_dict(a, b)
    return [{"params": params, "betas": (0.5, 0.5)}], name, put


PASSED = (
    *(plain_dict, plain_list, dict_of_dicts, inner_dict, list_in_a_tuple, a_proxy),
    *(values, items, pairs, other_types, a_group, a_dict_in_a_group),
)


@pytest.mark.parametrize("new", ["equal", "another type", "None"])
@pytest.mark.parametrize("make", PASSED, ids=lambda make: make.__name__)
def test_another_array_in_the_place_of_a_parameter_is_noticed(make, new):
    a, b = np.ones(3, F), np.ones(3, F)
    params, name, put = make(a, b)
    optimizer = ga.Adam(params, lr=0.1)
    grads = {key: np.ones(3, F) for key in optimizer.params}
    optimizer.step(grads)
    before = a.copy(), b.copy()
    put({"equal": a.copy(), "another type": a.astype(float), "None": None}[new])
    for _ in range(2):
        with pytest.raises(ga.ParameterError, match=f"parameter '{name}': the params that were"):
            optimizer.step(grads)
    np.testing.assert_equal((a, b, optimizer.step_count), (*before, 1))
    put(a)
    optimizer.step(grads)
    assert optimizer.step_count == 2


def test_what_else_an_owner_does_with_a_dict():
    """More entries, fewer, another order: the arrays are the same."""
    a, b, c = (np.ones(2) for _ in range(3))
    params = {"a": a, "b": b, "c": c}
    optimizer = ga.SGD(params, lr=1.0)
    grads = {name: np.ones(2) for name in params}
    params["another"] = params["number"] = 3
    optimizer.step(grads)
    params["a"] = params.pop("a")
    optimizer.step(grads)
    del params["b"]
    optimizer.step(grads)
    assert all((w == -2).all() for w in (a, b, c))
    params["c"] = params["c"] / 2
    with pytest.raises(ga.ParameterError, match="'c'"):
        optimizer.step(grads)


def test_the_settings_of_a_dict_that_was_a_group():
    group = {"params": np.zeros(2), "lr": 1.0}
    optimizer = ga.SGD([group])
    group["lr"] = 2.0  # of the next optimizer
    optimizer.step([np.ones(2)])
    assert (group["params"] == -1).all()


@pytest.mark.parametrize("copied", [together, pickled], ids=["deepcopy", "pickle"])
def test_a_copy_watches_the_copied_dict(copied):
    params = {"a": [np.zeros(2)], "b": np.zeros(2)}
    grads = {"a": [np.ones(2)], "b": np.ones(2)}
    theirs, twin = copied(params, ga.SGD(params, lr=1.0))
    twin.step(grads)
    assert (theirs["b"] == -1).all() and (params["b"] == 0).all()
    theirs, again = copied(theirs, twin)
    theirs["a"][0] = np.zeros(2)
    with pytest.raises(ga.ParameterError, match=r"'a.0'"):
        again.step(grads)


@pytest.mark.parametrize("kind", ["iterator", "view", "more"])
def test_what_cannot_be_copied_does_not_stop_a_copy(kind):
    arrays = {"a": np.zeros(2)}
    given = {"iterator": iter(arrays.values()), "view": arrays.values(), "more": arrays}[kind]
    optimizer = ga.SGD(given, lr=1.0)
    arrays["lock"] = threading.Lock()
    sent = pickle.loads(pickle.dumps(optimizer))
    (name,) = sent.params
    sent.step({name: np.ones(2)})
    assert (sent.params[name] == -1).all()


def test_a_rebound_array_on_a_gpu():
    with installed("host") as backend:
        params = {"w": backend.array(np.ones(2))}
        optimizer = ga.SGD(params)
        params["w"] = backend.array(np.ones(2))
        with pytest.raises(ga.ParameterError, match="'w': the params that were"):
            optimizer.step({"w": backend.array(np.ones(2))})


@pytest.mark.parametrize("kind", ["dense", "strided", "rows"])
@pytest.mark.parametrize("size", [2, 4000])
def test_an_array_whose_memory_moved_is_refused(kind, size):
    """``resize`` frees the memory that the optimizer has a view of."""
    table, other = np.ones((6, 4), np.float32), np.ones(3, np.float32)
    optimizer = ga.SGD({"table": table, "other": other}, lr=1.0)
    gradient = {
        "dense": np.ones((6, 4), np.float32),
        "strided": np.ones((4, 6), np.float32).T,
        "rows": ga.RowGrad(np.array([1, 2]), np.ones((2, 4), np.float32)),
    }[kind]
    grads = {"table": gradient, "other": np.ones(3, np.float32)}
    for _ in range(2):
        optimizer.step(grads)
    kept = table.copy()
    table.resize((size, 4), refcheck=False)
    for _ in range(2):
        with pytest.raises(ga.ParameterError, match="'table': its array has other memory"):
            optimizer.step(grads)
    assert np.array_equal(table[:2], kept[:2])
    assert optimizer.step_count == 2
    assert (other == -1).all()
    table.resize((6, 4), refcheck=False)
