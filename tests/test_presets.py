"""Presets against the frameworks themselves, with every option other than its default.

What cannot be installed is held against TensorFlow's published numbers, and against the
papers' methods in the form that is written for Chainer below.
"""

import inspect
import os
import pickle

import numpy as np
import pytest
import reference
from conftest import Backend
from test_golden import CASES, is_sparse, reproduce

from gpuadapt import HyperparameterError, KeywordError, presets
from gpuadapt.signatures import own_names

os.environ.setdefault("KERAS_BACKEND", "jax")

pytestmark = pytest.mark.usefixtures("by_numpy")
CPU = Backend("cpu", np)
STEPS = 8
ULPS = 8
"""Most that a float32 weight may differ by, in units of the largest one's last place."""


def data():
    """A start, and gradients from 1e-6 to 1 with a zero element and a step without any."""
    random = np.random.default_rng(3)
    start = random.normal(size=40).astype(np.float32)
    gradients = random.normal(size=(STEPS, 40)) * 10.0 ** random.integers(-6, 1, (STEPS, 40))
    gradients[:, 0] = 0
    gradients[4] = 0
    return start, gradients.astype(np.float32)


def by_torch(name, **given):
    torch = pytest.importorskip("torch")
    start, gradients = data()
    w = torch.tensor(start, requires_grad=True)
    optimizer = getattr(torch.optim, name)([w], **given)
    for gradient in gradients:
        w.grad = torch.tensor(gradient)
        if name == "SparseAdam":
            w.grad = torch.sparse_coo_tensor(torch.arange(len(w))[None], w.grad)
        optimizer.step()
    return w.detach().numpy()


def by_keras(name, **given):
    keras = pytest.importorskip("keras")
    start, gradients = data()
    w = keras.Variable(start)
    optimizer = getattr(keras.optimizers, name)(**given)
    optimizer.build([w])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [w])
    return np.array(w)


def by_optax(name, **given):
    optax = pytest.importorskip("optax")
    start, gradients = data()
    transformation = getattr(optax, name)(**given)
    w = optax.apply_updates(start, np.zeros_like(start))
    state = transformation.init(w)
    for gradient in gradients:
        updates, state = transformation.update(gradient, state, w)
        w = optax.apply_updates(w, updates)
    return np.array(w)


LIVE = {"torch": by_torch, "keras": by_keras, "optax": by_optax}
DECAYED = {"weight_decay": 0.03}
BETAS = {"betas": (0.8, 0.95), "eps": 1e-2, **DECAYED}
BETA_1 = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-2, **DECAYED}
B1 = {"learning_rate": 0.02, "b1": 0.8, "b2": 0.95, "eps": 1e-2}
CENTERED = {"momentum": 0.6, "centered": True}

