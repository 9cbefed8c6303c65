"""Every rule with every option non-zero at least once: the table that the tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import reference

import gpuadapt as ga
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.optimizer import internals


@dataclass(frozen=True)
class Case:
    """One configuration: our optimizer, the reference, and what both are given."""

    name: str
    make: Callable[..., ga.Optimizer]
    method: Callable[..., Any]
    hyper: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    form: dict[str, Any] = field(default_factory=dict)
    """Keywords of our class that the reference has as separate functions."""

    def optimizer(self, params: Any, **changes: Any) -> ga.Optimizer:
        given = {**self.hyper, **self.options, **self.form, **changes}
        return self.make(params, **given)

    @property
    def update(self) -> Callable[..., Any]:
        """The reference's update, of (parameter, gradient, states, step)."""
        method = reference.with_options(self.method, **self.options)
        hyper = dict(self.hyper)
        if "betas" in hyper:
            hyper["beta1"], hyper["beta2"] = hyper.pop("betas")
        return lambda w, g, state, t, **more: method(w, g, state, t, **hyper, **more)

    @property
    def rule(self) -> Rule:
        """The composed rule that the optimizer runs."""
        return internals(self.optimizer(np.zeros(1))).groups[0].rule


L2 = {"weight_decay": 0.03, "decay": "l2"}
DECOUPLED = {"weight_decay": 0.05, "decay": "decoupled"}
ABSOLUTE = {"weight_decay": 0.01, "decay": "absolute"}
AFTER = {"weight_decay": 0.05, "decay": "after"}
MAX = {"maximize": True}
MOMENTUM = {"lr": 0.1, "momentum": 0.7}
VELOCITY = {"momentum_form": "velocity"}
ADAGRAD = {"lr": 0.1, "eps": 1e-3, "initial_accumulator": 0.1, "lr_decay": 0.2}
RMSPROP = {"lr": 0.02, "rho": 0.8, "eps": 1e-3}
BUFFER = RMSPROP | {"momentum": 0.6, "initial_square": 1.0}
ADAM = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3}
NADAM = ADAM | {"momentum_decay": 0.3}
RADAM = ADAM | {"betas": (0.8, 0.9), "threshold": 4.5}
FTRL = {"lr": 0.3, "l1": 0.1, "l2": 0.2, "beta": 0.5, "initial_accumulator": 0.1}

