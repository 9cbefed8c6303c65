"""Gradient descent, plain or with momentum: SGD."""

from __future__ import annotations

from typing import Unpack

from gpuadapt.kernels import rules

from ..choices import MomentumForm
from ..common_options import CommonOptions, SGDGroup
from ..containers import ParamsOrGroups
from ..errors import HyperparameterError
from ..hyperparameters import DEFAULTS, Hyperparameter
from ..optimizer import Optimizer
from ..signatures import spelled_out
from .variants import choose, is_zero, read_by


class SGD(Optimizer):
    r"""Stochastic gradient descent, optionally with momentum.

    .. math::
        b &\leftarrow \mu b + (1 - \tau) g \\
        p &\leftarrow p - lr \cdot b
        \quad\text{or, with nesterov and without } \tau,\quad p - lr \cdot (g + \mu b)

    With lr inside the buffer (``momentum_form="velocity"``):

    .. math::
        b &\leftarrow \mu b + lr \cdot g \\
        p &\leftarrow p - b
        \quad\text{or, with nesterov,}\quad p - (lr \cdot g + \mu b)

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate.
    momentum : float or schedule, in [0, 1)
        :math:`\mu`; with 0 there is no state.
    dampening : float or schedule
        :math:`\tau`, taken as 0 at the first step, as in torch. Only for the heavy ball
        without nesterov.
    nesterov : bool
        Look ahead along the buffer; needs momentum.
    momentum_form : {"heavy_ball", "velocity"}
        lr outside the buffer (torch, optax) or inside (Keras, Chainer). They differ when
        lr changes.

    Notes
    -----
    State: ``b``, if there is momentum. Robbins & Monro 1951; Polyak 1964; Sutskever et al.
    2013, section 2.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.ones(2, np.float32)
    >>> ga.SGD(w, lr=0.5).step(w.copy())
    >>> w
    array([0.5, 0.5], dtype=float32)
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[SGDGroup],
        lr: Hyperparameter = 1e-2,
        *,
        momentum: Hyperparameter = 0.0,
        dampening: Hyperparameter = 0.0,
        nesterov: bool = False,
        momentum_form: MomentumForm = "heavy_ball",
        **options: Unpack[CommonOptions],
    ) -> None:
        heavy = {False: rules.momentum, True: rules.nesterov}
        velocity = {False: rules.velocity, True: rules.nesterov_velocity}
        forms = choose("momentum_form", momentum_form, {"heavy_ball": heavy, "velocity": velocity})
        rule = choose("nesterov", nesterov, forms)
        hyperparameters = {"lr": lr, "momentum": momentum, "dampening": dampening}
        if is_zero("momentum", momentum, params):
            if nesterov:
                raise HyperparameterError(
                    "nesterov: needs momentum > 0; give one, or leave nesterov out"
                )
            rule = rules.sgd
        if rule is not rules.momentum and not is_zero("dampening", dampening, params):
            raise HyperparameterError(
                "dampening: only for momentum_form='heavy_ball' without nesterov; leave it out"
            )
        super().__init__(rule, params, **read_by(rule, hyperparameters), **options)
