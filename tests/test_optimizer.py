"""The surface: structures, groups, schedules, state, errors; a step that raises changes nothing."""

import copy
import pickle

import hostcupy
import numpy as np
import pytest
from cases import CASES
from conftest import installed

import gpuadapt as ga

ADAM = next(case for case in CASES if case.name == "adam+l2+max")


def arrays(backend, *shapes, seed=0, dtype=np.float32):
    random = np.random.default_rng(seed)
    return [backend.array(random.normal(size=shape).astype(dtype)) for shape in shapes]


def named(names, values):
    return dict(zip(names, values, strict=True))


SHAPES = [(3, 4), (), (0, 5), (1,), (2, 1, 3)]


def test_structures_agree(backend):
    """One array, a list, a dict and groups give the same bits; unnamed parameters are counted."""
    given = arrays(backend, *SHAPES)
    gradients = arrays(backend, *SHAPES, seed=1)
    structures = [
        (lambda p: p, gradients, "01234"),
        (lambda p: tuple(p), tuple(gradients), "01234"),
        (lambda p: named("abcde", p), named("abcde", gradients), "abcde"),
        (lambda p: [{"params": p[:2]}, {"params": named("cde", p[2:])}],
         [gradients[:2], named("cde", gradients[2:])], "01cde"),
        (lambda p: [{"params": p[0]}, {"params": p[1:]}], [gradients[0], gradients[1:]], "01234"),
        (lambda p: p, named("01234", gradients), "01234"),
    ]  # fmt: skip
    results = []
    for structure, grads, expected in structures:
        own = [a.copy() for a in given]
        optimizer = ADAM.optimizer(structure(own))
        optimizer.step(grads)
        optimizer.step(grads)
        assert list(optimizer.state) == list(expected)
        results.append([backend.numpy(a) for a in own])
    single = []
    for array, gradient in zip(given, gradients, strict=True):
        own = array.copy()
        optimizer = ADAM.optimizer(own)
        optimizer.step(gradient)
        optimizer.step(gradient)
        single.append(backend.numpy(own))
    for result in results:
        assert all(map(np.array_equal, result, single))


def test_groups_have_their_own_hyperparameters(backend):
    a, b, c, d = arrays(backend, (5,), (5,), (5,), (5,))
    twins = [x.copy() for x in (a, b, c, d)]
    gradient = arrays(backend, (5,), seed=1)[0]
    optimizer = ga.Adam(
        [
            {"params": a},
            {"params": [b], "lr": 0.5, "betas": (0.5, 0.6)},
            {"params": {"c": c}, "weight_decay": 0.1, "decay": "decoupled"},
            {"params": {"d": d}, "maximize": True, "eps": 0.1},
        ],
        lr=0.1,
    )
    alone = [
        ga.Adam(twins[0], lr=0.1),
        ga.Adam(twins[1], lr=0.5, betas=(0.5, 0.6)),
        ga.Adam(twins[2], lr=0.1, weight_decay=0.1, decay="decoupled"),
        ga.Adam(twins[3], lr=0.1, maximize=True, eps=0.1),
    ]
    for _ in range(3):
        optimizer.step({"0": gradient, "1": gradient, "c": gradient, "d": gradient})
        for one in alone:
            one.step(gradient)
    for ours, twin in zip((a, b, c, d), twins, strict=True):
        assert np.array_equal(backend.numpy(ours), backend.numpy(twin))
    assert [group["params"] for group in optimizer.param_groups] == [("0",), ("1",), ("c",), ("d",)]


def test_backends_in_one_optimizer(host):
    w = np.ones(4, np.float32)
    v = host.array(w)
    optimizer = ga.Adam({"w": w, "v": v})
    optimizer.step({"w": w.copy(), "v": host.array(np.ones(4, np.float32))})
    assert np.array_equal(w, host.numpy(v)) and w[0] < 1
    assert isinstance(optimizer.state["v"]["m"], hostcupy.ndarray)
    assert isinstance(optimizer.effective_lr("v"), hostcupy.ndarray)
    assert "cpu and cuda" in repr(optimizer)