# Each row: framework, constructor, its options.
ROWS = [
    ("torch", "SGD", {"lr": 0.1, "momentum": 0.7, "dampening": 0.3, "maximize": True, **DECAYED}),
    ("torch", "SGD", {"lr": 0.1, "momentum": 0.7, "nesterov": True, **DECAYED}),
    ("torch", "Adagrad", {"lr": 0.1, "lr_decay": 0.2, "initial_accumulator_value": 0.1,
                          "eps": 1e-2, "maximize": True, **DECAYED}),
    ("torch", "RMSprop", {"lr": 0.02, "alpha": 0.8, "eps": 1e-2, **DECAYED}),
    ("torch", "RMSprop", {"lr": 0.02, "alpha": 0.8, "eps": 1e-2, "momentum": 0.6, **DECAYED}),
    ("torch", "RMSprop", {"lr": 0.02, "alpha": 0.8, "eps": 1e-2, **CENTERED, **DECAYED}),
    ("torch", "Adadelta", {"lr": 0.7, "rho": 0.8, "eps": 1e-3, **DECAYED}),
    ("torch", "Adam", {"lr": 0.02, **BETAS}),
    ("torch", "Adam", {"lr": 0.02, "amsgrad": True, "maximize": True, **BETAS}),
    ("torch", "Adam", {"lr": 0.02, "decoupled_weight_decay": True, **BETAS}),
    ("torch", "AdamW", {"lr": 0.02, "amsgrad": True, **BETAS}),
    ("torch", "SparseAdam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-2}),
    ("torch", "Adamax", {"lr": 0.02, **BETAS}),
    ("torch", "NAdam", {"lr": 0.02, "momentum_decay": 0.3, **BETAS}),
    ("torch", "NAdam", {"lr": 0.02, "decoupled_weight_decay": True, **BETAS}),
    ("torch", "RAdam", {"lr": 0.02, **BETAS}),
    ("torch", "RAdam", {"lr": 0.02, "decoupled_weight_decay": True, **BETAS}),
    ("keras", "SGD", {"learning_rate": 0.1, "momentum": 0.7, **DECAYED}),
    ("keras", "SGD", {"learning_rate": 0.1, "momentum": 0.7, "nesterov": True, **DECAYED}),
    ("keras", "SGD", {"learning_rate": 0.1, "nesterov": True}),
    ("keras", "Adagrad", {"learning_rate": 0.1, "epsilon": 1e-2, **DECAYED}),
    ("keras", "RMSprop", {"learning_rate": 0.02, "rho": 0.8, "epsilon": 1e-2, **DECAYED}),
    ("keras", "RMSprop", {"learning_rate": 0.02, "epsilon": 1e-2, "momentum": 0.6, **DECAYED}),
    ("keras", "RMSprop", {"learning_rate": 0.02, "epsilon": 1e-2, **CENTERED, **DECAYED}),
    ("keras", "Adadelta", {"learning_rate": 0.7, "rho": 0.8, "epsilon": 1e-3, **DECAYED}),
    ("keras", "Adam", {"learning_rate": 0.02, **BETA_1}),
    ("keras", "Adam", {"learning_rate": 0.02, "amsgrad": True, **BETA_1}),
    ("keras", "AdamW", {"learning_rate": 0.02, **BETA_1}),
    ("keras", "Adamax", {"learning_rate": 0.02, **BETA_1}),
    ("keras", "Nadam", {"learning_rate": 0.02, **BETA_1}),
    ("keras", "Ftrl", {"learning_rate": 0.3, "l1_regularization_strength": 0.1, "beta": 0.5,
                       "l2_regularization_strength": 0.2, "initial_accumulator_value": 0.3}),
    ("keras", "Lion", {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.95, **DECAYED}),
    ("optax", "sgd", {"learning_rate": 0.1, "momentum": 0.7}),
    ("optax", "sgd", {"learning_rate": 0.1, "momentum": 0.7, "nesterov": True}),
    ("optax", "sgd", {"learning_rate": 0.1, "nesterov": True}),
    ("optax", "adagrad", {"learning_rate": 0.1, "eps": 1e-2}),
    ("optax", "rmsprop", {"learning_rate": 0.02, "decay": 0.8, "eps": 1e-2, "initial_scale": 0.5}),
    ("optax", "rmsprop", {"learning_rate": 0.02, "eps": 1e-2, "eps_in_sqrt": False}),
    ("optax", "rmsprop", {"learning_rate": 0.02, "eps": 1e-2, "momentum": 0.6}),
    ("optax", "rmsprop", {"learning_rate": 0.02, "eps": 1e-2, **CENTERED}),
    ("optax", "adadelta", {"learning_rate": 0.7, "rho": 0.8, "eps": 1e-3, **DECAYED}),
    ("optax", "adam", B1),
    ("optax", "adam", {**B1, "eps_root": 1e-3}),
    ("optax", "adam", {**B1, "nesterov": True}),
    ("optax", "adamw", {**B1, **DECAYED}),
    ("optax", "amsgrad", B1),
    ("optax", "adamax", B1),
    ("optax", "adamaxw", {**B1, **DECAYED}),
    ("optax", "nadam", {**B1, "eps_root": 1e-3}),
    ("optax", "nadamw", {**B1, **DECAYED}),
    ("optax", "radam", {**B1, "threshold": 4.5}),
    ("optax", "lion", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.95, **DECAYED}),
]  # fmt: skip


def ours(make, **given):
    start, gradients = data()
    w = start.copy()
    optimizer = make(w, **given)
    for gradient in gradients:
        optimizer.step(gradient)
    return w


def distance(a, b):
    """In units of the last place of the largest weight."""
    start, _ = data()
    moved = np.abs(b - start).max()
    assert moved > 0.02, "too little to compare"
    return np.abs(a.astype(float) - b).max() / np.spacing(np.abs(start).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("framework", "name", "given"), ROWS, ids=[f"{f}-{n}-{len(g)}" for f, n, g in ROWS]
)
def test_the_framework_itself(framework, name, given):
    theirs = LIVE[framework](name, **given)
    got = ours(getattr(getattr(presets, framework), name), **given)
    assert distance(got, theirs) <= ULPS


