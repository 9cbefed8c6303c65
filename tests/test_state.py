"""State: exact resume, snapshots and copies; what does not fit changes nothing."""

import copy
import io
import linecache
import pickle

import hostcupy
import ml_dtypes
import numpy as np
import pytest
from cases import KINDS
from test_optimizer import arrays

import gpuadapt as ga
from gpuadapt.kernels.commit import make
from gpuadapt.optimizer import internals


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case.name)
def test_resume_is_exact(case, backend):
    shapes = [(4, 3), (7,)]
    straight, resumed = arrays(backend, *shapes), arrays(backend, *shapes)
    one, before = case.optimizer(straight), case.optimizer(resumed)
    gradients = [arrays(backend, *shapes, seed=seed) for seed in range(6)]
    for step, grads in enumerate(gradients):
        one.step(grads)
        if step < 3:
            before.step(grads)
    snapshot = before.state_dict()
    frozen = [backend.numpy(a) for a in resumed]
    before.step(gradients[5])  # the snapshot is a copy
    after = case.optimizer([backend.array(a) for a in frozen], lr=123.0)
    after.load_state_dict(snapshot)
    restored = [parameter.array for parameter in internals(after).parameters.values()]
    for grads in gradients[3:]:
        after.step(grads)
    assert after.step_count == 6
    for a, b in zip(straight, restored, strict=True):
        assert np.array_equal(backend.numpy(a), backend.numpy(b))


def test_snapshots_stay_on_their_device(host):
    optimizer = ga.Adam({"w": hostcupy.ndarray(np.ones(3), device=1)})
    optimizer.step({"w": hostcupy.ndarray(np.ones(3), device=1)})
    assert optimizer.state["w"]["m"].device.id == 1
    snapshot = optimizer.state_dict()
    assert snapshot["state"]["w"]["m"].device.id == 1
    assert optimizer.effective_lr("w").device.id == 1
    optimizer.load_state_dict(snapshot)
    optimizer.step({"w": hostcupy.ndarray(np.ones(3), device=1)})


def test_state_moves_between_backends(host):
    w, v = np.ones(4), host.array(np.ones(4))
    on_cpu, on_gpu = ga.Adam(w), ga.Adam(v)
    on_cpu.step(np.ones(4))
    on_gpu.load_state_dict(on_cpu.state_dict())
    assert np.array_equal(host.numpy(on_gpu.state["0"]["m"]), on_cpu.state["0"]["m"])
    on_gpu.step(host.array(np.ones(4)))
    on_cpu.load_state_dict(on_gpu.state_dict())
    assert np.array_equal(host.numpy(on_gpu.state["0"]["v"]), on_cpu.state["0"]["v"])
    assert on_cpu.step_count == 2