CASES = [
    Case("sgd", ga.SGD, reference.sgd, {"lr": 0.1}),
    Case("sgd+l2+max", ga.SGD, reference.sgd, {"lr": 0.1}, L2 | MAX),
    Case("momentum", ga.SGD, reference.momentum, MOMENTUM),
    Case("momentum+decoupled", ga.SGD, reference.momentum, MOMENTUM | {"dampening": 0.3},
         DECOUPLED | MAX),
    Case("nesterov", ga.SGD, reference.nesterov, MOMENTUM, L2 | MAX, {"nesterov": True}),
    Case("velocity", ga.SGD, reference.velocity, MOMENTUM, AFTER | MAX, VELOCITY),
    Case("nesterov-velocity", ga.SGD, reference.velocity, MOMENTUM | {"nesterov": True}, ABSOLUTE,
         VELOCITY),
    Case("adagrad", ga.Adagrad, reference.adagrad, {"lr": 0.1, "eps": 1e-3}),
    Case("adagrad+l2+max", ga.Adagrad, reference.adagrad, ADAGRAD, L2 | MAX),
    Case("adagrad-outside", ga.Adagrad, reference.adagrad,
         ADAGRAD | {"eps": 1e-2, "eps_mode": "outside"}, DECOUPLED),
    Case("adagrad-none", ga.Adagrad, reference.adagrad,
         {"lr": 0.1, "eps_mode": "none", "lr_decay": 0.2}, AFTER),
    Case("rmsprop", ga.RMSprop, reference.rmsprop, RMSPROP),
    Case("rmsprop+decoupled", ga.RMSprop, reference.rmsprop, RMSPROP, DECOUPLED),
    Case("rmsprop-outside", ga.RMSprop, reference.rmsprop,
         RMSPROP | {"eps": 1e-2, "eps_mode": "outside"}, L2 | MAX),
    Case("rmsprop-momentum", ga.RMSprop, reference.rmsprop, BUFFER | {"eps_mode": "outside"}, L2),
    Case("rmsprop-velocity", ga.RMSprop, reference.rmsprop, BUFFER | VELOCITY, ABSOLUTE | MAX),
    Case("centered", ga.RMSprop, reference.rmsprop, RMSPROP | {"centered": True}, AFTER),
    Case("centered-momentum", ga.RMSprop, reference.rmsprop, BUFFER | {"centered": True},
         DECOUPLED | MAX),
    Case("centered-velocity", ga.RMSprop, reference.rmsprop,
         BUFFER | VELOCITY | {"centered": True, "eps_mode": "outside"}, L2),
    Case("adadelta", ga.Adadelta, reference.adadelta, {"lr": 1.0, "rho": 0.8, "eps": 1e-4}),
    Case("adadelta+l2", ga.Adadelta, reference.adadelta, {"lr": 0.7, "rho": 0.8, "eps": 1e-4}, L2),
    Case("adadelta+decoupled+max", ga.Adadelta, reference.adadelta,
         {"lr": 0.7, "rho": 0.8, "eps": 1e-4}, DECOUPLED | MAX),
    Case("adam", ga.Adam, reference.adam, ADAM),
    Case("adam+l2+max", ga.Adam, reference.adam, ADAM, L2 | MAX),
    Case("adamw", ga.AdamW, reference.adam, ADAM, DECOUPLED),
    Case("adam-inside", ga.Adam, reference.adam, ADAM | {"eps_mode": "inside"}, ABSOLUTE),
    Case("adam-uncorrected", ga.Adam, reference.adam, ADAM | {"eps_mode": "uncorrected"},
         AFTER | MAX),
    Case("adam-biased", ga.Adam, reference.adam,
         ADAM | {"eps_mode": "uncorrected", "bias_correction": False}, L2),
    Case("amsgrad", ga.Adam, reference.adam, ADAM | {"amsgrad": "raw"}, L2 | MAX),
    Case("amsgrad-uncorrected", ga.AdamW, reference.adam,
         ADAM | {"amsgrad": True, "eps_mode": "uncorrected"}, DECOUPLED),
    Case("amsgrad-corrected", ga.Adam, reference.adam,
         ADAM | {"amsgrad": "corrected", "eps_mode": "inside"}, ABSOLUTE),
    Case("adamax", ga.Adamax, reference.adamax, ADAM, L2 | MAX),
    Case("adamax-max", ga.Adamax, reference.adamax, ADAM | {"eps_mode": "max"}, DECOUPLED),
    Case("adamax-biased", ga.Adamax, reference.adamax, ADAM | {"bias_correction": False}, AFTER),
    Case("nadam", ga.NAdam, reference.nadam, NADAM, L2 | MAX),
    Case("nadam-uncorrected", ga.NAdam, reference.nadam,
         ADAM | {"eps_mode": "uncorrected", "schedule": False}, DECOUPLED),
    Case("nadam-biased", ga.NAdam, reference.nadam,
         NADAM | {"eps_mode": "inside", "bias_correction": False}, ABSOLUTE),
    Case("radam", ga.RAdam, reference.radam, RADAM, L2 | MAX),
    Case("radam-uncorrected", ga.RAdam, reference.radam,
         RADAM | {"eps_mode": "uncorrected", "threshold_inclusive": True}, DECOUPLED),
    Case("radam-biased", ga.RAdam, reference.radam,
         RADAM | {"eps_mode": "inside", "bias_correction": False}, AFTER),
    Case("lion", ga.Lion, reference.lion, {"lr": 0.02, "betas": (0.8, 0.95)}, DECOUPLED | MAX),
    Case("ftrl", ga.FTRL, reference.ftrl, FTRL, L2 | MAX),
    Case("ftrl+max", ga.FTRL, reference.ftrl, FTRL | {"initial_accumulator": 0.0}, MAX),
]  # fmt: skip

RULES: list[Rule] = list(dict.fromkeys(case.rule for case in CASES))
"""The composed rules of all cases, each once."""


KINDS: list[Case] = [
    case
    for case in CASES
    if case.name
    in ("sgd", "momentum", "adagrad", "rmsprop", "adadelta", "adam", "amsgrad", "radam", "ftrl")
    or case.name == "centered-momentum"
]
"""One of each kind, for what knows of a rule only what it is given: no state to three, those
that go by the step, those that read the parameter, those that may be row-wise and those not."""

__all__ = ["CASES", "KINDS", "RULES", "Case"]
