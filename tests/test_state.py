"""State: exact resume, snapshots and copies; what does not fit changes nothing."""

import copy
import pickle

import hostcupy
import numpy as np
import pytest
from cases import KINDS
from test_optimizer import arrays

import gpuadapt as ga


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


def test_maps_that_would_not_be_heard_are_read_only():
    optimizer = ga.Adam({"w": np.ones(3)})
    with pytest.raises(TypeError):
        optimizer.state["w"]["m"] = np.zeros(3)
    with pytest.raises(AttributeError):
        optimizer.param_groups.append({})
