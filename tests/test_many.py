"""Many arrays in one launch: the bits of one array at a time, and nothing allocated."""

import pickle
import tracemalloc

import hostcupy
import numpy as np
import pytest
from cases import CASES, KINDS
from conftest import crossed, installed

import gpuadapt as ga
from gpuadapt.kernels.cpu import calling, multi_tensor
from gpuadapt.optimizer import internals
from gpuadapt.run import match

SIZES = (1, 7, 1000, 0, multi_tensor.CHUNK + 3, 33)
LARGE = calling.ALONE + multi_tensor.CHUNK + 37


def states(backend, optimizer):
    return [backend.numpy(s) for of in optimizer.state.values() for s in of.values()]


def check_alone(case, backend, dtype, sizes, **options):
    """A few steps of all arrays together, and of each by an optimizer of its own."""
    random = np.random.default_rng(1)
    start = [random.normal(size=size).astype(dtype) for size in sizes]
    grads = [[random.normal(size=size).astype(dtype) for size in sizes] for _ in range(3)]
    together, apart = ([backend.array(w) for w in start] for _ in range(2))
    optimizer = case.optimizer(together)
    optimizers = [case.optimizer(w) for w in apart]
    for given in grads:
        optimizer.step([backend.array(g) for g in given], **options)
        for one, g in zip(optimizers, given, strict=True):
            one.step(backend.array(g), **options)
    for a, b in zip(together, apart, strict=True):
        assert np.array_equal(backend.numpy(a), backend.numpy(b))
    ours, theirs = states(backend, optimizer), [s for o in optimizers for s in states(backend, o)]
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b)


@crossed(CASES, KINDS[:3], always={("cpu", "float32")})
def test_as_one_at_a_time(item, backend, dtype):
    check_alone(item, backend, dtype, (*SIZES, LARGE) if backend.name != "host" else SIZES)


@crossed(KINDS[::3], KINDS[:1], always={("cpu", "float32")})
def test_as_one_at_a_time_with_options_of_the_step(item, backend, dtype):
    check_alone(item, backend, dtype, SIZES, grad_scale=3.0, clip_value=0.5)


def test_groups_types_and_rows_in_one_step(backend):
    """Different rates and options, float32 and float64, a table by rows, strides: at once."""
    random = np.random.default_rng(2)
    a, b, c, d = (random.normal(size=(20, 6)) for _ in range(4))
    arrays = [a.astype(np.float32), b, c.astype(np.float32), d.astype(np.float32)[:, ::2]]
    settings = [{"lr": 0.1}, {"lr": 0.2}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9)}]
    together, apart = ([backend.array(w) for w in arrays] for _ in range(2))
    optimizer = ga.Adam([{"params": w, **s} for w, s in zip(together, settings, strict=True)])
    alone = [ga.Adam(w, **s) for w, s in zip(apart, settings, strict=True)]
    for _ in range(3):
        grads = [random.normal(size=w.shape).astype(w.dtype) for w in arrays]
        rows = random.integers(0, 20, 30)
        values = random.normal(size=(30, 6)).astype(np.float32)
        given = [backend.array(g) for g in grads]
        given[2] = ga.RowGrad(backend.array(rows), backend.array(values))
        optimizer.step(given)
        for one, grad in zip(alone, given, strict=True):
            one.step(grad)
    for x, y in zip(together, apart, strict=True):
        assert np.array_equal(backend.numpy(x), backend.numpy(y))


def test_groups_share_a_launch(host):
    arrays = [host.array(np.ones(5)) for _ in range(3)]
    optimizer = ga.Adam([{"params": w, "lr": 0.1 * k} for k, w in enumerate(arrays, 1)])
    launches = hostcupy.RawKernel.launches
    launches.clear()
    optimizer.step([host.array(np.ones(5)) for _ in range(3)])
    assert launches == ["gpuadapt_adam_many"]


def test_a_missing_gradient_is_as_if_the_step_had_not_been(backend, dtype):
    random = np.random.default_rng(3)
    start, grads = random.normal(size=(2, 50)), random.normal(size=(5, 2, 50))
    v, w = (backend.array(x.astype(dtype)) for x in start)
    twin = backend.array(start[1].astype(dtype))
    both, alone = ga.Adam([v, w], lr=0.1), ga.Adam(twin, lr=0.1)
    for step, (g, h) in enumerate(grads.astype(dtype)):
        missing = step in (1, 2)
        both.step([backend.array(g), None if missing else backend.array(h)])
        if not missing:
            alone.step(backend.array(h))
    assert np.array_equal(backend.numpy(w), backend.numpy(twin))
    assert both.step_count == 5 and alone.step_count == 3
    updates = {name: entry["updates"] for name, entry in both.state_dict()["state"].items()}
    assert updates == {"0": 5, "1": 3}


