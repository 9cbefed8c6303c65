"""What is refused, with which words; a step that raises has changed nothing."""

import copy
import math

import hostcupy
import numpy as np
import pytest
from conftest import installed

import gpuadapt as ga


def test_a_launch_that_fails_comes_before_the_cpu(host, monkeypatch):
    """CuPy compiles when it first launches: nothing may have been written by then."""
    w, v = np.ones(3), host.array(np.ones(3))
    optimizer = ga.Adam({"w": w, "v": v})

    def fail(*arguments, **settings):
        raise RuntimeError("no memory")

    monkeypatch.setattr(hostcupy.RawKernel, "__call__", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step({"w": np.ones(3), "v": host.array(np.ones(3))})
    assert np.array_equal(w, np.ones(3))
    assert optimizer.step_count == 0


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
        ([1.0], "parameter '0': got float, expected a NumPy or CuPy array"),
        ([[1.0]], "parameter '0.0': got float"),
        ({"w": None}, "parameter 'w': got NoneType"),
        ({"w": np.zeros(3, int)}, "parameter 'w': got dtype int64, expected float64, float32"),
        ({"w": np.zeros(3, complex)}, "got dtype complex128"),
        ({"w": np.zeros(3, np.uint16)}, "got dtype uint16"),
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
        ([{"params": np.zeros(1)}, np.zeros(1)], "0 is a group, .*, and 1 is NumPy float64 array"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ga.ParameterError, match=message):
        ga.Adam(params)


def wrong_gradients():
    good = np.ones((2, 3), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    return [
        ({"a": good, "b": good.T}, r"gradient of 'b': got NumPy float32 array of shape \(3, 2\)"),
        ({"a": good, "b": good.astype(int)}, "gradient of 'b': got NumPy int64"),
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: ga.Adam(w, lr=-1e-9), "lr: got -1e-09, expected a number >= 0"),
        (lambda w: ga.Adam(w, lr=float("nan")), "lr: got nan"),
        (lambda w: ga.Adam(w, lr=float("inf")), "lr: got inf"),
        (lambda w: ga.Adam(w, lr="fast"), "lr: got 'fast', expected a number"),
        (lambda w: ga.Adam(w, lr=None), "lr: got None"),
        (lambda w: ga.Adam(w, lr="0.1"), "lr: got '0.1', expected a number"),
        (lambda w: ga.Adam(w, lr=np.array([0.1])), "lr: got array"),
        (lambda w: ga.Adam(w, lr=10**400), "lr: got 1000"),
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
        (lambda w: ga.RMSprop(w, rho=1.5), "rho: got 1.5, expected a number in \\[0, 1\\]"),
        (lambda w: ga.RMSprop(w, eps_mode="none"), "eps_mode: got 'none', expected one of"),
        (lambda w: ga.RMSprop(w, initial_square=-1), "initial_square: got -1, expected .* >= 0"),
        (lambda w: ga.Adagrad(w, initial_accumulator=math.inf), "initial_accumulator: got inf"),
        (lambda w: ga.Adam(w, initial=3), "initial: got 3, expected numbers by state"),
        (lambda w: ga.Adam(w, initial=["v"]), r"initial: got \['v'\], expected numbers by state"),
        (lambda w: ga.Adagrad(w, initial={"g": 1}), "initial: 'adagrad' has no state 'g'"),
        (lambda w: ga.Adam(w.astype("f4"), initial={"v": 1e300}), "initial v: 1e\\+300 does not"),
        (lambda w: ga.SGD(w, momentum=0.5, nesterov="no"), "nesterov: got 'no', expected one of"),
        (lambda w: ga.RMSprop(w, centered="no"), "centered: got 'no', expected one of False"),
        (lambda w: ga.FTRL(w, initial_accumulator=-0.1), "initial_accumulator: got -0.1, expe"),
        (lambda w: ga.FTRL(w, l1=-1), "l1: got -1, expected a number >= 0"),
        (lambda w: ga.FTRL(w, l2=-1), "l2: got -1, expected a number >= 0"),
        (lambda w: ga.FTRL(w, beta=-1), "beta: got -1, expected a number >= 0"),
        (lambda w: ga.Adagrad(w, lr_decay=-0.1), "lr_decay: got -0.1, expected a number >= 0"),
        (lambda w: ga.SGD(w, momentum=0.5, momentum_form="ball"), "momentum_form: got 'ball'"),
        (lambda w: ga.SGD(w, dampening=0.5), "dampening: only for .*heavy_ball"),
        (lambda w: ga.SGD(w, momentum=0.5, dampening=0.1, nesterov=True), "dampening: only"),
        (lambda w: ga.SGD(w, momentum=0.5, dampening=0.1, momentum_form="velocity"), "dampening"),
        (lambda w: ga.Adam(w, amsgrad="max"), "amsgrad: got 'max', expected one of False, True"),
        (lambda w: ga.Adam(w, bias_correction=0), "bias_correction: got 0, expected one of True"),
        (lambda w: ga.Adamax(w, eps_mode="inside"), "eps_mode: got 'inside', expected one of 'a"),
        (lambda w: ga.NAdam(w, schedule=0.5), "schedule: got 0.5, expected one of True, False"),
        (lambda w: ga.NAdam(w, momentum_decay=-1), "momentum_decay: got -1, expected .* >= 0"),
        (lambda w: ga.Optimizer(ga.rules.sgd, w, lr=1, initial={"G": 1}), "'sgd' has no state 'G'"),
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
        ({"lr": lambda step: "0.1"}, "lr: got '0.1'.*from the schedule"),
        ({"lr": lambda step: -1}, "lr: got -1,.*from the schedule, at step 1"),
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
    "name",
    [
        *("weight_decay", "decay", "maximize", "params", "betas", "rule", "self", "initial"),
        *("grad_scale", "clip_factor", "clip_value"),
    ],
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


def test_gradients_between_and_across_elements_on_the_gpu(host):
    """Arrays with gaps that have nothing in common, and elements that overlap in part."""
    memory = np.zeros(84, np.uint8)
    base = memory[:80].view(np.float32)
    optimizer = ga.SGD(hostcupy.ndarray(base[::2]), lr=0.5)
    optimizer.step(hostcupy.ndarray(base[1::2]))
    for gradient in (base[::2], base[:10], memory[2:42].view(np.float32)):
        with pytest.raises(ga.GradientError, match="shares memory with parameter"):
            optimizer.step(hostcupy.ndarray(gradient))
    with pytest.raises(ga.ParameterError, match="share memory"):
        ga.SGD([hostcupy.ndarray(base[::2]), hostcupy.ndarray(memory[2:82].view(np.float32)[::2])])


def test_a_gradient_that_is_the_parameter_imported_twice(host):
    """Each import of another library's memory makes an owner of its own in CuPy."""
    memory, other = np.ones(10, np.float32), np.ones(10, np.float32)
    parameter, again, gradient = (
        hostcupy.ndarray(of, imported=True) for of in (memory, memory, other)
    )
    optimizer = ga.SGD(parameter, lr=0.5)
    with pytest.raises(ga.GradientError, match="gradient of '0': shares memory with parameter"):
        optimizer.step(again)
    assert (memory == 1).all()
    optimizer.step(gradient)
    assert (memory == 0.5).all()


def test_kernels_for_gaps_are_compiled_before_anything_is_written(host, monkeypatch):
    """On two devices, of which the first one could have been updated by then."""
    arrays = [hostcupy.ndarray(np.ones(8)[::step], device=k) for k, step in ((0, 1), (1, 2))]
    grads = [hostcupy.ndarray(np.ones(8)[::step], device=k) for k, step in ((0, 1), (1, 2))]
    optimizer, call = ga.SGD(arrays), hostcupy.ElementwiseKernel.__call__
    monkeypatch.setattr(hostcupy.ElementwiseKernel, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(grads)
    assert all((w.host == 1).all() for w in arrays) and optimizer.step_count == 0
    monkeypatch.setattr(hostcupy.ElementwiseKernel, "__call__", call)
    optimizer.step(grads)
    assert all((w.host != 1).all() for w in arrays)


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
