"""Hooks before and after a step, and ranges of NVTX around it."""

import copy
import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import installed

import gpuadapt as ga
from gpuadapt.optimizer import internals


def made(backend, **settings):
    return ga.SGD({"w": backend.array(np.ones(4, np.float32))}, lr=0.5, **settings)


def gradient(backend, value=0.5):
    return {"w": backend.array(np.full(4, value, np.float32))}


def test_hooks_are_called_before_and_after_with_what_the_step_was_given(backend):
    optimizer, seen = made(backend), []

    def look(when):
        def hook(one, args, kwargs):
            assert one is optimizer
            seen.append((when, args, kwargs, backend.numpy(one.params["w"])[0], one.step_count))

        return hook

    before = optimizer.register_step_pre_hook(look("before"))
    after = optimizer.register_step_post_hook(look("after"))
    given = gradient(backend)
    optimizer.step(given)
    optimizer.step(given, max_norm=4.0, skip_nonfinite=True, stats=["w"])
    assert all(args[0] is given and len(args) == 1 for _, args, *_ in seen)
    assert [(when, kwargs, w, count) for when, _, kwargs, w, count in seen] == [
        ("before", {}, 1.0, 0),
        ("after", {}, 0.75, 1),
        ("before", {"max_norm": 4.0, "skip_nonfinite": True, "stats": ["w"]}, 0.75, 1),
        ("after", {"max_norm": 4.0, "skip_nonfinite": True, "stats": ["w"]}, 0.5, 2),
    ]
    before.remove()
    before.remove()
    optimizer.step(given)
    assert [when for when, *_ in seen[4:]] == ["after"]
    with after:
        optimizer.step(given)
    optimizer.step(given)
    assert len(seen) == 6 and optimizer._hooks is None


def test_a_hook_before_may_write_into_gradients(backend):
    optimizer = made(backend)

    def halve(one, args, kwargs):
        args[0]["w"][...] = backend.array(np.full(4, 0.25, np.float32))

    optimizer.register_step_pre_hook(halve)
    optimizer.step(gradient(backend))
    assert backend.numpy(optimizer.params["w"])[0] == 1 - 0.5 * 0.25


@pytest.mark.parametrize("how", ["raises", "returns"])
def test_a_hook_that_raises_before_a_step_has_changed_nothing(how, backend):
    """Nor does one that returns something: torch's could replace the arguments so."""
    optimizer, after = made(backend), []

    def hook(one, args, kwargs):
        if how == "raises":
            raise KeyError("mine")
        return args, kwargs

    with optimizer.register_step_pre_hook(hook):
        optimizer.register_step_post_hook(lambda *_: after.append(1))
        error, text = {
            "raises": (KeyError, "mine"),
            "returns": (ga.GradientError, "hook .* returned tuple, expected None: a hook cannot"),
        }[how]
        with pytest.raises(error, match=text):
            optimizer.step(gradient(backend))
    assert optimizer.step_count == 0 and optimizer.last is None and not after
    assert (backend.numpy(optimizer.params["w"]) == 1).all()
    optimizer.step(gradient(backend))
    assert optimizer.step_count == 1 and after == [1]


def test_when_a_hook_raises_after_a_step_it_has_been_taken(backend):
    optimizer = made(backend)

    class Stop(Exception):
        pass

    def hook(one, args, kwargs):
        raise Stop

    handle = optimizer.register_step_post_hook(hook)
    with pytest.raises(Stop):
        optimizer.step(gradient(backend))
    assert optimizer.step_count == 1 and (backend.numpy(optimizer.params["w"]) == 0.75).all()
    handle.remove()
    optimizer.step(gradient(backend))
    assert optimizer.step_count == 2


def test_hooks_after_know_of_skipped_steps_and_not_of_refused_ones(backend):
    optimizer, skipped = made(backend), []
    optimizer.register_step_post_hook(lambda one, *_: skipped.append(one.last.skipped))
    scale = ga.LossScale(2.0)
    optimizer.step(gradient(backend), skip_nonfinite=True)
    optimizer.step(gradient(backend, np.nan), skip_nonfinite=True)
    optimizer.step(gradient(backend, np.inf), grad_scale=scale)
    optimizer.step(gradient(backend), grad_scale=scale)
    for wrong in ({"w": None, "v": None}, {"w": backend.array(np.ones(3, np.float32))}):
        with pytest.raises(ga.GradientError):
            optimizer.step(wrong)
    assert skipped == [False, True, True, False]


@pytest.mark.parametrize("kind", ["register_step_pre_hook", "register_step_post_hook"])
def test_a_step_in_a_hook_is_refused_and_reading_is_not(kind, backend):
    optimizer, other, read = made(backend), made(backend), []

    def hook(one, args, kwargs):
        read.append(one.state_dict())
        with pytest.raises(ga.ConcurrencyError, match="step: this optimizer is in the middle of"):
            one.step(args[0])
        with pytest.raises(ga.ConcurrencyError, match="load_state_dict: this optimizer is in the"):
            one.load_state_dict(read[0])
        read.append(one.effective_lr("w"))
        other.step(args[0])

    getattr(optimizer, kind)(hook)
    optimizer.step(gradient(backend))
    assert optimizer.step_count == other.step_count == 1
    count = {"register_step_pre_hook": 0, "register_step_post_hook": 1}[kind]
    assert read[0]["step_count"] == count


