"""Settings: names, numbers of any kind, schedules, and what is said where one is wrong."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import optimizers

pytestmark = pytest.mark.usefixtures("by_numpy")

MEANS = [ga.Adam, ga.AdamW, ga.Adamax, ga.NAdam, ga.RAdam, ga.Lion]


def ones(n: int = 3) -> np.ndarray:
    return np.ones(n, np.float32)


@pytest.mark.parametrize("make", MEANS, ids=lambda make: make.__name__)
def test_beta1_and_beta2_take_effect(make: Any) -> None:
    """Beside betas that nobody has given; given both ways they are refused."""
    settings = make(ones(), beta1=0.25).param_groups[0]
    usual = inspect.signature(ga.Adam if make is ga.AdamW else make).parameters["betas"].default
    assert (settings["beta1"], settings["beta2"]) == (0.25, usual[1])
    a, b = ones(), ones()
    one, two = make(a, lr=0.1, beta1=0.5, beta2=0.75), make(b, lr=0.1, betas=(0.5, 0.75))
    for k in range(2):
        one.step(ones() * k)
        two.step(ones() * k)
    assert np.array_equal(a, b)
    for betas in ((0.9, 0.999), tuple(usual), [0.5, 0.75]):
        for wrong in (
            lambda given=betas: make(ones(), betas=given, beta2=0.5),
            lambda given=betas: make([{"params": ones(), "betas": given, "beta2": 0.5}]),
        ):
            with pytest.raises(ga.HyperparameterError, match=r"betas: got .* beside beta2=0.5"):
                wrong()
    group = make([{"params": ones(), "beta1": 0.5}], betas=(0.25, 0.75)).param_groups[0]
    assert (group["beta1"], group["beta2"]) == (0.5, 0.75)
    group = make([{"params": ones(), "betas": (0.5, 0.625)}], beta1=0.25).param_groups[0]
    assert (group["beta1"], group["beta2"]) == (0.5, 0.625)


# Each row: how a library's users write a number.
NUMBERS = {
    "float": float,
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": ml_dtypes.bfloat16,
    "0-d": np.array,
    "0-d float32": lambda x: np.array(x, np.float32),
    "0-d memory map": lambda x: np.array(x).view(np.memmap),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_kind(kind: str) -> None:
    make = NUMBERS[kind]

    def run(n: Any) -> list[np.ndarray]:
        w, u = ones(), ones()
        optimizer = ga.RMSprop(
            {"w": w}, lr=n(0.5), rho=n(0.75), eps=n(0.125), weight_decay=n(0.25),
            initial_square=n(0.5), momentum=n(0.5), max_row_norm=n(4.0), initial={"b": n(0.25)},
        )  # fmt: skip
        pair = ga.Adam(u, lr=lambda step: n(0.25), betas=np.array([0.5, 0.75]))
        for _ in range(2):
            optimizer.step({"w": ones()}, max_norm=n(1.5), clip_value=n(0.5), grad_scale=n(2.0))
            pair.step(ones())
        optimizer.param_groups[0]["lr"] = n(0.25)
        optimizer.step({"w": ones()})
        optimizer.flush(fraction=n(0.5))
        scale = ga.LossScale(n(8.0), growth=n(2.0), backoff=n(0.5))
        return [w, u, np.array([float(scale)])]

    for found, expected in zip(run(make), run(float), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", [int, np.int8, np.uint64, lambda x: np.array(x, np.int16)])
def test_whole_numbers_of_any_type(kind: Any) -> None:
    w, twin = (np.ones(40, ml_dtypes.bfloat16) for _ in range(2))
    one = ga.SGD(w, lr=kind(1), rounding="stochastic", seed=kind(3))
    two = ga.SGD(twin, lr=1, rounding="stochastic", seed=3)
    assert type(one.param_groups[0]["seed"]) is int
    assert repr(one) == repr(two)
    assert ga.LossScale(interval=kind(5)).rates[2] == 5


def test_arrays_are_copied() -> None:
    """A number that is written into an array later is another's affair."""
    rate, w = np.array(0.5), ones()
    optimizer = ga.SGD(w, lr=rate)
    rate[...] = 99.0
    optimizer.step(ones())
    assert w[0] == 0.5
    optimizer.param_groups[0]["lr"] = later = np.array(99.0)
    later[...] = 0.25  # nobody has looked at it yet
    optimizer.step(ones())
    later[...] = 99.0
    optimizer.step(ones())
    assert w[0] == 0.0
    assert type(optimizer.param_groups[0]["lr"]) is float


