"""When torch's own step has to be taken instead, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays import check_device, elements_overlap
from ..errors import BackendError, GradientError, InPlaceError
from .base import Bound
from .places import place_of
from .recipes import RECIPES
from .settings import check_settings
from .shards import unknown_placement
from .slots import names_of
from .tensors import element_type, local


class FallbackWarning(UserWarning):
    """An optimizer of `gpuadapt.torch` takes torch's own steps; the text says why."""


class Reason(NamedTuple):
    """Why torch's own step has to be taken."""

    text: str
    refused: bool = False
    """Whether that step raises, so that there is no need to warn of it."""


def reason_of_groups(optimizer: Bound, params: Sequence[Tensor]) -> Reason | None:
    """Return why torch's own step has to be taken for these parameters and settings, or None."""
    places = {place_of(parameter).type for parameter in params}
    for group in optimizer.param_groups:
        if group.get("differentiable"):
            return Reason("differentiable=True: gradients flow through torch's operations alone")
        if group.get("capturable"):
            return Reason(
                "capturable=True: its step is captured in a CUDA graph by torch", "cpu" in places
            )
        if group.get("foreach") and isinstance(group["lr"], Tensor) and _is_adam(optimizer):
            return Reason("foreach=True with a tensor as lr, which torch refuses", True)
    for parameter in params:
        kind = type(parameter)
        if kind not in (Tensor, torch.nn.Parameter) and local(parameter) is parameter:
            return Reason(f"parameters of type {kind.__module__}.{kind.__qualname__}")
        if placement := unknown_placement(parameter):
            return Reason(f"DTensors with the placement {placement}")
        if element_type(parameter) is None:
            return Reason(f"parameters of {parameter.dtype}")
        if parameter.is_neg() or parameter.is_conj():
            return Reason("parameters that are negative or conjugate views")
    if others := places - {"cpu", "cuda"}:
        fused = any(group.get("fused") for group in optimizer.param_groups)
        return Reason(f"parameters on the device {min(others)!r}", fused and others == {"meta"})
    if "cuda" in places and (reason := _without_cupy()):
        return Reason(reason)
    return None


def _is_adam(optimizer: Bound) -> bool:
    # Not by its class, whose name in torch.optim may mean another.
    return optimizer._recipe is RECIPES["Adam"]


def _without_cupy() -> str | None:
    """Why kernels for a GPU cannot run, or None."""
    try:
        check_device()
    except BackendError as error:
        return f"parameters on a GPU without CuPy: {error}"
    return None


def check_parameters(optimizer: Bound, params: Sequence[Tensor]) -> None:
    """Check settings and parameters before a binding is made.

    Raises
    ------
    HyperparameterError, ParameterError, RuleError
        As `check_settings`.
    InPlaceError
        A parameter was made in inference mode, and this is outside of it.
    """
    check_settings(optimizer._recipe, optimizer.param_groups)
    for parameter in params:
        if parameter.is_inference() and not torch.is_inference_mode_enabled():
            _refuse_in_place(parameter, "it was made in inference mode: clone it outside of it")


def _refuse_in_place(parameter: Tensor, text: str) -> None:
    """Raise `InPlaceError` with torch's own text, or with this one where torch is content."""
    try:
        with torch.no_grad():
            parameter.mul_(1)  # it raises before it writes
    except RuntimeError as error:
        text = str(error)
    raise InPlaceError(text)


def reason_of_gradients(
    optimizer: Bound, params: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> Reason | None:
    """Return why torch's own step has to be taken for these gradients, or None.

    Raises
    ------
    GradientError, InPlaceError
        Nobody can take a step with them.
    """
    where = [group for group in optimizer.param_groups for _ in group["params"]]
    names = names_of(optimizer.param_groups)
    for parameter, gradient, group, name in zip(params, grads, where, names, strict=True):
        if gradient is None:
            continue
        own = local(parameter)
        if not own.is_contiguous() and elements_overlap(own.shape, own.stride(), 1):
            _refuse_in_place(parameter, f"elements of parameter {name!r} share memory: clone it")
        _check_gradient(parameter, gradient, name)
        find = _reason_of_sparse if gradient.is_sparse else _reason_of_dense
        if reason := find(optimizer, gradient, group):
            return reason
    return None


def _check_gradient(parameter: Tensor, gradient: Tensor, name: str) -> None:
    """Raise `GradientError` if a gradient has another shape than its parameter, or no numbers."""
    if (local(gradient) is gradient) != (local(parameter) is parameter):
        raise GradientError(
            f"gradient of {name!r}: got {type(gradient).__name__} for a parameter that is a "
            f"{type(parameter).__name__}; both or neither have to be DTensors"
        )
    if gradient.shape != parameter.shape:
        raise GradientError(
            f"gradient of {name!r}: got shape {tuple(gradient.shape)}, expected that of its "
            f"parameter, {tuple(parameter.shape)}"
        )
    if element_type(gradient) is None or gradient.is_complex() != parameter.is_complex():
        raise GradientError(
            f"gradient of {name!r}: got {gradient.dtype} for a parameter of {parameter.dtype}; "
            "convert it to the parameter's dtype"
        )


def _reason_of_dense(optimizer: Bound, gradient: Tensor, group: Mapping[str, Any]) -> Reason | None:
    """Why torch's own step has to be taken for a gradient that is not COO, or None."""
    if optimizer._recipe.count_is_int and group.get("sparse") is None:
        return Reason("dense gradients, which SparseAdam refuses", True)
    if gradient.layout is not torch.strided:
        return Reason(f"gradients with the layout {gradient.layout}")
    return None


def _reason_of_sparse(
    optimizer: Bound, gradient: Tensor, group: Mapping[str, Any]
) -> Reason | None:
    """Why torch's own step has to be taken for a COO gradient, or None."""
    recipe, sparse = optimizer._recipe, group.get("sparse")
    if sparse == "raise" or (sparse is None and not recipe.lazy):
        if recipe.lazy or optimizer._torch_class is None:
            raise GradientError("a gradient is sparse: sparse='lazy' or sparse='exact' takes it")
        return Reason("sparse gradients; sparse='lazy' or sparse='exact' takes them", True)
    if sparse is None and group.get("weight_decay", 0) and not recipe.count_is_int:
        return Reason("sparse gradients with weight_decay", True)
    if sparse is None and group.get("momentum", 0):
        return Reason("sparse gradients with momentum; sparse='lazy' or 'exact' says which")
    if sparse is None and gradient.is_complex() and recipe is RECIPES["Adagrad"]:
        return Reason("sparse gradients of complex numbers, whose squares torch takes as they are")
    if gradient.sparse_dim() == 0:
        return Reason("sparse gradients without sparse dimensions")
    return None
