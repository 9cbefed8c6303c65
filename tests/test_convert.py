"""Running optimizers of other frameworks that go on here, and back."""

import inspect
import math
import os
import types

import numpy as np
import pytest
import reference
from test_presets import ROWS as OF_PRESETS
from test_presets import ULPS

import gpuadapt as ga
from gpuadapt import presets
from gpuadapt.convert import keras as of_keras
from gpuadapt.convert import optax as of_optax
from gpuadapt.convert import tensorflow as of_tensorflow
from gpuadapt.convert import torch as of_torch

os.environ.setdefault("KERAS_BACKEND", "jax")

pytestmark = [pytest.mark.usefixtures("by_numpy"), pytest.mark.filterwarnings("ignore")]
STEPS = 100
SHAPES = {"w": (5, 4), "b": (20,)}
"""In another order than that of their names, which optax has."""


def data(steps=2 * STEPS):
    """Weights, and for each step gradients from 1e-6 to 1 with a zero element."""
    random = np.random.default_rng(3)
    start = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    gradients = []
    for _ in range(steps):
        of_step = {
            name: random.normal(size=shape) * 10.0 ** random.integers(-6, 1, shape)
            for name, shape in SHAPES.items()
        }
        for gradient in of_step.values():
            gradient.flat[0] = 0
        gradients.append({name: one.astype(np.float32) for name, one in of_step.items()})
    return start, gradients


class Torch:
    """A framework's optimizer over the weights, with one interface for all."""

    def __init__(self, name, given, start):
        self.torch = torch = pytest.importorskip("torch")
        self.sparse = name == "SparseAdam"
        self.w = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
        self.optimizer = getattr(torch.optim, name)([*self.w.items()], **given)

    def step(self, gradients):
        for name, w in self.w.items():
            w.grad = self.torch.tensor(gradients[name])
            if self.sparse:
                rows = self.torch.arange(len(w))[None]
                w.grad = self.torch.sparse_coo_tensor(rows, w.grad)
        self.optimizer.step()

    def weights(self):
        return {name: w.detach().numpy().copy() for name, w in self.w.items()}

    def state(self):
        return self.optimizer.state_dict()

    def load(self, state):
        self.optimizer.load_state_dict(state)


class Keras:
    def __init__(self, name, given, start):
        self.keras = keras = pytest.importorskip("keras")
        self.w = {k: keras.Variable(v, name=k) for k, v in start.items()}
        self.optimizer = getattr(keras.optimizers, name)(**given)
        self.optimizer.build([*self.w.values()])

    def step(self, gradients):
        given = [self.keras.ops.convert_to_tensor(gradients[name]) for name in self.w]
        self.optimizer.apply(given, [*self.w.values()])

    def weights(self):
        return {name: np.array(w) for name, w in self.w.items()}

    def state(self):
        return self.optimizer.variables


class Optax:
    def __init__(self, name, given, start):
        optax = pytest.importorskip("optax")
        import jax

        transformation = getattr(optax, name)(**given)
        self.w = {name: jax.numpy.asarray(one) for name, one in start.items()}
        self.held = transformation.init(self.w)

        @jax.jit
        def step(gradients, state, w):
            updates, state = transformation.update(gradients, state, w)
            return optax.apply_updates(w, updates), state

        self.update = step

    def step(self, gradients):
        self.w, self.held = self.update(gradients, self.held, self.w)

    def weights(self):
        return {name: np.array(w) for name, w in self.w.items()}

    def state(self):
        return self.held

    def load(self, state):
        self.held = state


SIDES = {"torch": Torch, "keras": Keras, "optax": Optax}
UNCOUNTED = {"SGD", "sgd", "adagrad", "rmsprop", "adadelta"}
"""Methods whose states have no count in torch, or in optax."""


def steps_of(framework, name, steps=STEPS):
    return {"steps": steps} if framework != "keras" and name in UNCOUNTED else {}


def preset(framework, name):
    return getattr(getattr(presets, framework), name)


def bring(framework, name, state, optimizer, steps=STEPS):
    convert = getattr(ga.convert, f"from_{framework}")
    convert(state, optimizer, **steps_of(framework, name, steps))


def distance(a, b):
    """In units of the last place of the largest weight, as tests of presets have it."""
    largest = max(np.abs(one).max() for one in b.values())
    far = max(np.abs(a[name].astype(float) - b[name]).max() for name in a)
    return far / np.spacing(np.float32(largest))


