"""The surface: structures, groups, schedules, what a step does and what it allocates."""

import copy
import pickle

import hostcupy
import numpy as np
import pytest
from cases import CASES, KINDS
from test_errors import power, readonly

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
    assert seen == [0, 1, 2, 3]
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


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case.name)
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


def test_interleaved_views_are_fine(backend):
    base = np.zeros(10)
    ga.SGD([base[::2], base[1::2]]).step([np.ones(5), np.ones(5)])
    assert np.array_equal(base, np.full(10, -0.01))


def test_empty_arrays_share_nothing():
    empty = np.zeros(0)
    ga.SGD([empty, empty]).step([empty, empty])


def test_read_only_gradients_are_fine(backend):
    w = np.ones(3)
    ga.SGD(w, lr=1.0).step(readonly())
    assert np.array_equal(w, np.zeros(3))


def test_an_option_may_be_switched_off():
    w = np.ones(3)
    optimizer = ga.Optimizer(power, w, x=1.0, weight_decay=0.5, decay="decoupled", lr=0.5)
    optimizer.step(np.zeros(3))
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step(np.zeros(3))
    assert np.array_equal(w, np.full(3, 0.75))


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


def test_a_nan_is_not_a_weight_of_zero(backend):
    """FTRL's zeros are for what is small, not for what is no number."""
    w = backend.array(np.ones(3))
    ga.FTRL(w).step(backend.array(np.array([np.nan, 0.0, 1.0])))
    assert np.isnan(backend.numpy(w)[0]) and np.isfinite(backend.numpy(w)[1:]).all()


def test_a_coefficient_that_does_not_fit():
    """1 / lr fits in float64 and not in float32; one float32 parameter of a group is enough."""
    w, v = np.ones(3, np.float32), np.ones(3)
    for params in ({"w": w}, {"w": w, "v": v}):
        grads = {name: np.ones_like(array) for name, array in params.items()}
        with pytest.raises(ga.HyperparameterError, match=r"ftrl: a coefficient is .* too large"):
            ga.FTRL(params, lr=1e-39).step(grads)
    ga.FTRL({"v": v}, lr=1e-39).step({"v": np.ones(3)})
    assert (w == 1).all() and np.isfinite(v).all() and (v != 1).all()


def test_a_start_of_ones_own_beside_that_of_an_option():
    optimizer = ga.RMSprop(np.zeros(2), momentum=0.5, initial_square=1.0, initial={"b": 2.0})
    assert {k: a[0] for k, a in optimizer.state["0"].items()} == {"G": 1.0, "b": 2.0}
    assert ga.Adagrad(np.zeros(2), initial={"G": 3.0}).state["0"]["G"][0] == 3.0


def test_rates_before_any_gradient():
    optimizer = ga.Adagrad({"w": np.zeros(2)}, lr=0.5, eps_mode="none")
    assert (optimizer.effective_lr("w") == 0.5).all()


def test_states_begin_as_they_are_told(backend, dtype):
    table = backend.array(np.zeros((3, 4), dtype))
    first = {"m": 0.0, "v": 2.0}
    for rowwise in (False, True):
        optimizer = ga.Optimizer(
            ga.rules.adam, {"w": table}, lr=0.1, betas=(0.5, 0.5), eps=1.0, rowwise=rowwise,
            initial={"v": 2.0},
        )  # fmt: skip
        for letter, array in optimizer.state["w"].items():
            values = backend.numpy(array)
            assert values.shape == ((3,) if rowwise and letter == "v" else (3, 4))
            assert (values == first[letter]).all() and values.dtype == dtype


def small(step):
    return 1e-8


@pytest.mark.parametrize(
    ("params", "grads"),
    [({}, {}), ([], []), ((), ()), ([{"params": []}], [[]]), ([{"params": {}, "lr": 1}], [{}])],
    ids=repr,
)
def test_no_parameters_at_all(params, grads):
    """A step of nothing is a step: schedules go on, and a snapshot has its number."""
    asked = []
    optimizer = ga.Adam(params, eps=lambda step: asked.append(step) or 1e-8)
    optimizer.step(grads)
    optimizer.step({})
    optimizer.step(grads, max_norm=1.0, grad_scale=ga.LossScale(2.0))
    assert optimizer.step_count == 3 and sorted(set(asked)) == [0, 1, 2]
    assert optimizer.last == (0.0, 1.0, False)
    assert "3 steps taken" in repr(optimizer) and "no parameters" in repr(optimizer)
    again = ga.Adam(params, eps=small)
    again.load_state_dict(optimizer.state_dict())
    for other in (again, copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        other.step(grads)
        assert other.step_count == 4 and not other.state and other.skipped_rows == 0
    again.flush()
    with pytest.raises(ga.CaptureError, match="not all on one CUDA device"):
        again.capturable = True
    with pytest.raises(ga.GradientError, match="unknown 'w'"):
        again.step({"w": np.ones(3)})
