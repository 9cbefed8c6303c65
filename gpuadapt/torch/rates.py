"""The learning rate of each element, from the states that the last step has left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gpuadapt.kernels.formats import PLAIN, Operand

from .. import launch
from ..errors import ParameterError
from .base import Bound
from .counting import coefficients_of
from .places import array_view, entered, place_of
from .recipes import MU_PRODUCT
from .slots import NOTHING, names_of, slot_of
from .storage import width_of
from .tensors import DTYPES, local, real_view


def effective_lr(optimizer: Bound, parameter: Tensor) -> Tensor:
    """Return the learning rate of each element of a parameter; see `Fused.effective_lr`."""
    index, number, name = _found(optimizer.param_groups, parameter)
    entry, group = optimizer.state.get(parameter) or {}, optimizer.param_groups[number]
    recipe = optimizer._recipe
    with torch.no_grad():
        slot = slot_of(recipe, group, index, number, parameter, None, entry, name, NOTHING)
        own = slot.parameter
        rule = recipe.rule(group).rate
        counted = slot.scalars.get("step", entry.get("step", 0))
        extra = {}
        if MU_PRODUCT in slot.scalars:
            extra[MU_PRODUCT] = float(slot.scalars[MU_PRODUCT])
        steps = max(int(counted), 1 if slot.is_new else 2 if not recipe.counts else 1)
        numbers = coefficients_of(rule, group, extra, steps, slot.storage.formats.compute)
        compute = DTYPES[slot.storage.formats.compute]
        result = torch.empty_like(
            real_view(own), dtype=compute, memory_format=torch.preserve_format
        )
        tensors = [_spread(slot.tensors[each], own) for each in _state_names(slot)]
        plain = PLAIN[slot.storage.formats.compute]
        formats = slot.storage.formats._replace(parameter=plain, gradient=plain)
        place = place_of(own)
        with entered(place):
            arrays = [array_view(real_view(each)) for each in (result, *tensors)]
            operand = Operand(arrays, slot.random_key, width_of(own))
            launch.update_once(rule, place.type, formats, operand, arrays[0], numbers)
    return result[..., 0] if own.is_complex() else result


def _found(groups: Sequence[Mapping[str, Any]], parameter: Tensor) -> tuple[int, int, str]:
    """The place of a parameter, its group and its name."""
    names, index = names_of(groups), 0
    for number, group in enumerate(groups):
        for one in group["params"]:
            if one is parameter:
                return index, number, names[index]
            index += 1
    raise ParameterError("effective_lr: the tensor is not among the optimizer's parameters")


def _state_names(slot: Any) -> list[str]:
    """The names of a parameter's states, without its companions."""
    return [name for kept in slot.storage.kept if kept.letter for name in kept.names]


def _spread(state: Tensor, parameter: Tensor) -> Tensor:
    """A state with one number for each row, repeated to the parameter's shape."""
    rows = state.ndim == 1 and parameter.ndim > 1 and state.shape == parameter.shape[:1]
    if not rows:
        return local(state)
    wide = state.reshape(state.shape + (1,) * (parameter.ndim - 1))
    return wide.expand(parameter.shape).contiguous()
