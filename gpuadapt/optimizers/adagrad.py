"""Rates that fall with the sum of squared gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from gpuadapt.kernels import rules

from ..errors import HyperparameterError
from ..hyperparameters import Hyperparameter, Start, check_choice, number
from ..optimizer import Optimizer
from .forms import ROOTS, choose, read_by, started


class Adagrad(Optimizer):
    r"""Adagrad: every element's rate falls with its accumulated squared gradients.

    .. math::
        G &\leftarrow G + g^2 \\
        p &\leftarrow p - \frac{lr_t}{\sqrt{G + \epsilon}} g,
        \quad lr_t = \frac{lr}{1 + (t - 1)\,lr\_decay}

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate.
    eps : float or schedule, > 0
        :math:`\epsilon`.
    eps_mode : {"inside", "outside", "none"}
        :math:`\sqrt{G + \epsilon}`, :math:`\sqrt{G} + \epsilon` or :math:`\sqrt{G}`, where an
        element that has had no gradient stays as it is.
    initial_accumulator : float, >= 0
        Every element of :math:`G` before the first step, in every group.
    lr_decay : float or schedule, >= 0
        Decay of the learning rate over the updates of a parameter.

    Notes
    -----
    State: ``G``. Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning
    and Stochastic Optimization, 2011.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.zeros(2, np.float32)
    >>> ga.Adagrad(w, lr=0.5).step(np.array([1, -100], np.float32))
    >>> w
    array([-0.5,  0.5], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-2,
        *,
        eps: Hyperparameter = 1e-8,
        eps_mode: str = "inside",
        initial_accumulator: float = 0.0,
        lr_decay: Hyperparameter = 0.0,
        **more: Any,
    ) -> None:
        rule = rules.adagrad.variant(root=choose("eps_mode", eps_mode, ROOTS))
        if eps_mode == "none" and eps != 1e-8:
            raise HyperparameterError(
                f"eps: got {eps!r}, which has no effect with eps_mode='none'; leave it out"
            )
        hyperparameters = {"lr": lr, "lr_decay": lr_decay, "eps": eps}
        initial = started(more, G=number("initial_accumulator", initial_accumulator))
        super().__init__(rule, params, initial=initial, **read_by(rule, hyperparameters), **more)


class FTRL(Optimizer):
    r"""FTRL-proximal: Adagrad's rates, and weights that are exactly zero.

    .. math::
        z &\leftarrow z + g - \frac{\sqrt{n + g^2} - \sqrt{n}}{lr} p \\
        n &\leftarrow n + g^2 \\
        p &\leftarrow 0 \text{ if } |z| \le l_1, \text{ else }
        \frac{l_1 \operatorname{sign}(z) - z}{(\beta + \sqrt{n}) / lr + l_2}

    Parameters
    ----------
    params
        See `Optimizer`. An element without a gradient becomes zero: weights are what their
        gradients made of them, unless ``keep_weights`` says otherwise.
    lr : float or schedule, > 0
        :math:`\alpha` in the paper. The formula divides by it: a warm-up begins above 0.
    l1, l2 : float or schedule, >= 0
        Strengths of the two regularizers.
    beta : float or schedule, >= 0
        :math:`\beta`: the rate of the first steps is about lr / beta.
    initial_accumulator : float, >= 0
        Every element of :math:`n` before the first step.
    keep_weights : bool
        :math:`z` starts so that a zero gradient leaves the weights that are given as they are, to
        within rounding; by default from 0, as in the paper, TensorFlow and Keras. Weights that
        are written into the arrays later are not kept: make another optimizer for them. ``lr``,
        ``l1``, ``l2`` and ``beta`` have to be numbers then, with beta, initial_accumulator or l2
        above 0.

    Notes
    -----
    State: ``z``, ``n``. McMahan et al., Ad Click Prediction: a View from the Trenches, 2013,
    algorithm 1. TensorFlow's and Keras's l2 is half of this one.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.zeros(2)
    >>> ga.FTRL(w, lr=1.0, l1=0.5, beta=0.0).step(np.array([0.25, -2.0]))
    >>> w
    array([0.  , 0.75])
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-1,
        *,
        l1: Hyperparameter = 0.0,
        l2: Hyperparameter = 0.0,
        beta: Hyperparameter = 1.0,
        initial_accumulator: float = 0.0,
        keep_weights: bool = False,
        **more: Any,
    ) -> None:
        initial = started(more, n=number("initial_accumulator", initial_accumulator))
        check_choice({"keep_weights": keep_weights}, "keep_weights", (False, True))
        if keep_weights and isinstance(initial, Mapping):
            if "z" in initial:
                raise HyperparameterError("initial z: keep_weights says what z is")
            initial = {**initial, "z": Start(partial(_kept, initial["n"]))}
        super().__init__(
            rules.ftrl, params, initial=initial, lr=lr, l1=l1, l2=l2, beta=beta, **more
        )


def _kept(accumulator: Any, weights: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """The z of which FTRL's formula makes these weights, where n is the accumulator.

    Raises
    ------
    HyperparameterError
        A hyperparameter is a schedule; no z makes anything but 0.
    """
    names = ("lr", "l1", "l2", "beta")
    for name in names:
        if callable(settings[name]):
            raise HyperparameterError(
                f"keep_weights: {name} is a schedule, but z starts from a number"
            )
    lr, l1, l2, beta = (number(name, settings[name]) for name in names)
    root = math.sqrt(number("initial n", accumulator))
    divisor = (beta + root) / lr + l2 if lr > 0 else 0.0
    if not 0 < divisor < math.inf:
        raise HyperparameterError(
            "keep_weights: with these lr, beta, initial_accumulator and l2 the formula divides by "
            f"{divisor}; it takes lr > 0, and one of the others above 0"
        )
    wide = weights.astype(np.float64)
    return -(wide * divisor + l1 * np.sign(wide))