@pytest.mark.parametrize("value", [True, np.True_, np.array(True), 1j, np.array(1j), "1", b"1"])
@pytest.mark.parametrize("name", ["lr", "weight_decay", "beta1", "eps", "max_row_norm"])
def test_what_is_no_number(name: str, value: Any) -> None:
    with pytest.raises(ga.HyperparameterError, match=f"{name}: got .*, expected a number"):
        ga.Adam(ones(), **{name: value})
    for option in ("max_norm", "clip_value", "grad_scale"):
        with pytest.raises(ga.HyperparameterError, match=f"{option}: got"):
            ga.Adam(ones()).step(ones(), **{option: value})


def test_numbers_on_a_gpu_are_refused(host: Any) -> None:
    """To read one would be to wait for it."""
    rate = host.array(np.array(0.5))
    for lr in (rate, lambda step: rate):
        with pytest.raises(ga.HyperparameterError, match=r"lr: got CuPy .* give float\(...\)"):
            ga.SGD(host.array(ones()), lr=lr).step(host.array(ones()))


@pytest.mark.parametrize("value", [True, np.True_, 1.5, np.array([3]), "3", -1])
def test_a_seed_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ga.HyperparameterError, match=r"seed: got .*, expected a whole number"):
        ga.SGD(np.ones(3, ml_dtypes.bfloat16), rounding="stochastic", seed=value)


# Each row: constructor, its settings with eps = 0; whether the formula allows it.
ZERO_EPS = [
    (ga.Adam, {}, False),
    (ga.Adam, {"eps_mode": "inside"}, False),
    (ga.Adam, {"eps_mode": "uncorrected", "amsgrad": True}, False),
    (ga.Adamax, {}, False),
    (ga.Adamax, {"eps_mode": "max"}, False),
    (ga.NAdam, {}, False),
    (ga.RAdam, {}, False),
    (ga.RMSprop, {}, False),
    (ga.RMSprop, {"initial_square": 1.0, "eps_mode": "outside"}, False),  # it decays to 0
    (ga.RMSprop, {"centered": True}, False),
    (ga.Adadelta, {}, False),
    (ga.Adagrad, {}, False),
    (ga.Adagrad, {"eps_mode": "outside"}, False),
    (ga.Adagrad, {"initial_accumulator": 1e-40}, False),  # zero in float32
    (ga.Adagrad, {"initial_accumulator": 0.1, "state_dtype": "bfloat16"}, False),
    (ga.Adagrad, {"initial_accumulator": 0.1}, True),
    (ga.Adagrad, {"initial_accumulator": 0.1, "eps_mode": "outside"}, True),
    (ga.presets.optax.adam, {"learning_rate": 0.1, "eps_root": 1e-8}, True),
    (ga.presets.optax.adam, {"learning_rate": 0.1}, False),
]


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize(("make", "settings", "allowed"), ZERO_EPS)
def test_eps_may_be_zero_where_nothing_is_divided_by_it(
    make: Any, settings: dict[str, Any], allowed: bool, scheduled: bool
) -> None:
    w = ones()
    eps = (lambda step: 0.0) if scheduled else 0.0

    def run() -> None:
        optimizer = make({"w": w}, eps=eps, **settings)
        for _ in range(3):
            optimizer.step({"w": ones() * 0})

    if allowed:
        run()
        assert np.array_equal(w, ones())
    else:
        with pytest.raises(ga.HyperparameterError, match="eps: got 0, expected a number > 0: an"):
            run()
        assert np.array_equal(w, ones())