def changed(state, path, value):
    state = copy.deepcopy(state)
    *parents, last = path
    target = state
    for key in parents:
        target = target[key]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return state


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["version"], 99, "version 99"),
        (["rule"], "sgd", "of rule 'sgd'"),
        (["state"], KeyError, "not a state_dict"),
        (["step_count"], -1, "whole numbers"),
        (["step_count"], 0.5, "whole numbers"),
        (["state", "w", "updates"], "3", "whole numbers"),
        (["state", "w", "m"], KeyError, "parameter 'w', state 'm': got NoneType"),
        (["state", "w", "m"], np.zeros(4), "got NumPy float64 array of shape"),
        (["state", "w", "m"], np.zeros(5, np.float32), "shape \\(5,\\), expected float32"),
        (["state", "w", "v"], [0, 0, 0, 0], "state 'v': got list"),
        (["state", "x"], {"updates": 0}, r"got states of \['w', 'x'\], expected \['w'\]"),
        (["param_groups", 0, "params"], 5, "not a state_dict"),
        (["param_groups", 0], 5, "not a state_dict"),
        (["version"], np.zeros(3), "got version"),
        (["param_groups", 0, "params"], ["x"], "got parameters"),
        (["param_groups"], [], "got parameters"),
        (["param_groups", 0, "lr"], -1.0, "lr: got -1.0"),
        (["param_groups", 0, "eps"], 1e-50, "eps: 1e-50 does not fit in float32"),
        (["param_groups", 0, "rho"], 0.5, "unknown hyperparameter 'rho'"),
        (["param_groups", 0, "lr"], KeyError, "lr: the snapshot has no value for it"),
        (["param_groups", 0, "beta1"], KeyError, "beta1: the snapshot has no value for it"),
        (["param_groups", 0, 3], 0.5, "a name is no string"),
        (["param_groups", 0, "params"], [np.zeros(2)], "a name is no string"),
        (["state", "w", "x"], np.zeros(4, np.float32), "'w': got 'x' besides states"),
        (["state", "w", "updates"], 2, "'w': got 2 updates in 1 steps"),
        (["state", "w", "updates"], 10**400, "below 2\\^63"),
        (["state", "w", "updates"], True + 0.0, "whole numbers"),
        (["step_count"], 2**63, "below 2\\^63"),
        (["step_count"], np.ones(2, int), "whole numbers"),
        (["rule"], np.zeros(3), "a name is no string"),
        (["rule"], np.array("adam"), "a name is no string"),
        (["digest"], "0" * 16, "a rule 'adam' with other formulas"),
        (["digest"], np.zeros(3), "a rule 'adam' with other formulas"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(path, value, message):
    w = np.ones(4, np.float32)
    optimizer = ga.Adam({"w": w})
    optimizer.step({"w": np.ones(4, np.float32)})
    before = copy.deepcopy(optimizer.state_dict())
    foreign = changed(before, ["param_groups", 0, "lr"], 0.75)
    with pytest.raises(ga.Error, match=message):
        optimizer.load_state_dict(changed(foreign, path, value))
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["step_count"] == before["step_count"]
    assert np.array_equal(after["state"]["w"]["m"], before["state"]["w"]["m"])


def test_a_snapshot_of_another_rule_with_the_same_name_and_letters():
    def rule_of(body):
        names = {}
        file = f"<{body}>"
        text = f"def own(p, g, m, h):\n    m = {body}\n    return p - h.lr * m, m\n"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), names)
        return ga.rule(names["own"])

    one, two = rule_of("m + g"), rule_of("m - g")
    state = ga.Optimizer(one, {"w": np.ones(2)}, lr=0.1).state_dict()
    ga.Optimizer(rule_of("m + g"), {"w": np.ones(2)}, lr=0.1).load_state_dict(state)
    with pytest.raises(ga.StateError, match="a rule 'own' with other formulas"):
        ga.Optimizer(two, {"w": np.ones(2)}, lr=0.1).load_state_dict(state)


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case.name)
def test_a_snapshot_from_before_there_were_digests(case):
    state = case.optimizer({"w": np.ones(2)}).state_dict()
    del state["digest"], state["param_groups"][0]["exactness"]  # nor all settings
    case.optimizer({"w": np.ones(2)}).load_state_dict(state)


def moved(params, **settings):
    """An optimizer whose states and counts are unlike each other's, and nothing is compiled."""
    optimizer = ga.Adam(params, **settings)
    random = np.random.default_rng(3)
    for n, parameter in enumerate(internals(optimizer).parameters.values(), 1):
        parameter.update_count = n
        for letter, array in parameter.saved_arrays.items():
            coded = letter.endswith(".codes")
            array[...] = random.integers(1, 7, array.shape) if coded else random.random(array.shape)
            if letter.endswith(".scales"):
                array[...] = 0.25
    make(internals(optimizer).steps.restart_calls(9, []))
    return optimizer


def seen(optimizer):
    """Counts, states and settings, as copies."""
    state = optimizer.state_dict()
    return state["step_count"], state["state"], state["param_groups"]


F = np.float32


def test_names_and_groups_in_any_order():
    a, b, c = (np.ones(n, F) for n in (2, 3, 4))
    state = moved([{"params": {"a": a, "b": b}, "lr": 0.5}, {"params": {"c": c}}]).state_dict()
    for groups in (
        [{"params": {"b": b, "a": a}}, {"params": {"c": c}}],
        [{"params": {"c": c}}, {"params": {"b": b, "a": a}}],
    ):
        optimizer = ga.Adam(groups)
        assert not any(optimizer.load_state_dict(state))
        np.testing.assert_equal(optimizer.state_dict()["state"], state["state"])
        by_names = {frozenset(g["params"]): g["lr"] for g in optimizer.state_dict()["param_groups"]}
        assert by_names == {frozenset("ab"): 0.5, frozenset("c"): 1e-3}
    with pytest.raises(ga.StateError, match="got parameters"):
        ga.Adam([{"params": {"a": a}}, {"params": {"b": b, "c": c}}]).load_state_dict(state)