def test_schedules_count_from_zero():
    seen = []

    def lr(step):
        seen.append(step)
        return np.float32(0.5) if step < 2 else 0.25

    w = np.zeros(1)
    optimizer = ga.SGD(w, lr=lr, weight_decay=lambda step: 0.0)
    path = []
    for _ in range(4):
        optimizer.step(np.ones(1))
        path.append(w[0])
    assert path == [-0.5, -1.0, -1.25, -1.5]
    assert seen == [0, 0, 1, 2, 3]  # once when it is checked
    assert "lr=lr" in repr(optimizer)
    assert optimizer.effective_lr("0")[0] == 0.25


def test_hyperparameters_may_change_between_steps(backend):
    w, twin = arrays(backend, (5,), (5,))[0], arrays(backend, (5,), (5,))[0]
    gradient = arrays(backend, (5,), seed=1)[0]
    changed = ga.Adam(w, lr=0.1)
    changed.step(gradient)
    settings = changed.param_groups[0]
    settings |= {"lr": 0.3, "weight_decay": 0.2, "decay": "decoupled", "maximize": True}
    changed.step(gradient)

    first = ga.Adam(twin, lr=0.1)
    first.step(gradient)
    second = ga.Adam(twin, lr=0.3, weight_decay=0.2, decay="decoupled", maximize=True)
    state = first.state_dict()
    state["param_groups"] = second.state_dict()["param_groups"]
    second.load_state_dict(state)
    second.step(gradient)
    assert np.array_equal(backend.numpy(w), backend.numpy(twin))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_missing_gradient_is_no_step(case, backend, dtype):
    """Parameter, state and bias correction are as if that step had not been."""
    w, u, twin_w, twin_u = (backend.array(np.linspace(-1, 1, 9).astype(dtype)) for _ in range(4))
    optimizer = case.optimizer({"w": w, "u": u})
    alone = {"w": case.optimizer(twin_w), "u": case.optimizer(twin_u)}
    for step in range(5):
        gradient = backend.array(np.linspace(1, -2, 9).astype(dtype) * (step + 1))
        given = {"w": gradient if step in (1, 2, 4) else None, "u": gradient}
        optimizer.step(given)
        for name, grad in given.items():
            if grad is not None:
                alone[name].step(grad)
    for ours, twin in ((w, twin_w), (u, twin_u)):
        assert np.array_equal(backend.numpy(ours), backend.numpy(twin))
    assert optimizer.step_count == 5
    for letter, state in optimizer.state["w"].items():
        assert np.array_equal(backend.numpy(state), backend.numpy(alone["w"].state["0"][letter]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
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
    restored = [slot.array for slot in after._slots.values()]
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


def test_a_launch_that_fails_comes_before_the_cpu(host, monkeypatch):
    """CuPy compiles when it first launches: nothing may have been written by then."""
    w, v = np.ones(3), host.array(np.ones(3))
    optimizer = ga.Adam({"w": w, "v": v})

    def fail(*arguments, **settings):
        raise RuntimeError("no memory")

    monkeypatch.setattr(hostcupy.ElementwiseKernel, "__call__", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step({"w": np.ones(3), "v": host.array(np.ones(3))})
    assert np.array_equal(w, np.ones(3))
    assert optimizer.step_count == 0


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


def readonly():
    array = np.ones(3)
    array.flags.writeable = False
    return array


def overlapping():
    base = np.zeros(10)
    return {"a": base[:6], "b": base[5:]}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "without any array"),
        ({}, "without any array"),
        ([1.0], "parameter '0': got float, expected a NumPy or CuPy array"),
        ([[1.0]], "parameter '0': got list"),
        ({"w": None}, "parameter 'w': got NoneType"),
        ({"w": np.zeros(3, int)}, "parameter 'w': got dtype int64, expected float32 or float64"),
        ({"w": np.zeros(3, complex)}, "got dtype complex128"),
        ({"w": np.zeros(3, np.float16)}, "got dtype float16"),
        ({"w": np.zeros(3, ">f4")}, "got dtype >f4"),
        ({"w": np.ma.masked_less(np.zeros(3), 1)}, "got numpy.ma"),
        ({"w": readonly()}, "parameter 'w': the array is read-only"),
        ({"w": np.lib.stride_tricks.as_strided(np.zeros(1), (3,), (0,))}, "elements share memory"),
        (
            {"w": np.lib.stride_tricks.sliding_window_view(np.zeros(5), 3, writeable=True)},
            "elements share memory",
        ),
        ({1: np.zeros(3)}, "names are strings"),
        (overlapping(), "parameters 'a' and 'b' share memory"),
        ([{"params": {"w": np.zeros(1)}}, {"params": {"w": np.zeros(1)}}], "have this name"),
        ([{"params": np.zeros(1)}, np.zeros(1)], "parameter '0': got dict"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ga.ParameterError, match=message):
        ga.Adam(params)


def test_interleaved_views_are_fine(backend):
    base = np.zeros(10)
    ga.SGD([base[::2], base[1::2]]).step([np.ones(5), np.ones(5)])
    assert np.array_equal(base, np.full(10, -0.01))


def test_empty_arrays_share_nothing():
    empty = np.zeros(0)
    ga.SGD([empty, empty]).step([empty, empty])


def wrong_gradients():
    good = np.ones((2, 3), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    return [
        ({"a": good, "b": good.T}, r"gradient of 'b': got NumPy float32 array of shape \(3, 2\)"),
        ({"a": good, "b": good.astype(float)}, "gradient of 'b': got NumPy float64"),
        ({"a": good, "b": good.tolist()}, "gradient of 'b': got list"),
        ({"a": good, "b": np.float32(1)}, "gradient of 'b': got numpy.float32"),
        ({"a": good, "b": np.ma.masked_less(good, 1)}, "gradient of 'b': got numpy.ma"),
        ({"a": good, "b": hostcupy.ndarray(good)}, "gradient of 'b': got CuPy"),
        ({"a": good}, "missing 'b'"),
        ({"a": good, "b": good, "c": good}, "unknown 'c'"),
        ([good, good], "got list, expected a dict by name"),
        (good, "expected a dict by name"),
        (None, "got NoneType, expected a dict"),
    ]


@pytest.mark.parametrize(("grads", "message"), wrong_gradients())
def test_a_bad_gradient_changes_nothing(grads, message, host):
    """Even when the parameters before it had good gradients."""
    w = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 3), np.float32)}
    optimizer = ga.Adam(w)
    good = {name: np.full((2, 3), 0.5, np.float32) for name in w}
    optimizer.step(good)
    before = copy.deepcopy((w, optimizer.state_dict()))
    with pytest.raises(ga.GradientError, match=message):
        optimizer.step(grads)
    after = (w, optimizer.state_dict())
    np.testing.assert_equal(after, before)
    optimizer.step(good)