DECAY = {"weight_decay": 2**-5}
EXACT = {"torch": {"lr": 2**-6, **DECAY}, "optax": {"learning_rate": 2**-6, **DECAY}}
"""torch rounds 1 - lr weight_decay to float32, optax the sum of decay and update; both add up over
many steps. Of these numbers the former has no rounding."""


def _row(framework, name, given):
    decoupled = name.endswith(("W", "w")) or "decoupled_weight_decay" in given
    return framework, name, given | (EXACT.get(framework, {}) if decoupled else {})


ROWS = [_row(*row) for row in OF_PRESETS]
IDS = [f"{framework}-{name}-{len(given)}" for framework, name, given in ROWS]
BACK = [row for row in ROWS if row[0] != "keras"]


@pytest.mark.parametrize(("framework", "name", "given"), ROWS, ids=IDS)
def test_a_run_goes_on_here(framework, name, given, record_property):
    start, gradients = data()
    theirs = SIDES[framework](name, given, start)
    for gradient in gradients[:STEPS]:
        theirs.step(gradient)
    between = theirs.weights()
    w = {key: one.copy() for key, one in between.items()}
    ours = preset(framework, name)(w, **given)
    bring(framework, name, theirs.state(), ours)
    assert ours.step_count == STEPS
    for gradient in gradients[STEPS:]:
        theirs.step(gradient)
        ours.step(gradient)
    assert distance(between, theirs.weights()) > 1000, "too little to compare"
    found = distance(w, theirs.weights())
    record_property("units", float(found))
    assert found <= ULPS


@pytest.mark.parametrize(
    ("framework", "name", "given"), BACK, ids=[i for i, row in zip(IDS, ROWS, strict=True)
                                               if row in BACK],
)  # fmt: skip
def test_a_run_goes_back(framework, name, given, record_property):
    start, gradients = data()
    w = {key: one.copy() for key, one in start.items()}
    ours = preset(framework, name)(w, **given)
    for gradient in gradients[:STEPS]:
        ours.step(gradient)
    theirs = SIDES[framework](name, given, w)
    theirs.load(getattr(ga.convert, f"to_{framework}")(ours, theirs.state()))
    for gradient in gradients[STEPS:]:
        theirs.step(gradient)
        ours.step(gradient)
    found = distance(theirs.weights(), w)
    record_property("units", float(found))
    assert found <= ULPS


TF_SGD = {"learning_rate": 0.1, "momentum": 0.7}
TF_RMS = {"learning_rate": 0.02, "decay": 0.8, "epsilon": 1e-2}
RMS = {"lr": 0.02, "rho": 0.8, "eps": 1e-2, "momentum_form": "velocity", "initial_square": 1.0}

# Each row: method, its options; the reference and its options; the slot of each state.
TENSORFLOW = [
    ("MomentumOptimizer", TF_SGD, reference.momentum, {"lr": 0.1, "momentum": 0.7},
     {"Momentum": "b"}),
    ("MomentumOptimizer", TF_SGD | {"use_nesterov": True}, reference.nesterov,
     {"lr": 0.1, "momentum": 0.7}, {"Momentum": "b"}),
    ("AdagradOptimizer", {"learning_rate": 0.1}, reference.adagrad,
     {"lr": 0.1, "eps_mode": "none", "initial_accumulator": 0.1}, {"Adagrad": "G"}),
    ("RMSPropOptimizer", TF_RMS, reference.rmsprop, RMS, {"RMSProp": "G", "RMSProp_1": None}),
    ("RMSPropOptimizer", TF_RMS | {"momentum": 0.6}, reference.rmsprop, RMS | {"momentum": 0.6},
     {"RMSProp": "G", "RMSProp_1": "b"}),
    ("RMSPropOptimizer", TF_RMS | {"centered": True}, reference.rmsprop, RMS | {"centered": True},
     {"RMSProp": "G", "RMSProp_1": "M", "RMSProp_2": None}),
    ("RMSPropOptimizer", TF_RMS | {"momentum": 0.6, "centered": True}, reference.rmsprop,
     RMS | {"momentum": 0.6, "centered": True},
     {"RMSProp": "G", "RMSProp_1": "M", "RMSProp_2": "b"}),
    ("AdadeltaOptimizer", {"learning_rate": 0.7, "rho": 0.8, "epsilon": 1e-3}, reference.adadelta,
     {"lr": 0.7, "rho": 0.8, "eps": 1e-3}, {"Adadelta": "G", "Adadelta_1": "U"}),
    ("AdamOptimizer", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-2},
     reference.adam, {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2,
                      "eps_mode": "uncorrected"}, {"Adam": "m", "Adam_1": "v"}),
    ("FtrlOptimizer", {"learning_rate": 0.3, "l1_regularization_strength": 0.1,
                       "l2_regularization_strength": 0.2}, reference.ftrl,
     {"lr": 0.3, "l1": 0.1, "l2": 0.4, "beta": 0.0, "initial_accumulator": 0.1},
     {"Ftrl": "n", "Ftrl_1": "z"}),
]  # fmt: skip