def test_hooks_may_be_added_and_removed_in_a_hook():
    with installed("cpu") as backend:
        optimizer, called = made(backend), []

        def once(one, args, kwargs):
            called.append("once")
            handle.remove()
            one.register_step_post_hook(lambda *_: called.append("later"))

        handle = optimizer.register_step_pre_hook(once)
        for _ in range(2):
            optimizer.step(gradient(backend))
        assert called == ["once", "later"]


def test_one_function_registered_twice_is_removed_once():
    with installed("cpu") as backend:
        optimizer, called = made(backend), []
        hook = lambda *_: called.append(1)  # noqa: E731
        first, _second = (optimizer.register_step_pre_hook(hook) for _ in range(2))
        optimizer.step(gradient(backend))
        first.remove()
        optimizer.step(gradient(backend))
        assert len(called) == 3


def test_copies_have_no_hooks(backend):
    optimizer, called = made(backend), []
    optimizer.register_step_pre_hook(lambda *_: called.append(1))
    others = [copy.deepcopy(optimizer)]
    if backend.name == "cpu":
        others.append(pickle.loads(pickle.dumps(optimizer)))
    for other in others:
        other.step(gradient(backend))
        assert other.step_count == 1 and not called
    optimizer.step(gradient(backend))
    assert called == [1]


def test_what_is_no_function_is_refused():
    with installed("cpu") as backend:
        optimizer = made(backend)
        with pytest.raises(
            ga.HyperparameterError, match=r"hook: got int, expected a function of \("
        ):
            optimizer.register_step_post_hook(3)


def test_threads_take_turns_with_their_hooks():
    with installed("cpu") as backend:
        optimizer, inside = made(backend), []
        overlaps = []

        def enter(*_):
            overlaps.append(bool(inside))
            inside.append(1)

        optimizer.register_step_pre_hook(enter)
        optimizer.register_step_post_hook(lambda *_: inside.pop())
        given = gradient(backend, 0.0)
        threads = [
            threading.Thread(target=lambda: [optimizer.step(given) for _ in range(50)])
            for _ in range(4)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert overlaps == [False] * 200


@pytest.fixture
def marks(host, monkeypatch):
    """What a profiler is told."""
    found = []
    nvtx = SimpleNamespace(RangePush=found.append, RangePop=lambda: found.append("end"))
    monkeypatch.setattr(host.library.cuda, "nvtx", nvtx, raising=False)
    return found


def test_ranges_of_steps(host, marks):
    """Around hooks too, and around steps that raise."""
    optimizer = made(host)
    optimizer.register_step_pre_hook(lambda *_: marks.append("before"))
    optimizer.register_step_post_hook(lambda *_: marks.append("after"))
    with ga.hooks.nvtx(optimizer):
        optimizer.step(gradient(host))
        with pytest.raises(ga.GradientError):
            optimizer.step({"w": host.array(np.ones(3, np.float32))})
    optimizer.step(gradient(host))
    begin = "gpuadapt SGD.step"
    assert marks == [begin, "before", "after", "end", begin, "before", "end", "before", "after"]


def test_a_range_ends_when_a_hook_raises(host, marks):
    optimizer = made(host)
    ga.hooks.nvtx(optimizer)

    def interrupted(*_):
        raise KeyboardInterrupt

    optimizer.register_step_pre_hook(interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(gradient(host))
    assert marks == ["gpuadapt SGD.step", "end"]


def test_ranges_are_for_steps_on_a_gpu():
    with (
        installed("cpu") as backend,
        pytest.raises(ga.BackendError, match="nvtx: no parameter of the optimizer is on a GPU"),
    ):
        ga.hooks.nvtx(made(backend))
    with pytest.raises(ga.BackendError, match="nvtx: got float, expected an optimizer of gpuadapt"):
        ga.hooks.nvtx(3.0)


def test_a_step_with_hooks_has_the_bits_of_one_without(backend):
    """Also on a stream, and with arrays that are adapted."""
    found = []
    for hooked in (False, True):
        optimizer = ga.Adam({"w": backend.array(np.linspace(0, 1, 300, dtype=np.float32))})
        if hooked:
            optimizer.register_step_pre_hook(lambda *_: None)
            optimizer.register_step_post_hook(lambda *_: None)
        for step in range(4):
            values = backend.array(np.full(300, 1 / (1 + step), np.float32))
            optimizer.step({"w": values}, max_norm=1.0)
        found.append(backend.numpy(optimizer.params["w"]).tobytes())
        assert internals(optimizer).steps.count == 4
    assert found[0] == found[1]