# Each row: constructor, a keyword from elsewhere, what the message begins with.
ELSEWHERE = [
    (ga.Adam, "learning_rate", "did you mean lr?"),
    (ga.Adam, "alpha", "did you mean lr?"),
    (ga.RMSprop, "alpha", "did you mean rho or lr?"),
    (ga.Adam, "epsilon", "did you mean eps?"),
    (ga.Adam, "beta_1", "did you mean beta1?"),
    (ga.Adam, "b2", "did you mean beta2?"),
    (ga.Adam, "momentum", "did you mean beta1?"),
    (ga.Adagrad, "momentum", "did you mean momentum=... of the constructor of SGD or RMSprop?"),
    (ga.SGD, "max_norm", "did you mean optimizer.step(grads, max_norm=...)?"),
    (ga.SGD, "clipnorm", "did you mean optimizer.step(grads, max_norm=...)?"),
    (ga.SGD, "clip_norm", "did you mean optimizer.step(grads, max_norm=...)?"),
    (ga.SGD, "clipvalue", "did you mean optimizer.step(grads, clip_value=...)?"),
    (ga.RMSprop, "amsgrad", "did you mean amsgrad=True of the constructor of Adam or AdamW?"),
    (ga.Adam, "nesterov", "did you mean nesterov=True of the constructor of SGD, or NAdam?"),
    (ga.SGD, "use_nesterov", "did you mean nesterov?"),
    (ga.Adam, "weigth_decay", "did you mean weight_decay?"),
    (ga.Adam, "weightdecay", "did you mean weight_decay?"),
    (ga.Adam, "wd", "did you mean weight_decay?"),
    (ga.Adam, "ams_grad", "did you mean amsgrad?"),
    (ga.Adagrad, "initial_accumulator_value", "did you mean initial_accumulator?"),
    (ga.Adam, "xyz", "unknown hyperparameter 'xyz'"),
]