@pytest.mark.parametrize("integer", [np.int64, np.uint8, np.array, lambda n: np.array(n, "u4")])
def test_counts_of_any_integer_type(integer):
    one, two = moved({"w": np.ones(2)}), ga.Adam({"w": np.ones(2)})
    state = one.state_dict()
    state["step_count"], state["version"] = integer(9), integer(1)
    state["state"]["w"]["updates"] = integer(1)
    two.load_state_dict(state)
    np.testing.assert_equal(seen(two), seen(one))
    assert type(two.step_count) is int and type(two.state_dict()["state"]["w"]["updates"]) is int


def test_what_fits_is_taken_over():
    names = ["same", "shape", "type", "old"]
    saved = moved({name: np.ones(3, F) for name in names})
    state = saved.state_dict()
    state["state"]["same"]["more"] = 3
    given = {"new": np.ones(2, F), "same": np.ones(3, F), "shape": np.ones(4, F)[::2]}
    optimizer = ga.Adam(given | {"type": np.ones(3)}, state_dtype=None)
    untouched = copy.deepcopy(optimizer.state_dict()["state"])
    left = optimizer.load_state_dict(state, strict=False)
    assert left[:3] == (["new"], ["old", "same: more"], ["shape", "type"])
    assert left.longer == left.settings == [] and list(left.reasons) == ["shape", "type"]
    assert "float32 array of shape (3,), expected float32 of shape (2,)" in left.reasons["shape"]
    count, states, _ = seen(optimizer)
    del state["state"]["same"]["more"]
    untouched["same"] = state["state"]["same"]
    assert count == 9
    np.testing.assert_equal(states, untouched)


def test_settings_that_fit_are_taken_over():
    groups = [{"params": {"a": np.ones(2)}}, {"params": {"b": np.ones(2)}, "lr": 0.25}]
    short = {"state_dtype": "bfloat16"}  # rounded by random bits of the seed
    state = moved(groups, weight_decay=0.5, seed=4, eps=1e-3, **short).state_dict()
    state["param_groups"][0]["rho"] = 0.5
    rate = lambda step: 0.1  # noqa: E731
    optimizer = ga.Adam([{"params": {"a": np.ones(2)}}, groups[1]], lr=rate, **short)
    left = optimizer.load_state_dict(state, strict=False)
    assert sorted(left.settings) == [
        "param_groups[0]['lr']", "param_groups[0]['rho']", "param_groups[0]['seed']",
        "param_groups[1]['seed']",
    ]  # fmt: skip
    one, two = optimizer.param_groups
    assert one["lr"] is rate and one["seed"] == 0 and one["weight_decay"] == two["eps"] * 500 == 0.5
    joined = ga.Adam({"a": np.ones(2), "b": np.ones(2)}, **short)
    assert not any(joined.load_state_dict(state, strict=False).missing)
    assert joined.param_groups[0]["eps"] == 1e-8  # they were in two groups


def test_a_partial_load_that_is_refused_changes_nothing():
    state = moved({"w": np.ones(2)}).state_dict()
    optimizer = moved({"v": np.ones(3)})
    internals(optimizer).parameters["v"].update_count = 20
    make(internals(optimizer).steps.restart_calls(30, []))
    before = copy.deepcopy(seen(optimizer))
    with pytest.raises(ga.StateError, match="'v': it is left as it is, after 20 updates, but"):
        optimizer.load_state_dict(state, strict=False)
    with pytest.raises(ga.StateError, match="strict: got 0"):
        optimizer.load_state_dict(state, strict=0)
    np.testing.assert_equal(seen(optimizer), before)


def test_a_copy_is_independent(backend):
    w = backend.array(np.ones(3))
    optimizer = ga.Adam({"w": w})
    gradient = {"w": backend.array(np.ones(3))}
    optimizer.step(gradient)
    before = backend.numpy(w)
    twin = copy.deepcopy(optimizer)
    twin.step(gradient)
    assert np.array_equal(backend.numpy(w), before)
    assert twin.step_count == 2
    twin_w = twin.params["w"]
    assert (backend.numpy(twin_w) < before).all()
    optimizer.step(gradient)
    assert np.array_equal(backend.numpy(w), backend.numpy(twin_w))
    with pytest.raises(ga.GradientError, match="shares memory with parameter 'w'"):
        twin.step({"w": twin_w})