@pytest.mark.parametrize("options", [{}, {"grad_scale": 2.0, "max_norm": 1.0}], ids=str)
def test_a_steady_step_allocates_next_to_nothing(options):
    arrays = {str(k): np.ones((100, 100), np.float32) for k in range(100)}
    grads = {name: np.ones_like(array) for name, array in arrays.items()}
    optimizer = ga.Adam(arrays)
    for _ in range(3):
        optimizer.step(grads, **options)
    tracemalloc.start()
    optimizer.step(grads, **options)
    new = {name: grad.copy() for name, grad in grads.items()}
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    optimizer.step(new, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 64 * 1024  # of 4 MB of gradients


class Sub(np.ndarray):
    """A subclass, as memory maps are."""


GRADIENTS = {
    "of another shape": (lambda g: g.reshape(4, 3), False),
    "of another type": (lambda g: g.astype(int), False),
    "of another byte order": (lambda g: g.astype(">f4"), False),
    "of a byte order by its name": (lambda g: g.astype(np.dtype("=f4").newbyteorder("<")), True),
    "masked": (lambda g: np.ma.array(g), False),
    "a list": (lambda g: g.tolist(), False),
    "a number": (lambda g: 3, False),
    "a subclass": (lambda g: g.view(Sub), True),
    "in Fortran's order": (lambda g: np.asfortranarray(g), True),
    "with gaps": (lambda g: np.repeat(g, 2, axis=1)[:, ::2], True),
    "read-only": (lambda g: np.broadcast_to(g, g.shape), True),
    "not aligned": (lambda g: _shifted(g), True),
}


def _shifted(array):
    raw = np.empty(array.nbytes + 1, np.uint8)
    result = raw[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_among_many_are_looked_at(name):
    """One that is not as the others is found among them, and refused or right all the same."""
    make, right = GRADIENTS[name]
    arrays = [np.ones((3, 4), np.float32) for _ in range(5)]
    optimizer = ga.SGD(arrays, lr=0.5)
    grads = [np.full((3, 4), k, np.float32) for k in range(5)]
    optimizer.step(grads)
    before = [w.copy() for w in arrays]
    given = [*grads[:3], make(grads[3]), grads[4]]
    if right:
        optimizer.step(given)
        for k, (w, old) in enumerate(zip(arrays, before, strict=True)):
            assert np.array_equal(w, old - np.float32(0.5 * k))
    else:
        with pytest.raises(ga.GradientError, match="'3'"):
            optimizer.step(given)
        assert all(np.array_equal(w, old) for w, old in zip(arrays, before, strict=True))


def test_an_array_that_changes_its_shape_is_noticed(backend):
    w, g = (backend.array(np.ones((3, 4))) for _ in range(2))
    optimizer = ga.SGD({"w": w})
    optimizer.step({"w": g})
    g.shape = (4, 3)
    with pytest.raises(ga.GradientError, match=r"\(4, 3\)"):
        optimizer.step({"w": g})
    w.shape = (12,)
    g.shape = (3, 4)
    optimizer.step({"w": g})  # the optimizer keeps the shape that the parameter had
    assert (backend.numpy(w) < 1).all()


def test_a_gradient_may_share_memory_with_no_array():
    flat = np.ones((10, 6), np.float32)
    optimizer = ga.Adam(list(flat[::2]))
    for at in (0, 4, 8):
        grads = list(np.ones((5, 6), np.float32))
        grads[2] = flat[at]
        with pytest.raises(ga.GradientError, match="shares memory"):
            optimizer.step(grads)
    grads[2] = flat[1]
    optimizer.step(grads)


def test_arrays_on_both_backends(host):
    random = np.random.default_rng(4)
    start, grads = random.normal(size=(4, 30)), random.normal(size=(3, 4, 30))
    mixed = [host.array(w) if k % 2 else w.copy() for k, w in enumerate(start)]
    plain = list(start.copy())
    ours, theirs = ga.Adam(mixed, lr=0.1), ga.Adam(plain, lr=0.1)
    for step in grads:
        given = [host.array(g) if k % 2 else g for k, g in enumerate(step)]
        ours.step(given, max_norm=1.0)
        theirs.step(list(step), max_norm=1.0)
        assert ours.last == theirs.last and ours.last.clip_factor < 1
    for k, (a, b) in enumerate(zip(mixed, plain, strict=True)):
        assert np.array_equal(host.numpy(a) if k % 2 else a, b)
    bad = [host.array(g) if k % 2 else g for k, g in enumerate(grads[0])]
    bad[1][...] = host.array(np.full(30, np.nan))
    ours.step(bad, skip_nonfinite=True)
    assert ours.last.skipped and ours.step_count == 3
    ours.step([host.array(g) if k % 2 else g for k, g in enumerate(grads[1])])
    theirs.step(list(grads[1]))
    for k, (a, b) in enumerate(zip(mixed, plain, strict=True)):
        assert np.array_equal(host.numpy(a) if k % 2 else a, b)


def test_arrays_on_two_gpus():
    with installed("host"):
        arrays = [hostcupy.ndarray(np.ones(9), device=k) for k in (0, 1, 1)]
        grads = [hostcupy.ndarray(np.full(9, 2.0), device=k) for k in (0, 1, 1)]
        optimizer = ga.SGD(arrays, lr=1.0)
        optimizer.step(grads, max_norm=np.sqrt(27.0))
        assert optimizer.last.grad_norm == np.sqrt(4 * 27.0)
        assert all(np.array_equal(w.host, np.zeros(9)) for w in arrays)


def test_a_step_that_is_refused_changes_no_later_one(backend):
    """The tables were laid out for it already."""
    arrays, twins = ({"a": np.ones(3), "t": np.ones((4, 2))} for _ in range(2))
    arrays = {name: backend.array(w) for name, w in arrays.items()}
    ours, theirs = ga.Adam(arrays, lr=0.1, check="raise"), ga.Adam(twins, lr=0.1)
    good = {"a": np.ones(3), "t": np.ones((4, 2))}
    given = {name: backend.array(g) for name, g in good.items()}
    bad = ga.RowGrad(backend.array(np.array([9])), backend.array(np.ones((1, 2))))
    for step in range(4):
        if step in (1, 2):
            with pytest.raises(ga.RowIndexError):
                ours.step({"a": None, "t": bad})
        ours.step(given)
        theirs.step(good)
    for name, w in arrays.items():
        assert np.array_equal(backend.numpy(w), twins[name])
    counts = [e["updates"] for e in ours.state_dict()["state"].values()]
    assert counts == [4, 4]


def test_settings_that_change_between_steps_are_seen_by_every_step():
    """A limit on rows that comes later, after steps that were all alike, and goes again."""
    w = np.zeros((3, 4))
    optimizer, g = ga.SGD(w, lr=1.0), np.full((3, 4), 10.0)
    lengths = []
    for most in (np.inf, np.inf, 1.0, 1.0, np.inf, np.inf):
        optimizer.param_groups[0]["max_row_norm"] = most
        before = w.copy()
        optimizer.step(g)
        lengths.append(round(float(np.linalg.norm(w - before, axis=1).max()), 6))
    assert lengths == [20, 20, 1, 1, 20, 20]


def test_arrays_that_were_pickled_are_as_fast():
    """Their types are equal, not the same; the tables take them all the same."""
    arrays = [np.ones((4, 3), np.float32) for _ in range(6)]
    optimizer = pickle.loads(pickle.dumps(ga.Adam(arrays, lr=0.1)))
    grads = pickle.loads(pickle.dumps([np.ones((4, 3), np.float32) for _ in range(6)]))
    assert grads[0].dtype is not arrays[0].dtype
    optimizer.step(grads)
    (plan,) = internals(optimizer).steps.plans
    for given in (grads, arrays):
        assert match(
            plan,
            [array.copy() for array in given],
            [group.prepare(1) for group in internals(optimizer).groups],
        )
    assert np.allclose(optimizer.params["0"], 0.9)


def test_compilation_that_fails_comes_before_anything_is_written(monkeypatch):
    w, gapped = np.ones(3, np.float32), np.ones((3, 2))[:, 0]
    optimizer = ga.Adam([w, gapped])
    compiled = multi_tensor.kernel

    def fail(rule, formats):
        if formats.compute == "float64":
            raise MemoryError
        return compiled(rule, formats)

    monkeypatch.setattr(multi_tensor, "kernel", fail)
    with pytest.raises(MemoryError):
        optimizer.step([np.ones(3, np.float32), np.ones(3)])
    assert (w == 1).all() and optimizer.step_count == 0


def test_rates_are_computed_where_the_parameter_is(monkeypatch):
    with installed("host"):
        w, g = (hostcupy.ndarray(np.ones(3), device=1) for _ in range(2))
        optimizer = ga.Adam({"w": w})
        optimizer.step({"w": g})
        used, call = [], hostcupy.RawKernel.__call__
        monkeypatch.setattr(
            hostcupy.RawKernel,
            "__call__",
            lambda *given: used.append(hostcupy.Device.current[-1]) or call(*given),
        )
        assert optimizer.effective_lr("w").device.id == 1
        assert used == [1]