def powers(beta1, beta2, steps):
    """Adam's two variables of TensorFlow: of the next step, rounded in each."""
    betas = {"beta1_power": beta1, "beta2_power": beta2}
    return {
        name: np.multiply.accumulate(np.full(steps + 1, beta, np.float32))[-1]
        for name, beta in betas.items()
    }


@pytest.mark.parametrize("row", TENSORFLOW, ids=lambda row: f"{row[0]}-{len(row[1])}")
def test_a_run_of_tensorflow_goes_on_here(row, record_property):
    """Tensorflow's formulas in float64 stand for it, its names of a checkpoint for its state."""
    name, given, method, hyper, slots = row
    start, gradients = data()
    theirs = {f"net/{key}": one.astype(float) for key, one in start.items()}
    states = {key: {} for key in theirs}

    def step(t):
        for key, w in theirs.items():
            g = gradients[t - 1][key[4:]].astype(float)
            theirs[key] = method(w, g, states[key], t, **hyper)

    for t in range(1, STEPS + 1):
        step(t)
    checkpoint = {key: w.astype(np.float32) for key, w in theirs.items()}
    w = {key: one.copy() for key, one in checkpoint.items()}
    for key in theirs:
        for slot, letter in slots.items():
            held = states[key][letter] if letter else np.ones(theirs[key].shape)
            checkpoint[f"{key}/{slot}"] = held.astype(np.float32)
    adam = name == "AdamOptimizer"
    checkpoint |= powers(hyper["beta1"], hyper["beta2"], STEPS) if adam else {}
    ours = preset("tensorflow", name)(w, **given)
    ga.convert.from_tensorflow(checkpoint, ours, **({} if adam else {"steps": STEPS}))
    assert ours.step_count == STEPS
    for t in range(STEPS + 1, 2 * STEPS + 1):
        step(t)
        ours.step({key: gradients[t - 1][key[4:]] for key in w})
    found = distance(w, theirs)
    record_property("units", float(found))
    assert found <= ULPS


@pytest.mark.parametrize("steps", [1, 100, 800, 3000, 20_000, 80_000])
def test_the_count_of_tensorflows_adam(steps):
    w = np.zeros(2, np.float32)
    checkpoint = {"w/Adam": w, "w/Adam_1": w, **powers(0.9, 0.999, steps)}
    ours = presets.tensorflow.AdamOptimizer({"w": w})
    ga.convert.from_tensorflow(checkpoint, ours)
    assert ours.step_count == steps
    ga.convert.from_tensorflow({**checkpoint, "global_step": np.int64(steps)}, ours)
    with pytest.raises(ga.StateError, match="the counts of steps differ"):
        ga.convert.from_tensorflow(checkpoint, ours, steps=steps + 1)


OF = {"torch": of_torch, "keras": of_keras, "optax": of_optax, "tensorflow": of_tensorflow}


@pytest.mark.parametrize("framework", OF)
def test_every_preset_has_a_row(framework):
    """Whatever its options are, it is a method that can be converted."""
    digests = {method.rule.digest for method in OF[framework].METHODS}
    for name, make in vars(getattr(presets, framework)).items():
        ours = inspect.isfunction(make) and make.__module__.endswith(f"presets.{framework}")
        if not ours or name.startswith("_"):
            continue
        known = inspect.signature(make).parameters
        options = [{}, {"momentum": 0.9}, {"amsgrad": True}, {"centered": True}, {"nesterov": True},
                   {"momentum": 0.9, "centered": True}, {"momentum": 0.9, "nesterov": True},
                   {"momentum": 0.9, "use_nesterov": True}, {"eps_in_sqrt": False},
                   {"eps_root": 1e-3}]  # fmt: skip
        needed = {"learning_rate": 0.1} if "learning_rate" in known else {}
        for given in options:
            if not given.keys() <= known.keys():
                continue
            if name == "MomentumOptimizer":
                given = {"momentum": 0.9} | given
            if framework == "torch" and given == {"nesterov": True}:
                continue  # torch refuses it
            made = make(np.zeros(1, np.float32), **needed, **given)
            assert made.rule.digest in digests, (name, given)


