"""Published numbers of TensorFlow's, ONNX's and optax's own tests, all of them.

Figures in `golden/`; each file names its source and commit.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKENDS

import gpuadapt as ga

CASES = {
    case["id"]: case
    for file in sorted((Path(__file__).parent / "golden").glob("*.json"))
    for case in json.loads(file.read_text())["cases"]
}
ADAM_LETTERS = {"m": "m", "v": "v"}
LETTERS = {"acc": "G", "v": "G", "d": "U", "buf": "b", "mg": "M", "mom": "b"}
FUNCTIONS = {"sum_squares": lambda x: 2 * x, "five_x_squared": lambda x: 10 * x}


def make(case, w):
    """Our optimizer, in the form and with the hyperparameters of a case."""
    hyper, variant = dict(case["hyper"]), case["variant"]
    settings = {k: hyper[k] for k in ("lr", "weight_decay", "rho", "lr_decay") if k in hyper}
    if "beta1" in hyper:
        settings["betas"] = hyper["beta1"], hyper["beta2"]
    if variant.get("wd_mode") == "decoupled_lr":
        settings["decay"] = "decoupled"
    match case["rule"]:
        case "sgd":
            names = ("momentum", "nesterov", "dampening")
            form = {"velocity": "velocity"}.get(variant.get("momentum"), "heavy_ball")
            settings |= {k: hyper[k] for k in names if k in hyper} | {"momentum_form": form}
            return ga.SGD(w, **settings)
        case "adagrad":
            eps = {"eps": hyper["eps"], "eps_mode": variant["eps"]}
            start = hyper.get("init_acc", 0.0)
            eps = eps if hyper["eps"] else {"eps_mode": "none"}
            return ga.Adagrad(w, initial_accumulator=start, **eps, **settings)
        case "rmsprop":
            settings |= {k: hyper[k] for k in ("centered", "momentum") if k in hyper}
            form = {"inside": "velocity"}.get(variant.get("mom_lr"), "heavy_ball")
            return ga.RMSprop(
                w, eps=hyper["eps"], eps_mode=variant["eps"], momentum_form=form,
                initial_square=hyper.get("init_v", 0.0), **settings,
            )  # fmt: skip
        case "adadelta":
            return ga.Adadelta(w, eps=hyper["eps"], **settings)
        case "adam":
            form = {"hat": "outside", "tf": "uncorrected"}[variant["eps"]]
            amsgrad = {None: False, "hat": "corrected"}[variant.get("amsgrad")]
            return ga.Adam(
                w, eps=hyper["eps"], eps_mode=form, amsgrad=amsgrad,
                bias_correction=variant.get("bias_correction", True), **settings,
            )  # fmt: skip
        case "nadam":
            assert variant["nadam"] == "plain"
            return ga.NAdam(w, eps=hyper["eps"], schedule=False, **settings)
        case "radam":
            assert variant == {"eps": "hat", "threshold_op": ">="}
            return ga.RAdam(w, eps=hyper["eps"], threshold_inclusive=True, **settings)


def gradients(grads, w, backend, dtype):
    kind, steps = grads["kind"], grads.get("steps")
    if kind == "func":
        for _ in range(steps):
            yield backend.array(FUNCTIONS[grads["name"]](backend.numpy(w)).astype(dtype))
    elif kind == "sparse_const":
        rows = backend.array(np.array(grads["indices"], np.int64))
        values = np.array(grads["vals"], dtype).reshape(len(grads["indices"]), *w.shape[1:])
        for _ in range(steps):
            yield ga.RowGrad(rows, backend.array(values))
    else:
        values = [grads["value"]] * steps if kind == "const" else grads["values"]
        yield from (backend.array(np.array(value, dtype)) for value in values)


def is_sparse(case):
    return any(tensor["grads"]["kind"].startswith("sparse") for tensor in case["tensors"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not is_sparse(case)])
def test_reproduces(name, backend, dtype, by_numpy):
    reproduce(CASES[name], backend, dtype)


@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if is_sparse(case)])
def test_reproduces_by_rows(name, backend):
    """In float64, the sharper of the two, and where kernels of rows are compiled quickly."""
    reproduce(CASES[name], backend, np.dtype(np.float64))


def reproduce(case, backend, dtype, make=make):
    tolerance = case["tolerance" if dtype == np.float32 else "tolerance_f64"]
    letters = ADAM_LETTERS if "beta1" in case["hyper"] else LETTERS
    compared = 0
    for tensor in case["tensors"]:
        w = backend.array(np.array(tensor["init"], dtype))
        optimizer = make(case, w)
        snapshot = optimizer.state_dict()
        given = tensor.get("state_init", {})
        start = {letters[name]: np.array(value, dtype) for name, value in given.items()}
        if "V" in snapshot["state"]["0"] and "G" in start:
            # We keep the variance, they the mean of squares.
            start["V"] = start.pop("G") - start.get("M", 0) ** 2
        snapshot["state"]["0"] |= {name: backend.array(value) for name, value in start.items()}
        optimizer.load_state_dict(snapshot)
        expected = {entry["step"]: entry for entry in tensor["expected"]}
        steps = gradients(tensor["grads"], w, backend, dtype)
        for step, gradient in enumerate(steps, start=1):
            optimizer.step(gradient)
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
                        state = optimizer.state["0"].items()
                        state = {name: backend.numpy(kept) for name, kept in state}
                        if "V" in state:
                            state["G"] = state["V"] + state["M"] ** 2
                        got = {k: state[letters[k]] for k in value}
                wanted = value if key == "state" else {key: value}
                for k, array in got.items():
                    name = f"{case['id']} {k}, step {step}"
                    np.testing.assert_allclose(array, wanted[k], **tolerance, err_msg=name)
                    compared += 1
    assert compared


def test_how_many():
    """So that a change in the files is seen."""
    rules = [case["rule"] for case in CASES.values()]
    assert {rule: rules.count(rule) for rule in rules} == {
        "adagrad": 11, "adam": 5, "sgd": 8, "adadelta": 11, "rmsprop": 15, "nadam": 1, "radam": 1,
    }  # fmt: skip
