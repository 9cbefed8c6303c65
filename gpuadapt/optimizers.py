"""The named methods: defaults, the formula, and which rule.

Every class takes the keywords of `Optimizer` as well: ``weight_decay``, ``decay``,
``maximize``, ``rowwise``, ``max_row_norm``, ``check``.
"""

from __future__ import annotations

from typing import Any

from gpuadapt.kernels import rules
from gpuadapt.kernels.rule import Rule

from .errors import HyperparameterError
from .hyperparameters import Hyperparameter, number
from .optimizer import Optimizer
from .structure import are_groups


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum if asked for.

    .. math::
        b &\leftarrow \mu b + g \\
        p &\leftarrow p - lr \cdot b
        \quad\text{or, with nesterov,}\quad p - lr \cdot (g + \mu b)

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate.
    momentum : float or schedule, in [0, 1)
        :math:`\mu`; 0 for plain descent, which keeps no state.
    nesterov : bool
        Look ahead along the buffer; needs momentum.

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

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-2,
        *,
        momentum: Hyperparameter = 0.0,
        nesterov: bool = False,
        **settings: Any,
    ) -> None:
        plain = not callable(momentum) and number("momentum", momentum) == 0
        if plain and not (are_groups(params) and any("momentum" in group for group in params)):
            if nesterov:
                raise HyperparameterError("nesterov: needs momentum > 0")
            super().__init__(rules.sgd, params, lr=lr, **settings)
        else:
            rule = rules.nesterov if nesterov else rules.momentum
            super().__init__(rule, params, lr=lr, momentum=momentum, **settings)


class Adagrad(Optimizer):
    r"""Adagrad: every element's rate falls with its accumulated squared gradients.

    .. math::
        G &\leftarrow G + g^2 \\
        p &\leftarrow p - \frac{lr}{\sqrt{G + \epsilon}} g

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate.
    eps : float or schedule, > 0
        :math:`\epsilon`.
    eps_mode : {"inside", "outside"}
        :math:`\sqrt{G + \epsilon}` or :math:`\sqrt{G} + \epsilon`.

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
        **settings: Any,
    ) -> None:
        rule = _form(
            "eps_mode", eps_mode, {"inside": rules.adagrad, "outside": rules.adagrad_outside}
        )
        super().__init__(rule, params, lr=lr, eps=eps, **settings)


class RMSprop(Optimizer):
    r"""RMSprop: Adagrad with a running mean of squared gradients instead of their sum.

    .. math::
        G &\leftarrow \rho G + (1 - \rho) g^2 \\
        p &\leftarrow p - \frac{lr}{\sqrt{G + \epsilon}} g

    Parameters
    ----------
    params
        See `Optimizer`.
    lr : float or schedule, >= 0
        Learning rate.
    rho : float or schedule, in [0, 1)
        Decay of the mean.
    eps : float or schedule, > 0
        :math:`\epsilon`.
    eps_mode : {"inside", "outside"}
        :math:`\sqrt{G + \epsilon}` or :math:`\sqrt{G} + \epsilon`.

    Notes
    -----
    State: ``G``. Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.zeros(2)
    >>> ga.RMSprop(w, lr=0.5, rho=0.75).step(np.array([1.0, -100.0]))
    >>> w.round(6)
    array([-1.,  1.])
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        *,
        rho: Hyperparameter = 0.9,
        eps: Hyperparameter = 1e-8,
        eps_mode: str = "inside",
        **settings: Any,
    ) -> None:
        rule = _form(
            "eps_mode", eps_mode, {"inside": rules.rmsprop, "outside": rules.rmsprop_outside}
        )
        super().__init__(rule, params, lr=lr, rho=rho, eps=eps, **settings)


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
    rho : float or schedule, in [0, 1)
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

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1.0,
        *,
        rho: Hyperparameter = 0.9,
        eps: Hyperparameter = 1e-6,
        **settings: Any,
    ) -> None:
        super().__init__(rules.adadelta, params, lr=lr, rho=rho, eps=eps, **settings)


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
    betas : (float or schedule, float or schedule), in [0, 1)
        :math:`\beta_1, \beta_2`.
    eps : float or schedule, > 0
        :math:`\epsilon`.
    eps_mode : {"outside", "inside", "uncorrected"}
        :math:`\sqrt{\hat v} + \epsilon` as in the paper's algorithm,
        :math:`\sqrt{\hat v + \epsilon}`, or :math:`\epsilon` added to the square root of
        :math:`v` before its correction (the paper's reordered form, used by TensorFlow and
        Keras).

    Notes
    -----
    State: ``m``, ``v``. Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015,
    algorithm 1.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w = np.zeros(2)
    >>> ga.Adam(w, lr=0.5).step(np.array([1e-3, -100.0]))
    >>> w.round(4)
    array([-0.5,  0.5])
    """

    def __init__(
        self,
        params: Any,
        lr: Hyperparameter = 1e-3,
        *,
        betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
        eps: Hyperparameter = 1e-8,
        eps_mode: str = "outside",
        **settings: Any,
    ) -> None:
        forms = {
            "outside": rules.adam,
            "inside": rules.adam_inside,
            "uncorrected": rules.adam_uncorrected,
        }
        rule = _form("eps_mode", eps_mode, forms)
        super().__init__(rule, params, lr=lr, betas=betas, eps=eps, **settings)


def _form(option: str, given: str, forms: dict[str, Rule]) -> Rule:
    if not isinstance(given, str) or given not in forms:
        names = ", ".join(map(repr, forms))
        raise HyperparameterError(f"{option}: got {given!r}, expected one of {names}")
    return forms[given]