def everything(optimizer):
    """All that an optimizer has, as something to compare."""
    snapshot = optimizer.state_dict()
    entries = {
        name: {letter: np.asarray(one).tobytes() for letter, one in entry.items()}
        for name, entry in snapshot["state"].items()
    }
    arrays = {name: w.tobytes() for name, w in optimizer.params.items()}
    return snapshot["step_count"], str(snapshot["param_groups"]), entries, arrays


def stepped(framework, name, given):
    """(state of a framework after three steps, an optimizer of ours after one)."""
    start, gradients = data(3)
    theirs = SIDES[framework](name, given, start)
    for gradient in gradients:
        theirs.step(gradient)
    ours = preset(framework, name)(start, **given)
    ours.step(gradients[0])
    return theirs.state(), ours


def without(key):
    """Delete an entry of the first parameter of torch."""
    return lambda state: state["state"][0].pop(key)


def torch_group(**settings):
    return lambda state: state["param_groups"][0].update(settings)


def torch_entry(**entries):
    return lambda state: state["state"][0].update(entries)


ADAM = ("Adam", {"lr": 0.02})
WRONG_TORCH = [
    (*ADAM, without("exp_avg_sq"), "'exp_avg_sq': it is missing, Adam keeps it"),
    (*ADAM, without("step"), "'step': it is missing"),
    (*ADAM, torch_entry(exp_avg=np.zeros(3, np.float32)), r"got shape \(3,\), expected \(5, 4\)"),
    (*ADAM, torch_entry(exp_avg_sq=-np.ones((5, 4))), "got negative numbers"),
    (*ADAM, torch_entry(exp_avg="text"), "expected an array of floats"),
    (*ADAM, torch_entry(step=1.5), "got 1.5; step_count and updates are whole"),
    (*ADAM, torch_entry(max_exp_avg_sq=np.ones(3)), "unknown state 'max_exp_avg_sq'"),
    (*ADAM, torch_group(lr=0.5), "lr: torch has 0.5, this optimizer 0.02. Make the optimizer"),
    (*ADAM, torch_group(betas=(0.5, 0.6)), r"beta1: torch has 0.5.* beta2: torch has 0.6"),
    (*ADAM, torch_group(amsgrad=True), "make the rule 'amsgrad', this optimizer has 'adam'"),
    (*ADAM, torch_group(maximize=True), "maximize: torch has True"),
    (*ADAM, torch_group(weight_decay=0.1, decoupled_weight_decay=True), "decay: torch has 'decoup"),
    (*ADAM, torch_group(momentum_decay=4e-3), "Adam has no 'momentum_decay'; is it the state"),
    (*ADAM, torch_group(params=[0]), r"groups: torch has \[1\] parameters in 1, this optimizer"),
    (*ADAM, lambda state: state["state"].update({7: {}}), r"got \[7\], which no group"),
    (*ADAM, lambda state: state.pop("param_groups"), "not a state_dict"),
    ("RAdam", {}, torch_group(amsgrad=False), "RAdam has no 'amsgrad'"),
    ("NAdam", {}, torch_entry(mu_product=0.5), "the product of NAdam's momenta: torch has 0.5"),
    ("SGD", {"momentum": 0.9}, lambda state: None, "the state of SGD has no count.*pass steps="),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "damage", "message"), WRONG_TORCH)
def test_what_is_refused_of_torch(name, given, damage, message):
    state, ours = stepped("torch", name, given)
    damage(state)
    before = everything(ours)
    with pytest.raises(ga.StateError, match=message):
        ga.convert.from_torch(state, ours)
    assert everything(ours) == before


