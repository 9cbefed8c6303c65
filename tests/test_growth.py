"""Parameters that join in the midst of training, and tables that get more rows."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest
from test_params import rows, seen

import gpuadapt as ga
from gpuadapt.arrays import copy_into
from gpuadapt.optimizer import internals
from gpuadapt.state_formats import decoded

F = np.float32


def ones(n, x=1.0):
    return np.full(n, x, F)


def test_a_parameter_joins(backend):
    """It is as in an optimizer of its own, made then; the others as if nothing had happened."""
    old, twin, new, alone = (backend.array(np.linspace(-1, 1, 5, dtype=F)) for _ in range(4))
    optimizer, before = ga.Adam({"a": {"w": old}}, lr=0.1), ga.Adam({"w": twin}, lr=0.1)
    gradients = [backend.array(ones(5, k + 1)) for k in range(6)]
    for g in gradients[:3]:
        optimizer.step({"a": {"w": g}})
        before.step({"w": g})
    state = optimizer.state["a.w"]["m"]
    optimizer.add({"head": [new]}, lr=0.5, betas=(0.5, 0.5))
    fresh = ga.Adam([alone], lr=0.5, betas=(0.5, 0.5))
    structures = [
        lambda g: {"a.w": g, "head.0": g},
        lambda g: {"a": {"w": g}, "head": [g]},
        lambda g: [{"a": {"w": g}}, {"head": (g,)}],
    ]
    for g, structure in zip(gradients[3:], structures, strict=True):
        optimizer.step(structure(g))
        before.step({"w": g})
        fresh.step([g])
    assert optimizer.state["a.w"]["m"] is state and optimizer.step_count == 6
    for one, other in ((old, twin), (new, alone)):
        assert np.array_equal(backend.numpy(one), backend.numpy(other))
    saved = optimizer.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [["a.w"], ["head.0"]]
    assert [group["lr"] for group in saved["param_groups"]] == [0.1, 0.5]
    assert {name: entry["updates"] for name, entry in saved["state"].items()} == {
        "a.w": 6,
        "head.0": 3,
    }


def test_what_joins_has_the_settings_that_the_optimizer_was_made_with():
    optimizer = ga.SGD({}, lr=0.5, momentum=0.5)
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.add([ones(2)])
    optimizer.add([{"params": [(ones(3),)], "lr": 2.0}, {"params": iter([("x", ones(1))])}])
    optimizer.add(ones(4), lr=4.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5, 2.0, 0.5, 4.0]
    assert all(group["momentum"] == 0.5 for group in optimizer.param_groups)
    assert list(optimizer.params) == ["0", "1.0", "x", "3"]
    for one in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        one.add({"y": ones(1)}, lr=8.0)
        assert list(one.params) == ["0", "1.0", "x", "3", "y"]
        assert one.param_groups[-1]["momentum"] == 0.5 and len(optimizer.params) == 4


def test_rows_that_have_missed_steps_go_on_missing_them():
    start = np.linspace(-1, 1, 80, dtype=F).reshape(10, 8)
    settings = {"sparse": "exact", "exactness": "bits", "lr": 0.1}
    pair = [ga.Adam({"t": start.copy()}, **settings) for _ in range(2)]
    for step in range(5):
        for one in pair:
            one.step({"t": rows(3)} | ({"v": None} if "v" in one.params else {}))
        if step == 2:
            pair[0].add({"v": ones(3)})
    for one in pair:
        one.flush()
    np.testing.assert_equal(seen(pair[0])[1]["t"], seen(pair[1])[1]["t"])
    assert np.array_equal(pair[0].params["t"], pair[1].params["t"])


W = {"w": ones(6), "t": np.ones((3, 8), F)}


def read_only(array):
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    ("params", "settings", "message"),
    [
        ({"w": ones(2)}, {}, "'w': two parameters have this name"),
        ({"v": ones(2)}, {"rho": 0.5}, "unknown hyperparameter 'rho'"),
        ({"v": ones(2)}, {"lr": -1}, "lr: got -1"),
        ({"v": ones(2)}, {"initial": {"m": 1}}, "unknown hyperparameter 'initial'"),
        ({"v": ones(2)}, {"master": "float32"}, "master: got 'float32', which has no effect"),
        ({"v": W["w"][:2]}, {}, "share memory"),
        ({"v": ones(2), "u": [3]}, {}, r"'u.0': got int"),
        ({"v": read_only(ones(2))}, {}, "'v': the array is read-only"),
        (iter(()), {}, "gives no arrays"),
    ],
)
def test_what_cannot_join_changes_nothing(params, settings, message):
    optimizer = ga.Adam(W)
    before = seen(optimizer), optimizer.param_groups
    with pytest.raises(ga.Error, match=message):
        optimizer.add(params, **settings)
    np.testing.assert_equal((seen(optimizer), optimizer.param_groups), before)
    optimizer.add({"another": ones(1)})


FORMATS = {
    "float32": ((5, 8), F, {}),
    "one dimension": ((5,), F, {}),
    "three dimensions": ((5, 2, 3), float, {}),
    "no rows": ((0, 4), F, {}),
    "rowwise": ((5, 8), F, {"rowwise": True}),
    "bfloat16 states": ((5, 8), F, {"state_dtype": "bfloat16"}),
    "8 bits, blocks in rows": ((5, 300), F, {"state_dtype": "8bit"}),
    "8 bits, blocks across rows": ((100, 3), F, {"state_dtype": "8bit"}),
    "8 bits, whole blocks": ((128, 4), F, {"state_dtype": "8bit"}),
    "8 bits, less than a block": ((7,), F, {"state_dtype": "8bit"}),
    "master": ((5, 8), np.float16, {"master": "float32"}),
    "split": ((5, 8), ml_dtypes.bfloat16, {"master": "split"}),
    "kahan": ((5, 8), ml_dtypes.bfloat16, {"rounding": "kahan"}),
}


def filled(optimizer, name="t"):
    """Numbers in all that is kept of a parameter."""
    random = np.random.default_rng(5)
    for letter, array in internals(optimizer).parameters[name].saved_arrays.items():
        values = random.integers(100, 127, array.shape)  # of codes, nearly the largest
        if letter.endswith(".scales"):
            values = 2.0 ** -(values % 5)
        copy_into(array, values if letter.endswith(".codes") else values / 128)
    return optimizer


def numbers(optimizer):
    table = internals(optimizer).parameters["t"]
    return {letter: decoded(a) for letter, a in table.states.items()} | {
        letter: np.array(a.get() if hasattr(a, "get") else a)
        for letter, a in table.companions.items()
    }


@pytest.mark.parametrize("start", [0.0, 0.5], ids=["zeros", "initial"])
@pytest.mark.parametrize("more", [0, 1, 40])
@pytest.mark.parametrize("name", FORMATS)
def test_old_rows_keep_what_they_have_and_new_ones_start_as_new(name, more, start, backend):
    shape, dtype, settings = FORMATS[name]
    if backend.name == "host" and dtype is ml_dtypes.bfloat16:
        return  # CuPy has no such type
    initial = {} if start == 0 else {"initial": {"v": start}}
    table = backend.array(np.linspace(0.5, 1, int(np.prod(shape))).reshape(shape).astype(dtype))
    optimizer = filled(ga.Adam({"a": backend.array(ones(2)), "t": table}, **settings, **initial))
    before = numbers(optimizer)
    larger = np.full((shape[0] + more, *shape[1:]), 2, dtype)
    larger[: shape[0]] = backend.numpy(table)
    larger = backend.array(larger)
    new = numbers(ga.Adam({"t": backend.array(backend.numpy(larger))}, **settings, **initial))
    optimizer.grow("t", larger)
    assert optimizer.params["t"] is larger and list(optimizer.params) == ["a", "t"]
    for letter, after in numbers(optimizer).items():
        assert after.shape == new[letter].shape
        assert np.array_equal(after[: shape[0]], before[letter]), letter
        assert np.array_equal(after[shape[0] :], new[letter][shape[0] :]), letter


@pytest.mark.parametrize("settings", [{}, {"sparse": "exact", "exactness": "bits"}], ids=len)
def test_a_grown_table_goes_on(settings, backend):
    """Old rows have the bits of a table that has not grown."""
    start = np.linspace(-1, 1, 80, dtype=F).reshape(10, 8)
    pair = [ga.Adam({"t": backend.array(start)}, lr=0.1, **settings) for _ in range(2)]
    touched = [backend.array(np.array(of)) for of in ([0, 3], [3, 9], [0, 9, 5])]
    for n, of in enumerate(touched):
        for one in pair:
            values = backend.array(np.full((len(of), 8), n + 0.5, F))
            one.step({"t": ga.RowGrad(of, values)})
        if n == 1:
            grown = pair[0]
            larger = np.zeros((300, 8), F)
            if settings:
                with pytest.raises(ga.ParameterError, match=r"missed steps: call flush\('t'\)"):
                    grown.grow("t", backend.array(larger))
            grown.flush("t")
            larger[:10] = backend.numpy(grown.params["t"])
            grown.grow("t", backend.array(larger))
    last = ga.RowGrad(backend.array(np.array([299])), backend.array(np.ones((1, 8), F)))
    for one in pair:
        one.flush()
        assert one.state_dict()["state"]["t"]["updates"] == 3
    one, other = (backend.numpy(optimizer.params["t"]) for optimizer in pair)
    assert np.array_equal(one[:10], other) and (one[10:] == 0).all()
    grown.step({"t": last})
    grown.flush()
    assert (backend.numpy(grown.params["t"])[299] < 0).all() and grown.step_count == 4


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", ones(3), "no parameter 'x'"),
        ("n", np.ones((1,), F), r"'n' has no rows: its shape is \(\)"),
        ("t", np.ones((2, 8), F), r"'t': got NumPy float32 array of shape \(2, 8\), expected"),
        ("t", np.ones((4, 7), F), "with as many rows or more"),
        ("t", np.ones((4, 8)), "with as many rows or more"),
        ("t", [[1.0] * 8] * 4, "'t': got list"),
        ("t", read_only(np.ones((4, 8), F)), "'t': the array is read-only"),
        ("t", np.broadcast_to(ones(8), (4, 8)).view(), "read-only|share memory"),
        ("w", W["t"].reshape(-1), "share memory"),
    ],
)
def test_what_a_table_cannot_grow_into_changes_nothing(name, array, message):
    optimizer = filled(ga.Adam({**W, "n": np.array(1, F)}, lr=0.5))
    before = seen(optimizer)
    with pytest.raises(ga.ParameterError, match=message):
        optimizer.grow(name, array)
    np.testing.assert_equal(seen(optimizer), before)
    assert optimizer.params["t"] is W["t"]


def test_captured_steps_are_of_the_arrays_that_there_were(host):
    optimizer = ga.SGD({"t": host.array(np.ones((2, 3), F))})
    optimizer.capturable = True
    for change in (
        lambda: optimizer.add({"v": host.array(ones(2))}),
        lambda: optimizer.grow("t", host.array(np.ones((3, 3), F))),
    ):
        with pytest.raises(ga.CaptureError, match="set `capturable` to False before"):
            change()
    assert list(optimizer.params) == ["t"]


def test_memory_before_the_table_may_be_that_of_the_larger_one():
    room = np.ones((10, 4), F)
    optimizer = ga.SGD({"t": room[:3]}, lr=1.0)
    optimizer.step({"t": np.ones((3, 4), F)})
    optimizer.grow("t", room[:5])
    optimizer.step({"t": np.ones((5, 4), F)})
    assert room[:, 0].tolist() == [-1, -1, -1, 0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_the_dict_that_was_passed_gets_the_larger_table(when):
    params = {"t": np.ones((2, 3), F), "w": ones(2)}
    optimizer = ga.SGD(params, lr=1.0)
    grads = {"t": np.ones((3, 3), F), "w": ones(2)}
    larger = np.ones((3, 3), F)
    if when == "before":
        params["t"] = larger
    optimizer.grow("t", larger)
    if when == "after":
        params["t"] = larger
    optimizer.step(grads)
    params["w"] = ones(2)
    if when == "never":  # the dict has an array that is not the parameter: it is let go
        optimizer.step(grads)
    else:
        with pytest.raises(ga.ParameterError, match="'w': the params that were passed"):
            optimizer.step(grads)
    assert (larger == 1 - optimizer.step_count).all()


@pytest.mark.parametrize("name", FORMATS)
def test_a_snapshot_of_a_table_with_fewer_rows(name):
    """Its rows are the first ones; strict=True says what to do instead."""
    shape, dtype, settings = FORMATS[name]
    if shape[0] == 0:
        return
    saved = filled(ga.Adam({"t": np.ones(shape, dtype)}, **settings))
    state = saved.state_dict()
    larger = ga.Adam({"t": np.ones((shape[0] + 9, *shape[1:]), dtype)}, **settings)
    new, before = numbers(larger), numbers(saved)
    with pytest.raises(ga.StateError, match="more rows here; strict=False takes over the first"):
        larger.load_state_dict(state)
    np.testing.assert_equal(numbers(larger), new)
    left = larger.load_state_dict(state, strict=False)
    assert left.longer == ["t"] and not any([*left[:3], left.settings, left.reasons])
    for letter, after in numbers(larger).items():
        assert np.array_equal(after[: shape[0]], before[letter]), letter
        assert np.array_equal(after[shape[0] :], new[letter][shape[0] :]), letter
    assert saved.load_state_dict(larger.state_dict(), strict=False).mismatched == ["t"]
