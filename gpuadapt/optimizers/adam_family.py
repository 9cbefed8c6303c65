"""Relatives of Adam: Adamax, NAdam, RAdam, Lion."""

from __future__ import annotations

import math
from typing import Unpack

from gpuadapt.kernels import rules

from ..choices import AdamaxEps, AdamEps
from ..common_options import AdamGroup, AdamOptions, BetasGroup, NAdamGroup, RAdamGroup
from ..containers import ParamsOrGroups
from ..hyperparameters import BETAS, DEFAULTS, LION_BETAS, Betas, Hyperparameter
from ..optimizer import Optimizer
from ..signatures import spelled_out
from .variants import DEBIAS, choose, corrected


class Adamax(Optimizer):
    r"""Adamax: Adam with the decaying maximum of |gradient| instead of the second moment.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        u &\leftarrow \max(\beta_2 u, |g|) \\
        p &\leftarrow p - \frac{lr}{u + \epsilon} \frac{m}{1 - \beta_1^t}

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate.
    betas : pair of float or schedule, in [0, 1)
        :math:`\beta_1, \beta_2`.
    eps : float or schedule, > 0
        :math:`\epsilon`.
    eps_mode : {"add", "max"}
        :math:`u + \epsilon` in the denominator (Keras), or :math:`|g| + \epsilon` in the maximum
        (torch, optax).
    bias_correction : bool
        False drops the division by :math:`1 - \beta_1^t`.

    Notes
    -----
    State: ``m``, ``u``. Kingma & Ba 2015, algorithm 2 (there without eps).
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[AdamGroup],
        lr: Hyperparameter = 2e-3,
        *,
        betas: Betas = BETAS,
        eps: Hyperparameter = 1e-8,
        eps_mode: AdamaxEps = "add",
        bias_correction: bool = True,
        **options: Unpack[AdamOptions],
    ) -> None:
        eps_rules = {"add": rules.adamax, "max": rules.adamax_floor}
        rule = choose("eps_mode", eps_mode, eps_rules).variant(
            debias=choose("bias_correction", bias_correction, DEBIAS)
        )
        super().__init__(rule, params, lr=lr, betas=betas, eps=eps, **options)


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov momentum and a schedule of the momentum coefficient.

    .. math::
        \mu_t &= \beta_1 (1 - \tfrac12\, 0.96^{t \psi}) \\
        \hat m &= \frac{\mu_{t+1} m}{1 - \prod_{i \le t+1} \mu_i}
            + \frac{(1 - \mu_t) g}{1 - \prod_{i \le t} \mu_i} \\
        p &\leftarrow p - \frac{lr}{\sqrt{\hat v} + \epsilon} \hat m

    and the rest as `Adam`.

    Parameters
    ----------
    params, lr, betas, eps, eps_mode, bias_correction
        See `Adam`.
    momentum_decay : float or schedule, >= 0
        :math:`\psi`: 0.004 in torch, 1 in Keras. If it or beta1 is a schedule, the product is
        computed as if its present value had always held.
    schedule : bool
        False leaves :math:`\mu_t = \beta_1` (as optax does); the same as an infinite
        momentum_decay.

    Notes
    -----
    State: ``m``, ``v``. Dozat, Incorporating Nesterov Momentum into Adam, 2016, algorithm 2
    and section 3.
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[NAdamGroup],
        lr: Hyperparameter = 2e-3,
        *,
        betas: Betas = BETAS,
        eps: Hyperparameter = 1e-8,
        eps_mode: AdamEps = "outside",
        momentum_decay: Hyperparameter = 0.004,
        schedule: bool = True,
        bias_correction: bool = True,
        **options: Unpack[AdamOptions],
    ) -> None:
        rule = corrected(rules.nadam, eps_mode, bias_correction)
        psi = choose("schedule", schedule, {True: momentum_decay, False: math.inf})
        super().__init__(rule, params, lr=lr, betas=betas, eps=eps, momentum_decay=psi, **options)


class RAdam(Optimizer):
    r"""RAdam: Adam that takes momentum steps while the variance of its rate is too large.

    .. math::
        \rho_\infty &= \frac{2}{1 - \beta_2} - 1, \quad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t} \\
        p &\leftarrow p - lr \cdot r_t \frac{\hat m}{\sqrt{\hat v} + \epsilon}
        \text{ if } \rho_t > threshold, \text{ else } p - lr \cdot \hat m \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}
            {(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}}

    and the rest as `Adam`.

    Parameters
    ----------
    params, lr, betas, eps, eps_mode, bias_correction
        See `Adam`.
    threshold : float or schedule
        5 in torch and optax, 4 in the paper; less than 4 counts as 4.
    threshold_inclusive : bool
        Test :math:`\rho_t \ge threshold` instead (optax).

    Notes
    -----
    State: ``m``, ``v``. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond,
    2020, algorithm 2.
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[RAdamGroup],
        lr: Hyperparameter = 1e-3,
        *,
        betas: Betas = BETAS,
        eps: Hyperparameter = 1e-8,
        eps_mode: AdamEps = "outside",
        threshold: Hyperparameter = 5.0,
        threshold_inclusive: bool = False,
        bias_correction: bool = True,
        **options: Unpack[AdamOptions],
    ) -> None:
        rule = corrected(rules.radam, eps_mode, bias_correction)
        super().__init__(
            rule,
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            threshold=threshold,
            threshold_inclusive=threshold_inclusive,
            **options,
        )


class Lion(Optimizer):
    r"""Lion (Chen et al. 2023): each element moves by lr times the sign of a running mean.

    .. math:: p \leftarrow p - lr \cdot \operatorname{sign}(\beta_1 m + (1 - \beta_1) g), \quad
        m \leftarrow \beta_2 m + (1 - \beta_2) g

    Parameters
    ----------
    params, lr, betas
        See `Adam`; a third to a tenth of its rate, with decoupled weight decay. State: ``m``.
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[BetasGroup],
        lr: Hyperparameter = 1e-4,
        *,
        betas: Betas = LION_BETAS,
        **options: Unpack[AdamOptions],
    ) -> None:
        super().__init__(rules.lion, params, lr=lr, betas=betas, **options)