def test_groups_of_torch():
    """Settings are compared by group; parameters are matched by name, or else by order."""
    torch = pytest.importorskip("torch")
    start, gradients = data(1)
    w = {key: torch.tensor(one, requires_grad=True) for key, one in start.items()}
    groups = [{"params": [("b", w["b"])], "lr": 0.1}, {"params": [("w", w["w"])], "lr": 0.2}]
    theirs = torch.optim.Adam(groups)
    for key, one in w.items():
        one.grad = torch.tensor(gradients[0][key])
    theirs.step()

    def ours(*settings):
        return presets.torch.Adam([{"params": {key: start[key]}, "lr": lr} for key, lr in settings])

    fits = ours(("b", 0.1), ("w", 0.2))
    ga.convert.from_torch(theirs.state_dict(), fits)
    assert np.array_equal(fits.state["w"]["m"], theirs.state[w["w"]]["exp_avg"])
    for wrong in (ours(("w", 0.2), ("b", 0.1)), ours(("b", 0.2), ("w", 0.2))):
        with pytest.raises(ga.StateError, match=r"groups: torch has|lr: torch has 0\.1"):
            ga.convert.from_torch(theirs.state_dict(), wrong)
    with pytest.raises(ga.StateError, match=r"groups: torch has \[1, 1\]"):
        ga.convert.from_torch(theirs.state_dict(), presets.torch.Adam(start))


def test_a_parameter_of_torch_without_gradients():
    """Torch has no entry for it; its count begins at 0 here, and back there is none again."""
    torch = pytest.importorskip("torch")
    w = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    theirs = torch.optim.Adam(w, amsgrad=True)
    for _ in range(2):
        w[1].grad = torch.ones(3)
        theirs.step()
    ours = presets.torch.Adam([one.detach().numpy() for one in w], amsgrad=True)
    ours.step([np.ones(2, np.float32), None])
    ga.convert.from_torch(theirs.state_dict(), ours)
    entries = ours.state_dict()["state"]
    assert [entry["updates"] for entry in entries.values()] == [0, 2]
    assert not any(entries["0"][letter].any() for letter in "mvw")
    assert [*ga.convert.to_torch(ours, theirs.state_dict())["state"]] == [1]


def keras_named(index, name):
    def damage(variables):
        variables[index] = types.SimpleNamespace(name=name)
        return variables

    return damage


WRONG_KERAS = [
    ("Adam", {}, lambda v: v[:-2], "got 4 variables .*iteration.*, expected 6 of Adam with 2"),
    ("Adam", {}, lambda v: [*v, v[-1]], "got 7 variables"),
    ("Adam", {}, keras_named(3, "w_norm"), "variable 3: got 'w_norm', expected a 'velocity'"),
    ("Adam", {}, lambda v: [*v[:2], *v[4:], *v[2:4]], r"got shape \(20,\), expected \(5, 4\)"),
    ("Adam", {}, lambda v: [v[0], np.float32(0.5), *v[2:]], "learning_rate: keras has 0.5"),
    ("Adam", {}, lambda v: [v[0], *v[2:]], "Keras has a schedule"),
    ("Adam", {}, lambda v: [-1, *v[1:]], "iteration: got -1"),
    ("Adam", {}, lambda v: "text", "expected the optimizer's variables"),
    ("Adam", {}, lambda v: {"0": v[0], "x": v[1]}, "expected '0', '1', ..."),
    ("Nadam", {}, lambda v: [*v[:-1], 0.5], "product of NAdam's momenta: keras has 0.5"),
]


@pytest.mark.parametrize(("name", "given", "damage", "message"), WRONG_KERAS)
def test_what_is_refused_of_keras(name, given, damage, message):
    state, ours = stepped("keras", name, given)
    before = everything(ours)
    with pytest.raises(ga.StateError, match=message):
        ga.convert.from_keras(damage(state), ours)
    assert everything(ours) == before


def test_what_keras_saves():
    """Arrays by number have no names; a schedule is no variable."""
    state, ours = stepped("keras", "Adam", {"amsgrad": True})
    saved = {str(number): np.array(one) for number, one in enumerate(state)}
    ga.convert.from_keras(saved, ours)
    assert ours.step_count == 3
    assert np.array_equal(ours.state["b"]["w"], state[-1])
    scheduled = presets.keras.Adam(dict(ours.params), lambda step: 0.1, amsgrad=True)
    kept = [saved[key] for key in saved if key != "1"]
    ga.convert.from_keras(kept, scheduled)
    assert scheduled.step_count == 3