def test_a_bad_list_of_gradients():
    optimizer = ga.Adam([np.ones(2), np.ones(2)])
    with pytest.raises(ga.GradientError, match="got 1, expected a list of 2"):
        optimizer.step([np.ones(2)])
    with pytest.raises(ga.GradientError, match="got NumPy"):
        optimizer.step(np.ones(2))


def test_a_gradient_on_another_device(host):
    optimizer = ga.Adam(hostcupy.ndarray(np.ones(3), device=1))
    with pytest.raises(
        ga.GradientError, match=r"got CuPy \(device 0\).*expected CuPy \(device 1\)"
    ):
        optimizer.step(hostcupy.ndarray(np.ones(3), device=0))


def test_read_only_gradients_are_fine(backend):
    w = np.ones(3)
    ga.SGD(w, lr=1.0).step(readonly())
    assert np.array_equal(w, np.zeros(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: ga.Adam(w, lr=-1e-9), "lr: got -1e-09, expected a number >= 0"),
        (lambda w: ga.Adam(w, lr=float("nan")), "lr: got nan"),
        (lambda w: ga.Adam(w, lr=float("inf")), "lr: got inf"),
        (lambda w: ga.Adam(w, lr="fast"), "lr: got 'fast', expected a number"),
        (lambda w: ga.Adam(w, lr=None), "lr: got None"),
        (lambda w: ga.Adam(w, lr="0.1"), "lr: got '0.1', expected a number"),
        (lambda w: ga.Adam(w, lr=np.array(0.1)), "lr: got array"),
        (lambda w: ga.Adam(w, lr=10**400), "lr: got 1000"),
        (lambda w: ga.Adam(w, lr=lambda step: "0.1"), "lr: got '0.1'.*from the schedule"),
        (lambda w: ga.Adam(w, lr=lambda step: -1), "lr: got -1,.*from the schedule, at step 0"),
        (lambda w: ga.Adam(w, betas=(1.0, 0.9)), "beta1: got 1.0, expected a number in"),
        (lambda w: ga.Adam(w, betas=(0.9, -0.1)), "beta2: got -0.1"),
        (lambda w: ga.Adam(w, betas=0.9), "betas: got 0.9, expected two numbers"),
        (lambda w: ga.Adam(w, betas=(0.9,)), "betas: got"),
        (lambda w: ga.Adam(w, eps=0), "eps: got 0, expected a number > 0"),
        (lambda w: ga.Adam(w, eps=1e-50), "eps: 1e-50 does not fit in float32"),
        (lambda w: ga.Adam(w, lr=1e39), "lr: 1e\\+39 does not fit in float32"),
        (
            lambda w: ga.Adam(w, eps_mode="under"),
            "eps_mode: got 'under', expected one of 'outside'",
        ),
        (lambda w: ga.Adam(w, rho=0.9), "unknown hyperparameter 'rho'; this optimizer has"),
        (lambda w: ga.Adam(w, weight_decay=-0.1), "weight_decay: got -0.1"),
        (lambda w: ga.Adam(w, weight_decay=float("nan")), "weight_decay: got nan"),
        (lambda w: ga.Adam(w, decay="l1"), "decay: got 'l1', expected one of 'l2', 'decoupled'"),
        (lambda w: ga.Adam(w, maximize="yes"), "maximize: got 'yes'"),
        (lambda w: ga.Adam([{"params": w, "rho": 0.5}]), "unknown hyperparameter 'rho'"),
        (lambda w: ga.Adam([{"params": w, "lr": -1}]), "lr: got -1,"),
        (lambda w: ga.RMSprop(w, rho=1), "rho: got 1, expected a number in \\[0, 1\\)"),
        (lambda w: ga.Adadelta(w, eps=-1), "eps: got -1,"),
        (lambda w: ga.Adagrad(w, eps_mode="uncorrected"), "expected one of 'inside', 'outside'"),
        (lambda w: ga.SGD(w, momentum=1.0), "momentum: got 1.0"),
        (lambda w: ga.SGD(w, nesterov=True), "nesterov: needs momentum"),
        (lambda w: ga.SGD(w, momentum=np.zeros(2)), "momentum: got array"),
        (lambda w: ga.Adam(w, eps_mode=["inside"]), "eps_mode: got .'inside'., expected one of"),
        (lambda w: ga.Optimizer(ga.rules.adam, w, lr=1, eps=1, beta1=0.5), "missing.*'beta2'"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ga.HyperparameterError, match=message):
        make(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": -1.0}, "lr: got -1.0"),
        ({"lr": lambda step: float("nan")}, "lr: got nan.*at step 1"),
        ({"beta1": 1.0}, "beta1"),
        ({"decay": "none"}, "decay"),
        ({"rho": 0.5}, "unknown hyperparameter 'rho'"),
        ({"lr": np.zeros(3)}, "lr: got array"),
    ],
)
def test_a_bad_change_changes_nothing(change, message):
    w = np.ones(3)
    optimizer = ga.Adam(w)
    optimizer.step(np.ones(3))
    before = w.copy(), copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.param_groups[0].update(change)
    with pytest.raises(ga.HyperparameterError, match=message):
        optimizer.step(np.ones(3))
    np.testing.assert_equal((w, optimizer.state_dict()["state"]), before)
    assert optimizer.step_count == 1


