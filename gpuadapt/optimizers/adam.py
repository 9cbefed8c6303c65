"""Adam and AdamW."""

from __future__ import annotations

from typing import Unpack

from gpuadapt.kernels import rules

from ..choices import AdamEps, AMSGrad, Decay
from ..common_options import AdamGroup, AdamOptions, AdamWOptions
from ..containers import ParamsOrGroups
from ..hyperparameters import BETAS, DEFAULTS, Betas, Hyperparameter
from ..optimizer import Optimizer
from ..signatures import spelled_out
from .variants import choose, corrected


class Adam(Optimizer):
    r"""Adam: running means of the gradient and of its square, both corrected for their start.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        p &\leftarrow p - \frac{lr}{\sqrt{\hat v} + \epsilon} \hat m,
        \quad \hat m = \frac{m}{1 - \beta_1^t},\ \hat v = \frac{v}{1 - \beta_2^t}

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate: the length of the first step, whatever the gradient's scale.
    betas : pair of float or schedule, in [0, 1)
        :math:`\beta_1, \beta_2`.
    eps : float or schedule, > 0
        :math:`\epsilon`.
    eps_mode : {"outside", "inside", "uncorrected"}
        :math:`\sqrt{\hat v} + \epsilon` as in the paper's algorithm,
        :math:`\sqrt{\hat v + \epsilon}`, or :math:`\epsilon` added to the square root of
        :math:`v` before its correction (the paper's reordered form, used by TensorFlow and
        Keras).
    amsgrad : bool or {"raw", "corrected"}
        Divide by the largest second moment so far: of :math:`v` ("raw", True) or of
        :math:`\hat v` (as optax does).
    bias_correction : bool
        False leaves :math:`\hat m = m`, :math:`\hat v = v`.

    Notes
    -----
    State: ``m``, ``v``; with amsgrad ``w``, the maximum. Kingma & Ba, Adam: A Method for
    Stochastic Optimization, 2015, algorithm 1; Reddi, Kale & Kumar, On the Convergence of
    Adam and Beyond, 2018, algorithm 2 (amsgrad).

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.zeros(2)
    >>> ga.Adam(w, lr=0.5).step(np.array([1e-3, -100.0]))
    >>> w.round(4)
    array([-0.5,  0.5])
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[AdamGroup],
        lr: Hyperparameter = 1e-3,
        *,
        betas: Betas = BETAS,
        eps: Hyperparameter = 1e-8,
        eps_mode: AdamEps = "outside",
        amsgrad: bool | AMSGrad = False,
        bias_correction: bool = True,
        **options: Unpack[AdamOptions],
    ) -> None:
        amsgrad_rules = {
            False: rules.adam,
            True: rules.amsgrad,
            "raw": rules.amsgrad,
            "corrected": rules.amsgrad_corrected,
        }
        rule = corrected(choose("amsgrad", amsgrad, amsgrad_rules), eps_mode, bias_correction)
        super().__init__(rule, params, lr=lr, betas=betas, eps=eps, **options)


class AdamW(Adam):
    r"""Adam with decoupled weight decay: the parameter decays, the gradient is left as it is.

    .. math::
        p \leftarrow p - lr \cdot weight\_decay \cdot p \quad\text{before Adam's update}

    Parameters
    ----------
    params, lr, betas, eps, eps_mode, amsgrad, bias_correction
        See `Adam`.
    weight_decay : float or schedule, >= 0
    decay : str
        See `Optimizer`.

    Notes
    -----
    State: as `Adam`. Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019,
    algorithm 2.
    """

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: ParamsOrGroups[AdamGroup],
        lr: Hyperparameter = 1e-3,
        *,
        betas: Betas = BETAS,
        eps: Hyperparameter = 1e-8,
        eps_mode: AdamEps = "outside",
        amsgrad: bool | AMSGrad = False,
        bias_correction: bool = True,
        weight_decay: Hyperparameter = 1e-2,
        decay: Decay = "decoupled",
        **options: Unpack[AdamWOptions],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas=betas,
            eps=eps,
            eps_mode=eps_mode,
            amsgrad=amsgrad,
            bias_correction=bias_correction,
            weight_decay=weight_decay,
            decay=decay,
            **options,
        )