def optax_state(kind, **fields):
    """Replace fields of the named tuple of a kind."""

    def damage(state):
        return tuple(
            part._replace(**fields) if type(part).__name__ == kind else part for part in state
        )

    return damage


def unknown(state):
    return (*state, types.SimpleNamespace())


MU = {"w": np.zeros((5, 4), np.float32)}
WRONG_OPTAX = [
    (
        "adam",
        {},
        lambda s: s[1:],
        r"got 'no states'|got no states.*expected \['mu', 'nu'\] of adam",
    ),
    ("adam", {}, optax_state("ScaleByAdamState", mu=MU), r"mu: got arrays at \['w'\], expected"),
    ("adam", {}, optax_state("ScaleByAdamState", mu=MU | {"b": np.zeros(2)}), r"got shape \(2,\)"),
    ("adam", {}, optax_state("ScaleByAdamState", mu=MU | {"b": None}), "it is missing"),
    ("adam", {}, optax_state("ScaleByAdamState", count=-1), "count: got -1"),
    ("adam", {}, unknown, "which cannot be converted: gpuadapt has no method with it"),
    ("adam", {}, lambda s: (s, s), "two tuples have 'mu'"),
    ("sgd", {"momentum": 0.9}, lambda s: s, "the state of sgd has no count"),
]


@pytest.mark.parametrize(("name", "given", "damage", "message"), WRONG_OPTAX)
def test_what_is_refused_of_optax(name, given, damage, message):
    state, ours = stepped("optax", name, {"learning_rate": 0.1, **given})
    before = everything(ours)
    with pytest.raises(ga.StateError, match=message):
        ga.convert.from_optax(damage(state), ours)
    assert everything(ours) == before


def test_what_is_around_a_method_of_optax():
    optax = pytest.importorskip("optax")
    start, _ = data(1)
    ours = presets.optax.adam(start, 0.1)
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lambda step: 0.1))
    ga.convert.from_optax(clipped.init(start), ours)
    injected = optax.inject_hyperparams(optax.adam)
    ga.convert.from_optax(injected(learning_rate=0.1).init(start), ours)
    refused = {
        "learning_rate: optax has 0.2": injected(learning_rate=0.2),
        "gradients of several steps": optax.MultiSteps(optax.adam(0.1), 2),
        "masked parameters have no states": optax.masked(optax.adam(0.1), {"w": True, "b": False}),
        "expected .* of adam": optax.rmsprop(0.1),
    }
    for message, transformation in refused.items():
        with pytest.raises(ga.StateError, match=message):
            ga.convert.from_optax(transformation.init(start), ours)


def test_paths_and_counts_of_optax():
    """Containers are the parameters'; one count for all is what optax has."""
    optax = pytest.importorskip("optax")
    nested = {"net": [np.ones(2, np.float32), (np.ones(3, np.float32),)], "b": np.ones(1, "f")}
    ours = presets.optax.adam(nested, 0.1)
    like = optax.adam(0.1).init(nested)
    ours.step({name: one + 1 for name, one in ours.params.items()})
    back = ga.convert.to_optax(ours, like)
    assert type(back[0]) is type(like[0]) and int(back[0].count) == 1
    assert np.array_equal(back[0].nu["net"][1][0], ours.state["net.1.0"]["v"])
    assert type(back[0].mu["net"]) is list and type(back[0].mu["net"][1]) is tuple
    again = presets.optax.adam(nested, 0.1)
    ga.convert.from_optax(back, again)
    assert everything(again)[2] == everything(ours)[2]
    ours.step({name: None if name == "b" else one + 1 for name, one in ours.params.items()})
    with pytest.raises(ga.StateError, match=r"have had \[1, 2\] updates; optax has one count"):
        ga.convert.to_optax(ours, like)


SLOTS = {"w/Adam": np.zeros(2, np.float32), "w/Adam_1": np.zeros(2, np.float32),
         **powers(0.9, 0.999, 5)}  # fmt: skip