@ga.rule
def reciprocal(p, g, h):
    return p - 1 / (h.x - 1) * g


@ga.rule
def power(p, g, h):
    return p - h.x**0.5 * g


@ga.rule
def growing(p, g, h):
    return p - g / h.x**h.t


@pytest.mark.parametrize(
    ("rule", "x", "good_steps", "message"),
    [
        (reciprocal, 1, 0, "reciprocal: .*division by zero, with {'x': 1.0, 't': 1}"),
        (power, -1, 0, "power: .*complex"),
        (growing, 1e200, 1, "growing: .*too large|growing: .*out of range"),
    ],
)
def test_a_bad_coefficient_changes_nothing(rule, x, good_steps, message):
    w, v = np.ones(3), np.ones(3)
    optimizer = ga.Optimizer(rule, [{"params": w, "x": 4.0}, {"params": v, "x": x}])
    for _ in range(good_steps):
        optimizer.step([np.ones(3), np.ones(3)])
    before = w.copy(), v.copy()
    with pytest.raises(ga.HyperparameterError, match=message):
        optimizer.step([np.ones(3), np.ones(3)])
    np.testing.assert_equal((w, v), before)
    assert optimizer.step_count == good_steps


@pytest.mark.parametrize(
    "name", ["weight_decay", "decay", "maximize", "params", "betas", "rule", "self"]
)
def test_a_rule_that_reads_a_setting(name, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        f"import gpuadapt as ga\n@ga.rule\ndef own(p, g, h):\n    return p - h.{name}\n"
    )
    names = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises(ga.HyperparameterError, match=f"'own' reads h.{name}, a setting"):
        ga.Optimizer(names["own"], np.ones(3))