def module_of(framework):
    if framework == "torch":
        return pytest.importorskip("torch").optim
    return pytest.importorskip("keras").optimizers if framework == "keras" else (
        pytest.importorskip("optax"))  # fmt: skip


@pytest.mark.parametrize("framework", LIVE)
def test_names_and_defaults_are_the_frameworks(framework):
    theirs, compared = module_of(framework), 0
    for name, preset in vars(getattr(presets, framework)).items():
        if inspect.isfunction(preset) and preset.__module__.endswith(f"presets.{framework}"):
            if name.startswith("_"):
                continue
            known = inspect.signature(getattr(theirs, name)).parameters
            ours = inspect.signature(preset).parameters
            for option in own_names(preset)[1:]:
                assert ours[option].default == known[option].default, (name, option)
                compared += 1
            assert {f for f, n, _ in ROWS if n == name} >= {framework}, f"{name} has no row"
    assert compared > 30


# Of those that cannot be installed, from their documentation.
DEFAULTS = {
    "tensorflow": {
        "AdagradOptimizer": {"initial_accumulator_value": 0.1},
        "MomentumOptimizer": {"use_nesterov": False},
        "RMSPropOptimizer": {"decay": 0.9, "momentum": 0.0, "epsilon": 1e-10, "centered": False},
        "AdadeltaOptimizer": {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-8},
        "AdamOptimizer": {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "FtrlOptimizer": {"initial_accumulator_value": 0.1, "l1_regularization_strength": 0.0,
                          "l2_regularization_strength": 0.0, "beta": None},
    },
    "chainer": {
        "SGD": {"lr": 0.01},
        "MomentumSGD": {"lr": 0.01, "momentum": 0.9},
        "NesterovAG": {"lr": 0.01, "momentum": 0.9},
        "AdaGrad": {"lr": 0.001, "eps": 1e-8},
        "RMSprop": {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "eps_inside_sqrt": False},
        "RMSpropGraves": {"lr": 1e-4, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4},
        "AdaDelta": {"rho": 0.95, "eps": 1e-6},
        "Adam": {"alpha": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eta": 1.0,
                 "weight_decay_rate": 0, "amsgrad": False},
    },
}  # fmt: skip


@pytest.mark.parametrize("framework", DEFAULTS)
def test_defaults_that_are_documented(framework):
    found = {}
    for name, preset in vars(getattr(presets, framework)).items():
        if inspect.isfunction(preset) and preset.__module__.endswith(f"presets.{framework}"):
            parameters = map(inspect.signature(preset).parameters.get, own_names(preset))
            given = {p.name: p.default for p in parameters if p.default is not p.empty}
            found |= {name: given} if given else {}
    assert found == DEFAULTS[framework]


def test_adadelta_of_optax_without_a_rate():
    """Its steps are not turned around: the loss would rise."""
    theirs = by_optax("adadelta", eps=1e-3)
    start, gradients = data()
    assert np.sum((theirs - start) * gradients.sum(axis=0)) > 0
    with pytest.raises(HyperparameterError, match="learning_rate: None steps uphill in optax"):
        presets.optax.adadelta(start)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda w: presets.keras.SGD(w, nesterov=True), "sgd"),
        (lambda w: presets.optax.sgd(w, 0.1, 0.0, nesterov=True), "sgd"),
        (lambda w: presets.tensorflow.MomentumOptimizer(w, 0.1, 0.0, True), "sgd"),
        (lambda w: presets.torch.SGD(w, 0.1, dampening=0.5), "sgd"),
        (lambda w: presets.keras.SGD(group(w), nesterov=True), "nesterov_velocity"),
        (lambda w: presets.optax.sgd(group(w), 0.1, nesterov=True), "nesterov"),
        (lambda w: presets.tensorflow.MomentumOptimizer(group(w), 0.1, 0.0, True), "nesterov"),
        (lambda w: presets.torch.SGD(group(w), 0.1, dampening=0.5), "momentum"),
    ],
)
def test_momentum_that_is_not_there(make, rule):
    """What goes with it is ignored, as there; and used where a group has it."""
    assert make(np.zeros(3)).rule.name == rule


