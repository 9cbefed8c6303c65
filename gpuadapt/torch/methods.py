"""The optimizers of `torch.optim`, by fused kernels: torch's signatures, then `Options`."""

from __future__ import annotations

from typing import Unpack, cast

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..signatures import spelled_out
from .fused import Fused
from .options import DEFAULTS, Options, TorchParams
from .recipes import RECIPES


class SGD(Fused, torch.optim.SGD):
    """Gradient descent, plain or with momentum, as `torch.optim.SGD`.

    b <- momentum b + (1 - dampening) g, the first time momentum b + g;  p <- p - lr b

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``momentum_buffer`` if there is momentum; ``step`` where random bits round. Robbins &
    Monro 1951; Polyak 1964; Sutskever et al. 2013, section 2.
    """

    _recipe, _torch_class = RECIPES["SGD"], torch.optim.SGD

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.001,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )
        self._add_options(options)


class Adagrad(Fused, torch.optim.Adagrad):
    """Adagrad, as `torch.optim.Adagrad`.

    G <- G + g^2;  p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(G) + eps)

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step``, ``sum``. Duchi, Hazan & Singer, Adaptive Subgradient Methods, 2011.
    """

    _recipe, _torch_class = RECIPES["Adagrad"], torch.optim.Adagrad

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            lr_decay,
            weight_decay,
            initial_accumulator_value,
            eps,
            foreach,
            maximize=maximize,
            differentiable=differentiable,
            fused=fused,
        )
        self._add_options(options)


class RMSprop(Fused, torch.optim.RMSprop):
    """RMSprop, as `torch.optim.RMSprop`.

    G <- alpha G + (1 - alpha) g^2;  p <- p - lr g / (sqrt(G) + eps)

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step``, ``square_avg``, ``grad_avg`` if centered, ``momentum_buffer`` if there is
    momentum. Tieleman & Hinton, lecture 6.5, 2012; Graves 2013, eq. 38-41 (centered).
    """

    _recipe, _torch_class = RECIPES["RMSprop"], torch.optim.RMSprop

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            alpha,
            eps,
            weight_decay,
            momentum,
            centered,
            capturable,
            foreach,
            maximize,
            differentiable,
        )
        self._add_options(options)


class Adadelta(Fused, torch.optim.Adadelta):
    """Adadelta, as `torch.optim.Adadelta`.

    G <- rho G + (1 - rho) g^2;  u = g sqrt(U + eps) / sqrt(G + eps);
    U <- rho U + (1 - rho) u^2;  p <- p - lr u

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step``, ``square_avg``, ``acc_delta``. Zeiler 2012, algorithm 1.
    """

    _recipe, _torch_class = RECIPES["Adadelta"], torch.optim.Adadelta

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            rho,
            eps,
            weight_decay,
            foreach,
            capturable=capturable,
            maximize=maximize,
            differentiable=differentiable,
        )
        self._add_options(options)


class Adam(Fused, torch.optim.Adam):
    """Adam, as `torch.optim.Adam`.

    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
    p <- p - lr mhat / (sqrt(vhat) + eps)

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step``, ``exp_avg``, ``exp_avg_sq``, ``max_exp_avg_sq`` with amsgrad. Kingma & Ba 2015,
    algorithm 1; Reddi, Kale & Kumar 2018 (amsgrad).
    """

    _recipe, _torch_class = RECIPES["Adam"], torch.optim.Adam

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        self._add_options(options)


class AdamW(Fused, torch.optim.AdamW):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    p <- p - lr weight_decay p before Adam's update

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: as `Adam`. Loshchilov & Hutter 2019, algorithm 2.
    """

    _recipe, _torch_class = RECIPES["Adam"], torch.optim.AdamW

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        self._add_options(options)


class SparseAdam(Fused, torch.optim.SparseAdam):
    """Adam for sparse gradients, as `torch.optim.SparseAdam`: other rows stay as they are.

    as Adam, with eps added to sqrt(v) before its correction

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step`` (an int), ``exp_avg``, ``exp_avg_sq``. With ``sparse="exact"`` rows catch up
    with the steps they were not in.
    """

    _recipe, _torch_class = RECIPES["SparseAdam"], torch.optim.SparseAdam

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(cast(ParamsT, params), lr, betas, eps, maximize)
        self._add_options(options)


class Adamax(Fused, torch.optim.Adamax):
    """Adamax, as `torch.optim.Adamax`.

    m <- beta1 m + (1 - beta1) g;  u <- max(beta2 u, |g| + eps);  p <- p - lr mhat / u

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step``, ``exp_avg``, ``exp_inf``. Kingma & Ba 2015, algorithm 2.
    """

    _recipe, _torch_class = RECIPES["Adamax"], torch.optim.Adamax

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            betas,
            eps,
            weight_decay,
            foreach,
            maximize=maximize,
            differentiable=differentiable,
            capturable=capturable,
        )
        self._add_options(options)


class NAdam(Fused, torch.optim.NAdam):
    """NAdam, as `torch.optim.NAdam`.

    as Adam, with Nesterov's look-ahead and a schedule of momentum

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step``, ``mu_product``, ``exp_avg``, ``exp_avg_sq``. Dozat 2016, algorithm 2 and
    section 3.
    """

    _recipe, _torch_class = RECIPES["NAdam"], torch.optim.NAdam

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            betas,
            eps,
            weight_decay,
            momentum_decay,
            decoupled_weight_decay,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
        )
        self._add_options(options)


class RAdam(Fused, torch.optim.RAdam):
    """RAdam, as `torch.optim.RAdam`.

    as Adam, without the second moment until its variance can be estimated

    Parameters
    ----------
    params, lr, ...
        Those of torch's class, in its order.
    **options
        gpuadapt's own, see `Optimizer`.

    Notes
    -----
    State: ``step``, ``exp_avg``, ``exp_avg_sq``. Liu et al. 2020, algorithm 2.
    """

    _recipe, _torch_class = RECIPES["RAdam"], torch.optim.RAdam

    @spelled_out(DEFAULTS)
    def __init__(
        self,
        params: TorchParams,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            cast(ParamsT, params),
            lr,
            betas,
            eps,
            weight_decay,
            decoupled_weight_decay,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
        )
        self._add_options(options)
