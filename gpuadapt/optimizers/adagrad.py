"""Methods whose rates fall with the sum of squared gradients: Adagrad, FTRL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np

from gpuadapt.kernels import rules
from gpuadapt.kernels.array_types import HostArray

from ..choices import AdagradEps
from ..common_options import AdagradGroup, CommonOptions, FTRLGroup
from ..containers import ParamsOrGroups
from ..errors import HyperparameterError
from ..hyperparameters import DEFAULTS, Hyperparameter, Start, check_choice, number
from ..optimizer import Optimizer
from ..signatures import spelled_out
from .variants import ROOTS, choose, read_by, start_states


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

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[AdagradGroup],
        lr: Hyperparameter = 1e-2,
        *,
        eps: Hyperparameter = 1e-8,
        eps_mode: AdagradEps = "inside",
        initial_accumulator: float = 0.0,
        lr_decay: Hyperparameter = 0.0,
        **options: Unpack[CommonOptions],
    ) -> None:
        rule = rules.adagrad.variant(root=choose("eps_mode", eps_mode, ROOTS))
        if eps_mode == "none" and eps != 1e-8:
            raise HyperparameterError(
                f"eps: got {eps!r}, which has no effect with eps_mode='none'; leave it out"
            )
        hyperparameters = {"lr": lr, "lr_decay": lr_decay, "eps": eps}
        start_states(options, G=number("initial_accumulator", initial_accumulator))
        super().__init__(rule, params, **read_by(rule, hyperparameters), **options)


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
        See `Optimizer`. The initial weights have no influence: an element without a gradient
        becomes 0, unless ``keep_weights`` is given.
    lr : float or schedule, > 0
        :math:`\alpha` in the paper. The formula divides by it: a warm-up begins above 0.
    l1, l2 : float or schedule, >= 0
        Strengths of the two regularizers.
    beta : float or schedule, >= 0
        :math:`\beta`: the rate of the first steps is about lr / beta.
    initial_accumulator : float, >= 0
        Every element of :math:`n` before the first step.
    keep_weights : bool
        Start :math:`z` so that a zero gradient leaves the given weights as they are, to within
        rounding. By default :math:`z` starts from 0, as in the paper, TensorFlow and Keras.
        Weights written into the arrays later are not kept: make another optimizer for them.
        ``lr``, ``l1``, ``l2`` and ``beta`` must then be numbers, and beta,
        initial_accumulator or l2 above 0.

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

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[FTRLGroup],
        lr: Hyperparameter = 1e-1,
        *,
        l1: Hyperparameter = 0.0,
        l2: Hyperparameter = 0.0,
        beta: Hyperparameter = 1.0,
        initial_accumulator: float = 0.0,
        keep_weights: bool = False,
        **options: Unpack[CommonOptions],
    ) -> None:
        start_states(options, n=number("initial_accumulator", initial_accumulator))
        initial = options["initial"]
        check_choice({"keep_weights": keep_weights}, "keep_weights", (False, True))
        if keep_weights and isinstance(initial, Mapping):
            if "z" in initial:
                raise HyperparameterError("initial z: keep_weights says what z is")
            start = Start(partial(_z_of_weights, initial["n"]))
            options["initial"] = {**initial, "z": start}  # type: ignore[dict-item]
        super().__init__(rules.ftrl, params, lr=lr, l1=l1, l2=l2, beta=beta, **options)


def _z_of_weights(n: Any, weights: HostArray, settings: Mapping[str, Any]) -> HostArray:
    """Solve FTRL's third equation for z, given the weights and n.

    Parameters
    ----------
    n : float
        The accumulator, equal for all elements.
    weights : array, any shape
    settings : mapping
        The group's hyperparameters by name.

    Returns
    -------
    array of float64, shape of the weights

    Raises
    ------
    HyperparameterError
        A hyperparameter is a schedule, or the divisor of the equation is 0.
    """
    names = ("lr", "l1", "l2", "beta")
    for name in names:
        if callable(settings[name]):
            raise HyperparameterError(
                f"keep_weights: {name} is a schedule; give a number, from which z can start"
            )
    lr, l1, l2, beta = (number(name, settings[name]) for name in names)
    root = math.sqrt(number("initial n", n))
    divisor = (beta + root) / lr + l2 if lr > 0 else 0.0
    if not 0 < divisor < math.inf:
        raise HyperparameterError(
            "keep_weights: with these lr, beta, initial_accumulator and l2 the formula divides by "
            f"{divisor}; it takes lr > 0, and one of the others above 0"
        )
    wide = weights.astype(np.float64)
    return -(wide * divisor + l1 * np.sign(wide))