def group(w):
    return [{"params": w, "momentum": 0.9}]


def falling_rate(step):
    return 0.1 / (1 + step)


def test_presets_with_schedules_can_be_pickled():
    optimizer = presets.chainer.Adam({"w": np.zeros(3)}, falling_rate, eta=0.5)
    copy = pickle.loads(pickle.dumps(optimizer))
    for one in (optimizer, copy):
        one.step({"w": np.ones(3)})
    assert copy.param_groups[0]["lr"](1) == 0.025


@pytest.mark.parametrize("value", ["0.1", None, np.ones(2)])
def test_what_a_preset_cannot_scale(value):
    for make in (
        lambda: presets.chainer.Adam(np.zeros(3), value),
        lambda: presets.chainer.Adam(np.zeros(3), eta=value),
        lambda: presets.keras.Ftrl(np.zeros(3), l2_regularization_strength=value),
    ):
        with pytest.raises(HyperparameterError, match=r"got .*, expected a number"):
            make()


def test_schedules_of_presets():
    """What a preset computes from a hyperparameter, it computes from a schedule as well."""
    chainer = {"beta1": 0.8, "eps": 1e-2, "eta": 0.5}
    ftrl = {"learning_rate": 0.3, "l1_regularization_strength": 0.1}
    adam = {"learning_rate": 0.02, "eps": 1e-2}
    for make, fixed, names in (
        (presets.chainer.Adam, chainer, {"alpha": 0.04, "weight_decay_rate": 0.02}),
        (presets.keras.Ftrl, ftrl, {"l2_regularization_strength": 0.2}),
        (presets.optax.adam, adam, {"eps_root": 1e-2}),
    ):
        schedules = {name: (lambda step, v=value: v) for name, value in names.items()}
        assert np.array_equal(ours(make, **fixed, **schedules), ours(make, **fixed, **names))
        zeros = dict.fromkeys(names, 0.0) | {"alpha": 0.04} if "alpha" in names else {}
        assert not np.array_equal(ours(make, **fixed, **zeros), ours(make, **fixed, **names))


TENSORFLOW = {
    "tf/adagrad/basic": lambda w, h: presets.tensorflow.AdagradOptimizer(w, h["lr"]),
    "tf/rmsprop/without_momentum": lambda w, h: presets.tensorflow.RMSPropOptimizer(
        w, h["lr"], epsilon=h["eps"]
    ),
    "tf/rmsprop/with_momentum": lambda w, h: presets.tensorflow.RMSPropOptimizer(
        w, h["lr"], momentum=h["momentum"], epsilon=h["eps"]
    ),
    "tf/rmsprop/table5_dense": lambda w, h: presets.tensorflow.RMSPropOptimizer(
        w, h["lr"], h["rho"], h["momentum"], h["eps"], centered=True
    ),
    "tf/adadelta/basic_g0.2_lr0.5": lambda w, h: presets.tensorflow.AdadeltaOptimizer(w, h["lr"]),
    "tf/momentum/basic": lambda w, h: presets.tensorflow.MomentumOptimizer(
        w, h["lr"], h["momentum"]
    ),
    "tf/momentum/nesterov_5x2": lambda w, h: presets.tensorflow.MomentumOptimizer(
        w, h["lr"], h["momentum"], use_nesterov=True
    ),
}


@pytest.mark.parametrize("name", TENSORFLOW)
def test_tensorflows_published_numbers(name, dtype):
    case = CASES[name]
    assert not is_sparse(case)
    reproduce(case, CPU, dtype, lambda case, w: TENSORFLOW[name](w, case["hyper"]))


ADAM = {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2, "eps_mode": "uncorrected"}

