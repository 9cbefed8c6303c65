"""Methods whose rates follow a running mean of squared gradients: RMSprop, Adadelta."""

from __future__ import annotations

from typing import Unpack

from gpuadapt.kernels import rules

from ..choices import MomentumForm, RMSpropEps
from ..common_options import AdadeltaGroup, CommonOptions, RMSpropGroup
from ..containers import ParamsOrGroups
from ..hyperparameters import DEFAULTS, Hyperparameter, number
from ..optimizer import Optimizer
from ..signatures import spelled_out
from .variants import ROOTS, choose, is_zero, read_by, start_states


class RMSprop(Optimizer):
    r"""RMSprop: Adagrad with a running mean of squared gradients instead of their sum.

    .. math::
        G &\leftarrow \rho G + (1 - \rho) g^2 \\
        p &\leftarrow p - \frac{lr}{\sqrt{G + \epsilon}} g

    With ``centered`` the variance :math:`V = G - M^2` replaces :math:`G`. The difference would
    cancel where gradients vary little around their mean, so :math:`V` has a recurrence of its own:

    .. math::
        V \leftarrow \rho V + \rho (1 - \rho) (g - M)^2, \quad
        M \leftarrow \rho M + (1 - \rho) g

    With momentum, :math:`b` moves the parameter:

    .. math::
        b &\leftarrow \mu b + g / \sqrt{G + \epsilon}, \quad p \leftarrow p - lr \cdot b
        \quad\text{(heavy ball)} \\
        b &\leftarrow \mu b + lr \cdot g / \sqrt{G + \epsilon}, \quad p \leftarrow p - b
        \quad\text{(velocity)}

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate.
    rho : float or schedule, in [0, 1]
        Decay of the mean.
    eps : float or schedule, > 0
        :math:`\epsilon`.
    eps_mode : {"inside", "outside"}
        :math:`\sqrt{G + \epsilon}` or :math:`\sqrt{G} + \epsilon`.
    momentum : float or schedule, in [0, 1)
        :math:`\mu`; with 0 there is no buffer.
    momentum_form : {"heavy_ball", "velocity"}
        lr outside the buffer (torch) or inside (Keras, TensorFlow, optax). They differ when
        lr changes.
    centered : bool
        Divide by the deviation from the mean.
    initial_square : float, >= 0
        Every element of :math:`G`, or :math:`V`, before the first step (TensorFlow 1 has 1).

    Notes
    -----
    State: ``G``, or ``V`` and ``M`` if centered (other frameworks keep ``V + M**2``); ``b`` if
    there is momentum. Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012;
    Graves, Generating Sequences with Recurrent Neural Networks, 2013, eq. 38-41 (centered).

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.zeros(2)
    >>> ga.RMSprop(w, lr=0.5, rho=0.75).step(np.array([1.0, -100.0]))
    >>> w.round(6)
    array([-1.,  1.])
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[RMSpropGroup],
        lr: Hyperparameter = 1e-3,
        *,
        rho: Hyperparameter = 0.9,
        eps: Hyperparameter = 1e-8,
        eps_mode: RMSpropEps = "inside",
        momentum: Hyperparameter = 0.0,
        momentum_form: MomentumForm = "heavy_ball",
        centered: bool = False,
        initial_square: float = 0.0,
        **options: Unpack[CommonOptions],
    ) -> None:
        plain = {False: rules.rmsprop, True: rules.centered}
        heavy = {False: rules.rmsprop_momentum, True: rules.centered_momentum}
        velocity = {False: rules.rmsprop_velocity, True: rules.centered_velocity}
        forms = choose("momentum_form", momentum_form, {"heavy_ball": heavy, "velocity": velocity})
        if is_zero("momentum", momentum, params):
            forms = plain
        rule = choose("centered", centered, forms)
        roots = {name: ROOTS[name] for name in ("inside", "outside")}
        rule = rule.variant(root=choose("eps_mode", eps_mode, roots))
        hyperparameters = {"lr": lr, "rho": rho, "eps": eps, "momentum": momentum}
        square = number("initial_square", initial_square)
        start_states(options, **{rule.states[0]: square})
        super().__init__(rule, params, **read_by(rule, hyperparameters), **options)


class Adadelta(Optimizer):
    r"""Adadelta: steps in the parameter's own unit, with no learning rate to choose.

    .. math::
        G &\leftarrow \rho G + (1 - \rho) g^2 \\
        u &= \frac{\sqrt{U + \epsilon}}{\sqrt{G + \epsilon}} g \\
        U &\leftarrow \rho U + (1 - \rho) u^2 \\
        p &\leftarrow p - lr \cdot u

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Multiplies the step; the paper has none (1).
    rho : float or schedule, in [0, 1]
        Decay of both means.
    eps : float or schedule, > 0
        :math:`\epsilon`; it also sets the size of the first steps.

    Notes
    -----
    State: ``G``, ``U``. Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012,
    algorithm 1.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.zeros(2)
    >>> ga.Adadelta(w, rho=0.75, eps=1e-4).step(np.array([1.0, -100.0]))
    >>> w.round(3)
    array([-0.02,  0.02])
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[AdadeltaGroup],
        lr: Hyperparameter = 1.0,
        *,
        rho: Hyperparameter = 0.9,
        eps: Hyperparameter = 1e-6,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(rules.adadelta, params, lr=lr, rho=rho, eps=eps, **options)