def test_decoupled_decay_needs_a_learning_rate():
    w = np.ones(3)
    with pytest.raises(ga.HyperparameterError, match="missing hyperparameter 'lr'"):
        ga.Optimizer(power, w, x=1.0, weight_decay=0.5, decay="decoupled")
    ga.Optimizer(power, w, x=1.0, weight_decay=0.5, decay="decoupled", lr=0.5).step(np.zeros(3))
    assert np.array_equal(w, np.full(3, 0.75))
    with pytest.raises(ga.HyperparameterError, match="unknown hyperparameter 'lr'"):
        ga.Optimizer(power, w, x=1.0, lr=0.5)


def test_an_option_may_be_switched_off():
    w = np.ones(3)
    optimizer = ga.Optimizer(power, w, x=1.0, weight_decay=0.5, decay="decoupled", lr=0.5)
    optimizer.step(np.zeros(3))
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step(np.zeros(3))
    assert np.array_equal(w, np.full(3, 0.75))


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
    twin_w = twin._slots["w"].array
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
    assert np.array_equal(sent._slots["w"].array, w)
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


def foreign_views(backend, a, c):
    """Views of a that do not tell whose memory they are of."""
    if backend.name == "cpu":
        for view in (np.lib.stride_tricks.as_strided(a), np.asarray(memoryview(a))):
            yield {"a": c, "b": view}, "gradient of 'b': shares memory with parameter 'a'"


def test_gradients_share_no_memory(backend):
    """The gradient of a b with respect to a is b: stepping b must not see the new a."""
    a, b, c = (backend.array(np.full(4, x)) for x in (1.0, 3.0, 5.0))
    optimizer = ga.Adam({"a": a, "b": b})
    for grads, what in [
        ({"a": b, "b": c}, "gradient of 'a': shares memory with parameter 'b'"),
        ({"a": c, "b": b.reshape(2, 2).reshape(4)}, "gradient of 'b': shares memory with"),
        ({"a": optimizer.state["b"]["v"], "b": c}, "shares memory with state 'v' of 'b'"),
        *foreign_views(backend, a, c),
    ]:
        with pytest.raises(ga.GradientError, match=what):
            optimizer.step(grads)
    assert np.array_equal(backend.numpy(a), np.full(4, 1.0))
    optimizer.step({"a": c, "b": b.copy()})
    assert np.array_equal(backend.numpy(c), np.full(4, 5.0))


def test_halves_of_one_buffer_are_apart():
    pairs = np.ones((5, 2))
    ga.SGD(pairs[:, 0], lr=0.5).step(pairs[:, 1])
    assert np.array_equal(pairs[:, 0], np.full(5, 0.5))


def test_matrices_and_numbers_are_arrays():
    w, twin = np.ones((2, 2)), np.ones((2, 2))
    gradient = np.arange(4.0).reshape(2, 2)
    with pytest.warns(PendingDeprecationWarning, match="matrix"):
        matrix, matrix_gradient = np.matrix(w, copy=True), np.matrix(gradient)
    ga.Adam(matrix).step(gradient)
    ga.Adam(w).step(matrix_gradient)
    ga.Adam(twin).step(gradient)
    assert np.array_equal(w, twin) and np.array_equal(np.asarray(matrix), twin)
    scalar = np.array(1.0)
    ga.SGD(scalar, lr=0.5).step(np.ones(2).sum())
    assert scalar == 0.0