# Each row: our preset and its options; the paper's method in that framework's form.
FORMS = {
    "tensorflow sgd": (presets.tensorflow.GradientDescentOptimizer, {"learning_rate": 0.1},
                       reference.sgd, {"lr": 0.1}, {}),
    "tensorflow adam": (presets.tensorflow.AdamOptimizer,
                        {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-2},
                        reference.adam, ADAM, {}),
    "tensorflow ftrl": (presets.tensorflow.FtrlOptimizer,
                        {"learning_rate": 0.3, "l1_regularization_strength": 0.1,
                         "l2_regularization_strength": 0.2},
                        reference.ftrl, {"lr": 0.3, "l1": 0.1, "l2": 0.4, "beta": 0.0,
                                         "initial_accumulator": 0.1}, {}),
    "chainer sgd": (presets.chainer.SGD, {"lr": 0.1}, reference.sgd, {"lr": 0.1}, {}),
    "chainer momentum": (presets.chainer.MomentumSGD, {"lr": 0.1, "momentum": 0.7},
                         reference.velocity, {"lr": 0.1, "momentum": 0.7}, {}),
    "chainer nesterov": (presets.chainer.NesterovAG, {"lr": 0.1, "momentum": 0.7},
                         reference.velocity, {"lr": 0.1, "momentum": 0.7, "nesterov": True}, {}),
    "chainer adagrad": (presets.chainer.AdaGrad, {"lr": 0.1, "eps": 1e-2},
                        reference.adagrad, {"lr": 0.1, "eps": 1e-2, "eps_mode": "outside"}, {}),
    "chainer rmsprop": (presets.chainer.RMSprop, {"lr": 0.02, "eps": 1e-2},
                        reference.rmsprop,
                        {"lr": 0.02, "rho": 0.99, "eps": 1e-2, "eps_mode": "outside"}, {}),
    "chainer rmsprop inside": (presets.chainer.RMSprop, {"lr": 0.02, "eps_inside_sqrt": True},
                               reference.rmsprop, {"lr": 0.02, "rho": 0.99, "eps": 1e-8}, {}),
    "chainer graves": (presets.chainer.RMSpropGraves, {"lr": 0.02},
                       reference.rmsprop,
                       {"lr": 0.02, "rho": 0.95, "eps": 1e-4, "momentum": 0.9, "centered": True,
                        "momentum_form": "velocity"}, {}),
    "chainer adadelta": (presets.chainer.AdaDelta, {"rho": 0.8, "eps": 1e-3},
                         reference.adadelta, {"lr": 1.0, "rho": 0.8, "eps": 1e-3}, {}),
    "chainer adam": (presets.chainer.Adam,
                     {"alpha": 0.04, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2, "eta": 0.5,
                      "weight_decay_rate": 0.02, "amsgrad": True},
                     reference.adam, ADAM | {"amsgrad": True},
                     {"weight_decay": 0.01, "decay": "absolute"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_form_that_is_documented(name):
    make, given, method, hyper, options = FORMS[name]
    start, gradients = data()
    w, state = start.astype(float), {}
    update = reference.with_options(method, **options)
    for t, gradient in enumerate(gradients.astype(float), start=1):
        w = update(w, gradient, state, t, **hyper)
    assert distance(ours(make, **given), w) <= ULPS


def test_every_preset_is_tested():
    rows = {getattr(getattr(presets, framework), name) for framework, name, _ in ROWS}
    rows |= {row[0] for row in FORMS.values()}
    for name in presets.__all__:
        for function in vars(getattr(presets, name)).values():
            public = inspect.isfunction(function) and not function.__name__.startswith("_")
            if public and function.__module__ == f"gpuadapt.presets.{name}":
                # TensorFlow's others have published numbers.
                assert function in rows or name == "tensorflow", function


# Where frameworks differ for the same name and numbers, so do their presets.
DIFFERENT = [
    ("Adagrad's eps", "torch.Adagrad", "keras.Adagrad",
     {"initial_accumulator_value": 0.1}, {}, 1e-2),
    ("Adagrad without eps", "tensorflow.AdagradOptimizer", "keras.Adagrad", {}, {}, 1e-2),
    ("Adagrad's start", "torch.Adagrad", "chainer.AdaGrad",
     {"initial_accumulator_value": 0.1}, {}, 1e-2),
    ("RMSprop's eps", "torch.RMSprop", "keras.RMSprop", {"alpha": 0.9}, {}, 1e-2),
    ("RMSprop's start", "tensorflow.RMSPropOptimizer", "keras.RMSprop", {}, {}, 1e-2),
    ("Adam's eps", "torch.Adam", "keras.Adam", {}, {}, 1e-2),
    ("SparseAdam's eps", "torch.SparseAdam", "torch.Adam", {}, {}, 1e-2),
    ("amsgrad's maximum", "torch.Adam", "optax.amsgrad", {"amsgrad": True}, {}, 1e-2),
    ("Adamax's eps", "torch.Adamax", "keras.Adamax", {}, {}, 1e-2),
    ("NAdam's schedule", "torch.NAdam", "keras.Nadam", {}, {}, 1e-2),
    ("NAdam without one", "torch.NAdam", "optax.nadam", {}, {}, 1e-2),
    ("RAdam's eps", "torch.RAdam", "optax.radam", {"betas": (0.9, 0.8)}, {"b2": 0.8}, 1e-2),
]  # fmt: skip


@pytest.mark.parametrize("row", DIFFERENT, ids=lambda row: row[0])
def test_differences_are_seen(row):
    _, *names, first, second, eps = row
    results = []
    for name, given in zip(names, (first, second), strict=True):
        module, constructor = name.split(".")
        make = getattr(getattr(presets, module), constructor)
        known = inspect.signature(make).parameters
        settings = {"lr": 0.05, "learning_rate": 0.05, "eps": eps, "epsilon": eps} | given
        results.append(ours(make, **{k: v for k, v in settings.items() if k in known}))
    assert distance(*results) > 10 * ULPS


def test_momentum_forms_differ_when_lr_changes():
    def make(w, form, lr):
        return presets.torch.SGD(w, lr, 0.9) if form == "torch" else presets.keras.SGD(w, lr, 0.9)

    def falling(step):
        return 0.1 / (1 + step)

    for lr, same in ((0.1, True), (falling, False)):
        a, b = (ours(make, form=form, lr=lr) for form in ("torch", "keras"))
        assert (distance(a, b) <= ULPS) == same


@pytest.mark.filterwarnings("ignore")
def test_schedules_of_optax():
    optax = pytest.importorskip("optax")
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, STEPS, 0.01)
    theirs = by_optax("adam", learning_rate=schedule, b1=0.8, eps=1e-2)
    got = ours(presets.optax.adam, learning_rate=schedule, b1=0.8, eps=1e-2)
    assert distance(got, theirs) <= ULPS


CONSTRUCTORS = [
    pytest.param(function, id=f"{framework}.{name}")
    for framework in presets.__all__
    for name, function in vars(getattr(presets, framework)).items()
    if inspect.isfunction(function)
    and function.__module__ == f"gpuadapt.presets.{framework}"
    and not name.startswith("_")
]
UNBOUNDED = ("threshold", "dampening")
"""Those that may be any number."""


@pytest.mark.parametrize("make", CONSTRUCTORS)
def test_a_preset_answers_in_its_frameworks_names(make):
    assert len(CONSTRUCTORS) == 48
    _, *names = own_names(make)
    parameters = [inspect.signature(make).parameters[name] for name in names]
    needed = {one.name: 0.5 for one in parameters if one.default is one.empty}
    needed |= {"learning_rate": 0.5} if make is presets.optax.adadelta else {}
    for one in parameters:
        flag = isinstance(one.default, bool)
        for value in ("bad", None, True, -1.0) if not flag else ("bad", 0.5, 1):
            given = (value, 0.5) if one.name == "betas" else value
            if (value is None and one.default is None) or (one.name in UNBOUNDED and value == -1):
                continue
            if value is None and one.name in ("momentum", "beta", "weight_decay"):
                continue  # for none, in some
            with pytest.raises(HyperparameterError) as error:
                make(np.zeros(3), **{**needed, one.name: given})
            assert str(error.value).startswith(one.name), (one.name, value)
    rate = next((name for name in ("lr", "learning_rate", "alpha") if name in names), None)
    for name in ("lr", "learning_rate", "epsilon", "eps", "beta_1", "b1", "name", "foreach"):
        if name in names:
            continue
        with pytest.raises(TypeError) as error:
            make(np.zeros(3), **needed, **{name: 0.5})
        assert isinstance(error.value, KeywordError)
        assert f"has no keyword {name!r}; it has {', '.join(names)}" in str(error.value)
        if name in ("lr", "learning_rate") and rate:
            assert str(error.value).startswith(f"did you mean {rate}?")
    group = [{"params": np.zeros(3), "lr": -1.0}]  # it has our names
    with pytest.raises(HyperparameterError, match=r"^lr: got -1.0"):
        make(group, **needed)


@pytest.mark.parametrize("make", [presets.keras.Adam, presets.torch.AdamW, presets.optax.adamw])
def test_what_a_preset_sets_itself(make):
    needed = {"learning_rate": 0.1} if make is presets.optax.adamw else {}
    with pytest.raises(KeywordError, match="sets 'decay' itself"):
        make(np.zeros(3), decay="l2", **needed)