@pytest.mark.parametrize(("make", "name", "begin"), ELSEWHERE)
def test_names_from_elsewhere(make: Any, name: str, begin: str) -> None:
    with pytest.raises(ga.KeywordError) as error:
        make(ones(), **{name: 0.5})
    assert isinstance(error.value, TypeError) and isinstance(error.value, ga.HyperparameterError)
    assert str(error.value).startswith(begin)
    assert f"unknown hyperparameter {name!r}; this optimizer has " in str(error.value)
    w = ones()
    optimizer = make(w)
    optimizer.step(ones())
    before = w.copy()
    optimizer.param_groups[0][name] = 0.5
    with pytest.raises(ga.KeywordError, match=f"unknown hyperparameter {name!r}"):
        optimizer.step(ones())
    assert np.array_equal(w, before)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("AdaGrad", "Adagrad"), ("RMSProp", "RMSprop"), ("AdaDelta", "Adadelta"),
        ("Nadam", "NAdam"), ("Radam", "RAdam"), ("AdaMax", "Adamax"), ("Adamw", "AdamW"),
        ("Ftrl", "FTRL"), ("LION", "Lion"), ("sgd", "SGD"), ("MomentumSGD", "SGD(params, mom"),
        ("SparseAdam", "Adam, whose step takes RowGrad"), ("GradScaler", "LossScale"),
        ("RowGradient", "RowGrad"),
    ],
)  # fmt: skip
def test_classes_from_elsewhere(name: str, instead: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(ga, name)
    assert str(error.value).startswith(f"did you mean {instead}")
    assert not hasattr(ga, "LBFGS")


@pytest.mark.parametrize("make", [getattr(ga, name) for name in optimizers.__all__])
def test_attributes_are_not_settings(make: Any) -> None:
    w = ones()
    optimizer = make(w)
    settings = [name for name in optimizer.param_groups[0] if name != "params"]
    for name in (*settings, "learning_rate"):
        with pytest.raises(AttributeError) as error:
            setattr(optimizer, name, 0.5)
        wanted = "lr" if name == "learning_rate" else name
        assert f'optimizer.param_groups[0]["{wanted}"] = ' in str(error.value)
    for name, words in {
        "param_groups": "param_groups[0]", "state": "optimizer.state[name]", "Lr": '"lr"',
        "step_count": "load_state_dict", "max_norm": "optimizer.step(grads, max_norm",
        "foo": "in optimizer.param_groups",
    }.items():  # fmt: skip
        with pytest.raises(AttributeError) as error:
            setattr(optimizer, name, 0.5)
        assert words in str(error.value), name
    assert copy.deepcopy(optimizer).step_count == pickle.loads(pickle.dumps(optimizer)).step_count


class Own(ga.SGD):
    """A user's class, with something of its own."""

    history: list[int]

    def __init__(self, params: Any, **more: Any) -> None:
        super().__init__(params, **more)
        self.history, self.other = [], 1


def test_a_class_of_the_users_has_attributes_of_its_own() -> None:
    optimizer = Own(ones())
    optimizer.history = [3]
    optimizer.step = optimizer.step
    with pytest.raises(AttributeError, match="did you mean"):
        optimizer.lr = 0.5


@pytest.mark.parametrize("value", [{"w": ones()}, ones(), [ones()], ["v"], None])
def test_params_of_a_group_cannot_be_replaced(value: Any) -> None:
    w = ones()
    optimizer = ga.Adam({"w": w})
    for taken in range(2):
        kept = optimizer.param_groups[0]["params"]
        optimizer.param_groups[0]["params"] = value
        for call in (
            lambda: optimizer.step({"w": ones()}),
            lambda: optimizer.effective_lr("w"),
        ):
            with pytest.raises(ga.ParameterError, match=r"param_groups: .*`add`.*`grow`"):
                call()
        assert optimizer.step_count == taken
        assert optimizer.state_dict()["param_groups"][0]["params"] == ["w"]
        optimizer.param_groups[0]["params"] = list(kept)  # the same names
        optimizer.step({"w": ones()})


@pytest.mark.parametrize("name", ["lr", "beta2", "decay", "params", "check"])
def test_settings_cannot_be_deleted(name: str) -> None:
    optimizer = ga.Adam({"w": ones()})
    for taken in range(2):
        kept = optimizer.param_groups[0].pop(name)
        with pytest.raises(ga.HyperparameterError, match=f"missing hyperparameter '{name}'"):
            optimizer.step({"w": ones()})
        assert optimizer.step_count == taken
        optimizer.param_groups[0][name] = kept
        optimizer.step({"w": ones()})


class Told:
    """A schedule that gives one value after another, and remembers what it was asked."""

    def __init__(self, *values: Any) -> None:
        self.values, self.asked = list(values), []

    def __call__(self, step: int) -> Any:
        self.asked.append(step)
        return self.values.pop(0)


def test_a_schedule_with_a_state_is_asked_once_per_step() -> None:
    """By all groups and settings that share it, by what shows rates, and by steps refused."""
    told = Told(1.0, 0.5, 0.25, 0.125)
    w, u = ones(), ones()
    optimizer = ga.SGD([{"params": {"w": w}}, {"params": {"u": u}}], lr=told, weight_decay=told)
    repr(optimizer), optimizer.state_dict(), copy.deepcopy(optimizer)
    assert told.asked == []
    zero = {"w": ones() * 0, "u": ones() * 0}
    optimizer.step(zero)
    assert w[0] == u[0] == 0.0 and told.asked == [0]
    assert optimizer.effective_lr("w")[0] == 1.0
    w[...], u[...] = 1, 1
    with pytest.raises(ga.GradientError):
        optimizer.step({"w": ones(), "u": ones(2)})
    with pytest.raises(ga.HyperparameterError):
        optimizer.step(zero, max_norm=-1.0)
    optimizer.step(zero)
    assert w[0] == u[0] == 0.75 and told.asked == [0, 1]
    optimizer.step(zero, stats=["w"])
    assert told.asked == [0, 1, 2] and optimizer.stats("w").rates[0.5] == 0.25
    repr(optimizer), optimizer.state_dict()
    optimizer.step(zero)
    assert told.asked == [0, 1, 2, 3]


def test_a_generator_is_a_schedule() -> None:
    values = iter([1.0, 0.5, 0.25])
    w = np.zeros(1)
    optimizer = ga.SGD(w, lr=lambda step: next(values))
    path = []
    for _ in range(3):
        optimizer.step(np.ones(1))
        path.append(float(w[0]))
    assert path == [-1.0, -1.5, -1.75]


def test_a_bad_value_of_a_schedule_is_asked_for_again() -> None:
    told, w = Told(-1.0, 1e39, 0.5), ones()
    optimizer = ga.SGD(w, lr=told)
    for message in ("at step 0", "does not fit"):
        with pytest.raises(ga.HyperparameterError, match=message):
            optimizer.step(ones())
    optimizer.step(ones())
    assert w[0] == 0.5 and told.asked == [0, 0, 0]


def test_a_schedule_that_presets_multiply_is_asked_once() -> None:
    told, w = Told(0.5, 0.25), np.ones(1)
    optimizer = ga.presets.chainer.Adam(w, told, eta=0.5, weight_decay_rate=told)
    optimizer.step(np.zeros(1))
    optimizer.step(np.zeros(1))
    assert told.asked == [0, 1] and w[0] == 0.75 * 0.875


def test_a_schedule_gives_numbers_not_arrays() -> None:
    value = np.array(0.5)
    w = np.zeros(1)
    optimizer = ga.SGD(w, lr=lambda step: value)
    optimizer.step(np.ones(1))
    value[...] = 99.0
    assert optimizer.effective_lr("0")[0] == 0.5


def test_a_loaded_optimizer_asks_again() -> None:
    told = Told(1.0, 0.5, 0.25)
    optimizer = ga.SGD({"w": ones()}, lr=told)
    optimizer.step({"w": ones()})
    state = optimizer.state_dict()
    optimizer.step({"w": ones()})
    optimizer.load_state_dict(state)
    assert told.asked == [0, 1]
    optimizer.step({"w": ones()})
    assert told.asked == [0, 1, 1]


def test_schedules_are_asked_in_order_for_replays() -> None:
    """Of steps that may have been skipped, and of those that are prepared ahead."""
    from conftest import installed

    with installed("host") as device:
        told = Told(*(1.0 / 2**k for k in range(12)))
        w, twin = device.array(ones()), device.array(ones())
        optimizer, expected = ga.SGD(w, lr=told), ga.SGD(twin, lr=lambda step: 1.0 / 2**step)
        grad, stream = device.array(ones()), device.library.cuda.Stream()
        optimizer.capturable = True
        with stream:
            for bad in (False, True, False):
                value = np.array([np.nan if bad else 1, 1, 1], np.float32)
                grad[...] = device.library.asarray(value)
                optimizer.step(grad, skip_nonfinite=True)
                expected.step(device.array(value), skip_nonfinite=True)
            stream.begin_capture()
            optimizer.step(grad, skip_nonfinite=True)
            graph = stream.end_capture()
            optimizer.prepare_replay(3)
            for _ in range(3):
                graph.launch(stream)
                expected.step(device.array(ones()))
            assert np.array_equal(device.numpy(w), device.numpy(twin))
            assert told.asked == sorted(set(told.asked)) and told.asked[0] == 0
            optimizer.param_groups[0]["lr"] = new = Told(0.5, 0.25, 0.125)
            count = optimizer.step_count
            optimizer.prepare_replay(2)
            # One of the steps that were prepared before is still to come.
            assert new.asked == [count, count + 1, count + 2]


NUMERIC = {"lr": 0.5, "weight_decay": 0.25, "max_row_norm": 4.0, "beta1": 0.5, "eps": 0.125}


@pytest.mark.parametrize("old", [False, True], ids=["marked", "of before"])
@pytest.mark.parametrize("name", NUMERIC)
def test_a_snapshot_replaces_no_schedule_in_silence(name: str, old: bool) -> None:
    def schedule(step: int) -> float:
        return NUMERIC[name]

    def made(**settings: Any) -> ga.Optimizer:
        optimizer = ga.Adam({"w": ones()}, **settings)
        optimizer.step({"w": ones()})
        return optimizer

    def saved(optimizer: ga.Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        if old:
            del state["param_groups"][0]["schedules"]
        return state

    scheduled, fixed = made(**{name: schedule}), made(**{name: NUMERIC[name]})
    plain, other = saved(fixed), saved(scheduled)
    if not old:
        assert other["param_groups"][0]["schedules"] == [name]
    for optimizer, state, message in (
        (scheduled, plain, f"{name}: the snapshot has {NUMERIC[name]}, this optimizer a schedule"),
        (fixed, other, f"{name}: it was a schedule in the snapshot"),
        (made(), other, f"{name}: it was a schedule in the snapshot"),
    ):
        before = dict(optimizer.param_groups[0])
        with pytest.raises(ga.StateError, match=message):
            optimizer.load_state_dict(state)
        assert optimizer.param_groups[0] == before
    made(**{name: schedule}).load_state_dict(other)
    # What the messages say.
    fixed.param_groups[0][name] = schedule
    fixed.load_state_dict(other)
    assert fixed.param_groups[0][name] is schedule
    del plain["param_groups"][0][name]
    scheduled.load_state_dict(plain)
    assert scheduled.param_groups[0][name] is schedule
    other["param_groups"][0][name] = NUMERIC[name]
    last = made()
    last.load_state_dict(other)
    assert last.param_groups[0][name] == NUMERIC[name]
    left = made().load_state_dict(saved(scheduled), strict=False)
    assert old or left.settings == [f"param_groups[0][{name!r}]"]


def test_infinite_counts_and_names_are_no_settings() -> None:
    assert math.isinf(ga.Adam(ones()).param_groups[0]["max_row_norm"])
    with pytest.raises(ga.HyperparameterError, match=r"'own' reads h.schedules, a setting"):
        ga.Optimizer(own, ones(), schedules=1.0)


@ga.rule
def own(p, g, h):  # type: ignore[no-untyped-def]
    return p - h.schedules * g