def test_an_optimizer_can_be_sent_to_another_process():
    w = np.ones(3)
    optimizer = ga.Adam({"w": w}, weight_decay=0.1)
    optimizer.step({"w": np.ones(3)})
    optimizer.effective_lr("w")
    sent = pickle.loads(pickle.dumps(optimizer))
    for one in (optimizer, sent):
        one.step({"w": np.ones(3)})
    assert np.array_equal(sent.params["w"], w)
    assert sent.step_count == 2


def test_nothing_outlives_the_optimizer():
    """By counting references, not by the collector: memory on a GPU cannot wait for it."""
    import gc
    import weakref

    optimizer = ga.Adam(np.ones(3))
    optimizer.step(np.ones(3))
    state = weakref.ref(optimizer.state["0"]["m"])
    gc.disable()
    try:
        del optimizer
        assert state() is None
    finally:
        gc.enable()


def test_maps_that_would_not_be_heard_are_read_only():
    optimizer = ga.Adam({"w": np.ones(3)})
    with pytest.raises(ga.StateError, match="cannot be changed"):
        optimizer.state["w"]["m"] = np.zeros(3)
    with pytest.raises(AttributeError):
        optimizer.param_groups.append({})


@pytest.mark.parametrize("kept", [None, "float32", "float16", "bfloat16", "8bit"])
def test_a_snapshot_goes_through_numpys_files(kept):
    """Counts come back as NumPy's integers, bfloat16 as two bytes without a name."""
    w = np.ones((3, 4), F)
    optimizer = moved({"w": w}, state_dtype=kept)
    state, file = optimizer.state_dict(), io.BytesIO()
    np.savez(file, **state["state"]["w"])
    file.seek(0)
    state["state"]["w"] = {name: array[()] for name, array in np.load(file).items()}
    other = ga.Adam({"w": w.copy()}, state_dtype=kept)
    other.load_state_dict(state)
    found, wanted = (one.state_dict()["state"]["w"] for one in (other, optimizer))
    for name, value in wanted.items():
        assert np.array_equal(found[name], value), name


LARGE = [2**31 - 3, 2**32 - 4, 2**53 - 3, 2**63 - 13]


def after_large_count(backend, updates, dtype, settings):
    """The parameter and the state after 12 more steps."""
    w = backend.array(np.ones((6, 4), dtype))
    optimizer = ga.SGD({"w": w}, lr=0.5, momentum=0.5, **settings)
    state = optimizer.state_dict()
    state["step_count"] = state["state"]["w"]["updates"] = updates
    optimizer.load_state_dict(state)
    for k in range(12):
        rows = np.unique([2, k % 6])
        gradient = np.zeros((6, 4), dtype)
        gradient[rows] = 1
        by_rows = ga.RowGrad(backend.array(rows), backend.array(gradient[rows]))
        optimizer.step({"w": by_rows if "sparse" in settings else backend.array(gradient)})
    optimizer.flush()
    assert optimizer.step_count == updates + 12
    return [backend.numpy(array).astype(F) for array in (w, optimizer.state["w"]["b"])]


@pytest.mark.parametrize("updates", LARGE)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_counts_may_be_large(kind, updates, backend):
    """Exact rows, whose history has the numbers of steps, have the bits of dense steps there."""
    dtype = {"float32": F, "bfloat16": ml_dtypes.bfloat16}[kind]
    common = {"rounding": "nearest" if kind == "float32" else "stochastic"}
    exact = common | {"sparse": "exact", "exactness": "bits"}
    found = [after_large_count(backend, updates, dtype, one) for one in (common, exact)]
    np.testing.assert_array_equal(*found)


def test_the_last_count(backend):
    w = backend.array(np.ones(3, F))
    optimizer = ga.SGD(w, lr=0.5)
    state = optimizer.state_dict()
    state["step_count"] = state["state"]["0"]["updates"] = 2**63 - 1
    optimizer.load_state_dict(state)
    with pytest.raises(ga.StateError, match="as many as can be counted"):
        optimizer.step(backend.array(np.ones(3, F)))
    assert (backend.numpy(w) == 1).all()
    assert optimizer.step_count == 2**63 - 1