def test_groups_with_momentum_of_their_own():
    a, b, twin_a, twin_b = (np.ones(3) for _ in range(4))
    both = ga.SGD([{"params": a}, {"params": b, "momentum": 0.5}], lr=0.1)
    one, two = ga.SGD(twin_a, lr=0.1), ga.SGD(twin_b, lr=0.1, momentum=0.5)
    for _ in range(3):
        both.step([np.ones(3), np.ones(3)])
        one.step(np.ones(3))
        two.step(np.ones(3))
    assert np.array_equal(a, twin_a) and np.array_equal(b, twin_b)


def test_maps_that_would_not_be_heard_are_read_only():
    optimizer = ga.Adam({"w": np.ones(3)})
    with pytest.raises(TypeError):
        optimizer.state["w"]["m"] = np.zeros(3)
    with pytest.raises(AttributeError):
        optimizer.param_groups.append({})


def test_rates_with_a_setting_missing():
    optimizer = ga.Adam({"w": np.ones(3)})
    del optimizer.param_groups[0]["eps"]
    with pytest.raises(ga.HyperparameterError, match="missing hyperparameter 'eps'"):
        optimizer.effective_lr("w")


def test_a_rule_is_needed():
    with pytest.raises(ga.RuleError, match="decorated with @rule"):
        ga.Optimizer(lambda p, g, h: p, np.ones(3))


def test_a_cupy_array_without_a_device(monkeypatch):
    with installed("host") as backend:
        runtime = backend.library.cuda.runtime
        monkeypatch.setattr(runtime, "getDeviceCount", lambda: 1 / 0)
        with pytest.raises(ga.BackendError, match="CuPy has no CUDA device here"):
            ga.Adam(hostcupy.ndarray(np.ones(3)))


def test_overlap_on_the_gpu(host):
    base = np.zeros(10)
    with pytest.raises(ga.ParameterError, match="share memory"):
        ga.Adam([hostcupy.ndarray(base[:6]), hostcupy.ndarray(base[5:])])
    ga.Adam([hostcupy.ndarray(base[::2]), hostcupy.ndarray(base[1::2])])


def test_names_of_parameters_are_checked():
    with pytest.raises(ga.ParameterError, match="no parameter 'v'; there are w"):
        ga.SGD({"w": np.ones(2)}).effective_lr("v")


def test_a_rule_without_a_rate():
    @ga.rule
    def plain(p, g, h):
        return p - h.lr * g

    with pytest.raises(ga.RuleError, match="'plain' has no variable named 'rate'"):
        ga.Optimizer(plain, np.ones(2), lr=1.0).effective_lr("0")


def test_a_rate_that_is_not_a_matter_of_state():
    @ga.rule
    def local(p, g, h):
        rate = h.lr / (1 + abs(g))
        return p - rate * g

    with pytest.raises(ga.RuleError, match="'local' depends on more than its states"):
        ga.Optimizer(local, np.ones(2), lr=1.0).effective_lr("0")


def test_memory_maps_are_updated_on_disk(tmp_path):
    file = tmp_path / "w.bin"
    mapped = np.memmap(file, np.float32, "w+", shape=(4, 5))
    optimizer = ga.Adam(mapped, lr=0.5)
    optimizer.step(np.ones((4, 5), np.float32))
    mapped.flush()
    assert np.array_equal(np.fromfile(file, np.float32), np.full(20, -0.5, np.float32))
    assert type(optimizer.state["0"]["m"]) is np.ndarray


def test_nothing_of_the_size_of_a_parameter_is_allocated():
    import tracemalloc

    w, gradient = np.ones(1_000_000, np.float32), np.ones(1_000_000, np.float32)
    optimizer = ga.Adam(w)
    optimizer.step(gradient)
    tracemalloc.start()
    try:
        optimizer.step(gradient)
        assert tracemalloc.get_traced_memory()[1] < 20_000
        optimizer.step(np.ones(2_000_000, np.float32)[::2].copy())
        tracemalloc.reset_peak()
        strided = np.ones((1_000_000, 2), np.float32)[:, 0]
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        optimizer.step(strided)
        assert tracemalloc.get_traced_memory()[1] - held < 500_000
    finally:
        tracemalloc.stop()


def test_repr():
    w = np.ones((10, 200), np.float32)
    assert repr(ga.Adagrad(w)) == (
        "Adagrad(adagrad: weight_decay=0.0, decay='l2', maximize=False, lr=0.01, eps=1e-08; "
        "1 group, 1 parameter, 2,000 elements on cpu; step 0)"
    )
