"""Published numbers of TensorFlow's, ONNX's and optax's own tests: dense, the methods there are.

Figures in `golden/`; each file names its source and commit. Not reproduced here, because
the form is not there yet: sparse gradients, centred or momentum RMSprop, AMSGrad, NAdam,
RAdam.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import gpuadapt as ga

CASES = {
    case["id"]: case
    for file in sorted((Path(__file__).parent / "golden").glob("*.json"))
    for case in json.loads(file.read_text())["cases"]
}
LATER = {"sparse_mode", "amsgrad", "nadam", "threshold_op"}


def is_covered(case):
    return not LATER & case["variant"].keys() and not (
        case["rule"] == "rmsprop" and {"centered", "momentum"} & case["hyper"].keys()
    )


COVERED = [name for name, case in CASES.items() if is_covered(case)]
LETTERS = {"acc": "G", "v": "G", "d": "U", "buf": "b"}
FUNCTIONS = {"sum_squares": lambda x: 2 * x, "five_x_squared": lambda x: 10 * x}
NO_EPS = 1e-37
"""TensorFlow 1's Adagrad has no eps: one that is lost in every sum."""
NO_CORRECTION = 10**6
"""Updates after which Adam's bias correction is exactly 1."""


def make(case, w):
    """Our optimizer, in the form and with the hyperparameters of a case."""
    hyper, variant = dict(case["hyper"]), case["variant"]
    settings = {"lr": hyper["lr"]}
    if "weight_decay" in hyper:
        settings["weight_decay"] = hyper["weight_decay"]
    if variant.get("wd_mode") == "decoupled_lr":
        settings["decay"] = "decoupled"
    match case["rule"]:
        case "sgd":
            settings |= {k: hyper[k] for k in ("momentum", "nesterov") if k in hyper}
            return ga.SGD(w, **settings)
        case "adagrad":
            return ga.Adagrad(w, eps=hyper["eps"] or NO_EPS, eps_mode=variant["eps"], **settings)
        case "rmsprop":
            eps = {"eps": hyper["eps"], "eps_mode": variant["eps"]}
            return ga.RMSprop(w, rho=hyper["rho"], **eps, **settings)
        case "adadelta":
            return ga.Adadelta(w, rho=hyper["rho"], eps=hyper["eps"], **settings)
        case "adam":
            form = {"hat": "outside", "tf": "uncorrected"}[variant["eps"]]
            betas = (hyper["beta1"], hyper["beta2"])
            return ga.Adam(w, betas=betas, eps=hyper["eps"], eps_mode=form, **settings)


def initial_state(case, tensor):
    state = tensor.get("state_init", {})
    for key, letter in (("init_acc", "acc"), ("init_v", "v")):
        if key in case["hyper"]:
            state = {**state, letter: case["hyper"][key]}
    return state


def gradients(grads, w, backend, dtype):
    kind = grads["kind"]
    if kind == "func":
        for _ in range(grads["steps"]):
            yield FUNCTIONS[grads["name"]](backend.numpy(w)).astype(dtype)
    else:
        values = [grads["value"]] * grads["steps"] if kind == "const" else grads["values"]
        yield from np.array(values, dtype)


@pytest.mark.parametrize("name", COVERED)
def test_reproduces(name, backend, dtype):
    case = CASES[name]
    tolerance = case["tolerance" if dtype == np.float32 else "tolerance_f64"]
    compared = 0
    for tensor in case["tensors"]:
        w = backend.array(np.array(tensor["init"], dtype))
        optimizer = make(case, w)
        letters = {"m": "m", "v": "v"} if case["rule"] == "adam" else LETTERS
        snapshot = optimizer.state_dict()
        for letter, value in initial_state(case, tensor).items():
            ours = snapshot["state"]["0"]
            ours[letters[letter]] = backend.array(np.broadcast_to(value, w.shape).astype(dtype))
        if case["variant"].get("bias_correction") is False:
            snapshot["state"]["0"]["updates"] = NO_CORRECTION
        optimizer.load_state_dict(snapshot)
        expected = {entry["step"]: entry for entry in tensor["expected"]}
        for step, gradient in enumerate(gradients(tensor["grads"], w, backend, dtype), start=1):
            optimizer.step(backend.array(gradient))
            for key, value in expected.get(step, {}).items():
                now = backend.numpy(w).astype(float)
                match key:
                    case "step":
                        continue
                    case "param":
                        got = {"param": now}
                    case "update":
                        got = {"update": tensor["init"] - now}
                    case "objective_sum_squares":
                        got = {key: (now**2).sum()}
                    case "state":
                        got = {k: backend.numpy(optimizer.state["0"][letters[k]]) for k in value}
                wanted = value if key == "state" else {key: value}
                for k, array in got.items():
                    np.testing.assert_allclose(array, wanted[k], **tolerance, err_msg=f"{name} {k}")
                    compared += 1
    assert compared


def test_how_many():
    """So that a change in the files, or in what is covered, is seen."""
    rules = [CASES[name]["rule"] for name in COVERED]
    assert {rule: rules.count(rule) for rule in rules} == {
        "adagrad": 4, "rmsprop": 4, "adadelta": 10, "sgd": 6, "adam": 4,
    }  # fmt: skip
