"""When torch's own step has to be taken instead, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import GradientError, ParameterError
from .base import Bound
from .options import DEFAULTS, check, of_group
from .places import place_of
from .tensors import element_type, local


class FallbackWarning(UserWarning):
    """An optimizer of `gpuadapt.torch` takes torch's own steps; the text says why."""


def own_settings(group: Mapping[str, Any]) -> list[str]:
    """Return the keywords of a group that torch's own step does not know."""
    return [name for name, default in DEFAULTS.items() if group.get(name, default) != default]


def reason_of_groups(optimizer: Bound, params: Sequence[Tensor]) -> str | None:
    """Return why torch's own step has to be taken for these parameters and settings, or None."""
    for group in optimizer.param_groups:
        if group.get("differentiable"):
            return "differentiable=True: gradients flow through torch's own operations alone"
        if group.get("capturable"):
            return "capturable=True: its step is captured in a CUDA graph by torch"
        if group.get("foreach") and isinstance(group.get("lr"), Tensor):
            return "foreach=True with a tensor as lr, which torch refuses"
    for parameter in params:
        kind = type(parameter)
        if kind not in (Tensor, torch.nn.Parameter) and local(parameter) is parameter:
            return f"parameters of type {kind.__module__}.{kind.__qualname__}"
        if place_of(parameter).type not in ("cpu", "cuda"):
            return f"parameters on the device {parameter.device.type!r}"
        if element_type(parameter) is None:
            return f"parameters of {parameter.dtype}"
        if place_of(parameter).type == "cuda" and (reason := _without_cupy()):
            return reason
    return None


def _without_cupy() -> str | None:
    """Why kernels for a GPU cannot run, or None."""
    from ..arrays import check_device
    from ..errors import BackendError

    try:
        check_device()
    except BackendError as error:
        return f"parameters on a GPU without CuPy: {error}"
    return None


def check_parameters(groups: Sequence[Mapping[str, Any]], params: Sequence[Tensor]) -> None:
    """Check settings and parameters before a binding is made.

    Raises
    ------
    HyperparameterError
    RuntimeError
        As torch does: an inference tensor, or elements that share memory.
    """
    for group in groups:
        check(of_group(group))
    for parameter in params:
        if parameter.is_inference() and parameter.grad is not None:
            raise ParameterError(
                "Inplace update to inference tensor outside InferenceMode is not allowed: a "
                "parameter was made in inference mode; clone it outside of it"
            )


def reason_of_gradients(
    optimizer: Bound, params: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> str | None:
    """Return why torch's own step has to be taken for these gradients, or None.

    Raises
    ------
    GradientError, ParameterError
        Nobody can take a step with them.
    """
    recipe = optimizer._recipe
    where = [group for group in optimizer.param_groups for _ in group["params"]]
    for parameter, gradient, group in zip(params, grads, where, strict=True):
        if gradient is None:
            continue
        if _overlaps_itself(local(parameter)):
            raise ParameterError(
                "unsupported operation: more than one element of the written-to tensor refers to "
                "a single memory location. Please clone() the tensor before performing the "
                "operation."
            )
        sparse = group.get("sparse")
        if not gradient.is_sparse:
            if recipe.count_is_int and sparse is None:
                return "dense gradients, which SparseAdam refuses"
            if gradient.layout is not torch.strided:
                return f"gradients with the layout {gradient.layout}"
            if gradient.numel() != local(parameter).numel() and local(parameter) is parameter:
                raise GradientError(
                    f"a gradient has {gradient.numel()} elements, its parameter {parameter.numel()}"
                )
            continue
        if sparse == "raise" or (sparse is None and not recipe.lazy):
            return "sparse gradients, which torch refuses; sparse='lazy' or 'exact' takes them"
        if sparse is None and group.get("weight_decay", 0) and not recipe.count_is_int:
            return "sparse gradients with weight_decay"
        if sparse is None and group.get("momentum", 0):
            return "sparse gradients with momentum; sparse='lazy' or 'exact' says which"
        if gradient.sparse_dim() != 1:
            return f"sparse gradients with {gradient.sparse_dim()} sparse dimensions"
    return None


def _overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements may share memory, as those of an expanded tensor do."""
    if tensor.is_contiguous():
        return False
    extent = 1
    steps = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, n in sorted((stride, n) for stride, n in steps if n > 1):
        if stride < extent:
            return True
        extent += (n - 1) * stride
    return False
