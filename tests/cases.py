"""Every rule with every option non-zero at least once: the table that the tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import reference
from gpuadapt.kernels.rule import Rule

import gpuadapt as ga


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
        return self.optimizer(np.zeros(1))._groups[0].rule


L2 = {"weight_decay": 0.03, "decay": "l2"}
DECOUPLED = {"weight_decay": 0.05, "decay": "decoupled"}
MAX = {"maximize": True}
ADAM = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3}

CASES = [
    Case("sgd", ga.SGD, reference.sgd, {"lr": 0.1}),
    Case("sgd+l2+max", ga.SGD, reference.sgd, {"lr": 0.1}, L2 | MAX),
    Case("momentum", ga.SGD, reference.momentum, {"lr": 0.1, "momentum": 0.7}),
    Case("momentum+decoupled", ga.SGD, reference.momentum, {"lr": 0.1, "momentum": 0.7},
         DECOUPLED | MAX),
    Case("nesterov", ga.SGD, reference.nesterov, {"lr": 0.1, "momentum": 0.7}, L2,
         {"nesterov": True}),
    Case("nesterov+max", ga.SGD, reference.nesterov, {"lr": 0.1, "momentum": 0.7}, MAX,
         {"nesterov": True}),
    Case("adagrad", ga.Adagrad, reference.adagrad, {"lr": 0.1, "eps": 1e-3}),
    Case("adagrad+l2+max", ga.Adagrad, reference.adagrad, {"lr": 0.1, "eps": 1e-3}, L2 | MAX),
    Case("adagrad-outside", ga.Adagrad, reference.adagrad,
         {"lr": 0.1, "eps": 1e-2, "eps_mode": "outside"}, DECOUPLED),
    Case("rmsprop", ga.RMSprop, reference.rmsprop, {"lr": 0.02, "rho": 0.8, "eps": 1e-3}),
    Case("rmsprop+decoupled", ga.RMSprop, reference.rmsprop,
         {"lr": 0.02, "rho": 0.8, "eps": 1e-3}, DECOUPLED),
    Case("rmsprop-outside", ga.RMSprop, reference.rmsprop,
         {"lr": 0.02, "rho": 0.8, "eps": 1e-2, "eps_mode": "outside"}, L2 | MAX),
    Case("adadelta", ga.Adadelta, reference.adadelta, {"lr": 1.0, "rho": 0.8, "eps": 1e-4}),
    Case("adadelta+l2", ga.Adadelta, reference.adadelta, {"lr": 0.7, "rho": 0.8, "eps": 1e-4}, L2),
    Case("adadelta+decoupled+max", ga.Adadelta, reference.adadelta,
         {"lr": 0.7, "rho": 0.8, "eps": 1e-4}, DECOUPLED | MAX),
    Case("adam", ga.Adam, reference.adam, ADAM),
    Case("adam+l2+max", ga.Adam, reference.adam, ADAM, L2 | MAX),
    Case("adam+decoupled", ga.Adam, reference.adam, ADAM, DECOUPLED),
    Case("adam-inside", ga.Adam, reference.adam, ADAM | {"eps_mode": "inside"}, L2),
    Case("adam-uncorrected", ga.Adam, reference.adam, ADAM | {"eps_mode": "uncorrected"},
         DECOUPLED | MAX),
]  # fmt: skip

RULES: list[Rule] = list(dict.fromkeys(case.rule for case in CASES))
"""The composed rules of all cases, each once."""


def _base(case: Case) -> Rule:
    return case.optimizer(np.zeros(1)).rule


ONE_EACH: list[Case] = list({_base(case): case for case in reversed(CASES)}.values())[::-1]
"""The first case of every rule: enough for what knows of a rule only what it is given."""

__all__ = ["CASES", "ONE_EACH", "RULES", "Case"]