WRONG_TENSORFLOW = [
    ({"w/Adam": None}, "'Adam': it is missing"),
    ({"w/Adam_2": np.zeros(2)}, "unknown slot 'Adam_2'"),
    ({"w/Momentum": np.zeros(2)}, "unknown slot 'Momentum'; is it the state of another method"),
    ({"v/Adam": np.zeros(2)}, "this optimizer has no parameter 'v'"),
    ({"w/Adam": np.zeros(3)}, r"got shape \(3,\)"),
    ({"beta1_power": 0.5}, "no powers of this optimizer's betas"),
    ({"global_step": 6}, r"the counts of steps differ, \[5, 6\]"),
    ({3: 4}, "expected a dict of arrays by name"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG_TENSORFLOW)
def test_what_is_refused_of_tensorflow(changed, message):
    ours = presets.tensorflow.AdamOptimizer({"w": np.ones(2, np.float32)})
    ours.step({"w": np.ones(2, np.float32)})
    before = everything(ours)
    with pytest.raises(ga.StateError, match=message):
        ga.convert.from_tensorflow(SLOTS | changed, ours)
    assert everything(ours) == before
    for missing in ("w/Adam_1", "beta2_power"):
        with pytest.raises(ga.StateError, match="it is missing"):
            ga.convert.from_tensorflow({k: v for k, v in SLOTS.items() if k != missing}, ours)
    assert everything(ours) == before


def test_other_optimizers():
    """Another formula, another object, states by row."""
    w = np.ones((2, 3), np.float32)
    for name in ("from_torch", "from_keras", "from_optax", "from_tensorflow"):
        convert = getattr(ga.convert, name)
        with pytest.raises(ga.StateError, match="expected an optimizer of gpuadapt"):
            convert({}, [w])
        with pytest.raises(ga.StateError, match=r"no method of .* has the formula"):
            convert({}, ga.Adam(w, eps_mode="inside"))
    state, _ = stepped("torch", "Adagrad", {})
    start, _ = data(1)
    by_row = presets.torch.Adagrad(start, rowwise=True)
    with pytest.raises(ga.StateError, match="make the optimizer without rowwise"):
        ga.convert.from_torch(state, by_row)


@pytest.mark.parametrize("kept", ["bfloat16", "float16", "8bit"])
def test_formats(kept):
    """States come in the optimizer's own formats, schedules stay."""
    state, plain = stepped("torch", "Adam", {"lr": 0.02})
    ga.convert.from_torch(state, plain)
    start, _ = data(1)
    ours = presets.torch.Adam(start, lambda step: 0.02, state_dtype=kept)
    ga.convert.from_torch(state, ours)
    back = ga.convert.to_torch(ours, state)["state"][0]
    largest = np.abs(plain.state["w"]["m"]).max()
    assert np.abs(back["exp_avg"].numpy() - plain.state["w"]["m"]).max() <= largest / 16
    assert callable(ours.param_groups[0]["lr"]) and ours.step_count == 3


def test_numbers_that_do_not_fit():
    state, _ = stepped("torch", "Adam", {})
    state["state"][0]["exp_avg"][0, 0] = 1e6
    start, _ = data(1)
    ours = presets.torch.Adam(start, state_dtype="float16")
    before = everything(ours)
    with pytest.raises(ga.StateError, match="its state 'm' do not fit in float16"):
        ga.convert.from_torch(state, ours)
    assert everything(ours) == before


@pytest.mark.parametrize("kept", [None, "bfloat16"])
def test_arrays_on_a_gpu(backend, kept):
    """States go to the arrays' device, and come back from it."""
    state, _ = stepped("torch", "RMSprop", {"centered": True})
    start, _ = data(1)
    w = {name: backend.array(one) for name, one in start.items()}
    ours = presets.torch.RMSprop(w, centered=True, state_dtype=kept)
    ga.convert.from_torch(state, ours)
    back = ga.convert.to_torch(ours, state)["state"]
    for index, entry in state["state"].items():
        for name, one in entry.items():
            close = 1e-6 if kept is None or name == "step" else 2**-7
            scale = max(float(one.abs().max()), 1e-30)
            assert float((back[index][name] - one).abs().max()) <= close * scale, name


@pytest.mark.parametrize("steps", [0, 1, 7, 400])
def test_the_product_of_momenta(steps):
    from gpuadapt.convert.states import mu_product

    factors = [0.9 * (1 - 0.5 * 0.96 ** (i * 0.004)) for i in range(1, steps + 1)]
    found = mu_product({"beta1": 0.9, "momentum_decay": 0.004}, steps)
    assert math.isclose(found, math.prod(factors), rel_tol=1e-9)
