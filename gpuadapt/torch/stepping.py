"""One step of an optimizer on tensors: look, prepare, then write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.commit import Call, commit

from ..launch import in_default_modes
from ..measure import Launch
from ..step_options import StepResult
from ..turn import alone
from .base import Bound
from .binding import POINTER, STRIDE, Binding, Round, bind, key_of
from .counting import Counts, Scalars, count_calls, counts_after
from .options import WHOLE, of_all
from .places import array_view, entered, place_of
from .refusal import Reason, check_parameters, reason_of_gradients, reason_of_groups
from .shards import Spot, like_parameter, own_gradient
from .slots import other_formats
from .tensors import (
    is_dense,
    local,
    real_view,
    resolved,
    same_order,
)

GRADIENT = Tensor.grad.__get__  # type: ignore[union-attr]
DTYPE = Tensor.dtype.__get__  # type: ignore[attr-defined]
NEGATIVE, SIZE = Tensor.is_neg, Tensor.numel

UNMEASURED = StepResult(None, 1.0, False)

WHOLE_SETTINGS = frozenset(WHOLE)


class Gradients(NamedTuple):
    """The gradients of a step as kernels take them."""

    tensors: list[Tensor | None]
    """With the dtype and the strides that the binding expects, for those that are dense."""
    addresses: HostArray
    """int64, shape (parameters,): 0 where there is none, or no element."""
    present: HostArray
    """bool, shape (parameters,): True for those with a gradient."""


class StepScale(NamedTuple):
    """What is done to all gradients before the rule."""

    options: frozenset[str]
    """Names of options of `gpuadapt.kernels.options`."""
    values: dict[str, float]
    """Their hyperparameters; "clip_factor" is known when the gradients are measured."""
    max_norm: float
    max_value: float
    skip: bool

    @property
    def measures(self) -> bool:
        """Whether the gradients have to be measured before the update."""
        return self.skip or "clip_norm" in self.options


PLAIN_SCALE = StepScale(frozenset(), {}, np.inf, np.inf, False)


def scale_of(optimizer: Bound) -> StepScale:
    """Return what the step does to all gradients, by the settings and a GradScaler."""
    groups = optimizer.param_groups
    given = [group for group in groups if not WHOLE_SETTINGS.isdisjoint(group)]
    scale = getattr(optimizer, "grad_scale", None)
    if not given and scale is None:
        return PLAIN_SCALE
    whole = of_all(groups)
    values = {"clip_factor": 1.0}
    if scale is not None:
        values["grad_scale"] = float(scale)
    if whole["clip_value"] is not None:
        values["clip_value"] = float(whole["clip_value"])
    max_norm = np.inf if whole["max_norm"] is None else float(whole["max_norm"])
    chosen = {
        "unscale": scale is not None,
        "clip_norm": max_norm < np.inf,
        "clip_value": whole["clip_value"] is not None,
    }
    options = frozenset(name for name, on in chosen.items() if on)
    largest = values.get("clip_value", np.inf)
    return StepScale(options, values, max_norm, largest, bool(whole["skip_nonfinite"]))


def found_inf(optimizer: Bound) -> bool:
    """Return whether a GradScaler has found gradients that are not finite."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found.item() != 0)


@alone
@in_default_modes
def step(optimizer: Bound) -> Reason | None:
    """Take one step with the gradients that the parameters have.

    Returns
    -------
    Reason or None
        Why torch's own step has to be taken instead; nothing has changed then.

    Raises
    ------
    ParameterError, GradientError, HyperparameterError, StateError, RowIndexError
        Nothing has changed then.
    """
    groups = optimizer.param_groups
    params = [parameter for group in groups for parameter in group["params"]]
    keys = [key_of(group) for group in groups]
    scale = scale_of(optimizer)
    binding = optimizer._binding
    if binding is not None and not binding.holds(params, keys, scale.options):
        binding = None
    if binding is None:
        if reason := reason_of_groups(optimizer, params):
            return reason
        check_parameters(optimizer, params)
    grads: list[Tensor | None] = list(map(GRADIENT, params))
    known = _as_expected(binding, grads) if binding is not None else None
    if known is None or not binding.holds_states(optimizer.state):  # type: ignore[union-attr]
        if reason := reason_of_gradients(optimizer, params, grads):
            return reason
        optimizer.flush()
        with torch.inference_mode(False), torch.no_grad():
            binding = bind(optimizer._recipe, groups, optimizer.state, params, grads, scale.options)
        known = _as_expected(binding, grads)
        assert known is not None, "a binding takes the gradients that it is made for"
    assert binding is not None
    _run(optimizer, binding, known, scale, grads)
    return None


def _as_expected(binding: Binding, grads: list[Tensor | None]) -> Gradients | None:
    """The gradients of a step, if they are of the kinds that a binding is made for."""
    if not binding.all_dense or any(map(is_, grads, repeat(None))):
        return _one_by_one(binding, grads)
    try:
        if (
            list(map(DTYPE, grads)) == binding.gradient_dtypes
            and list(map(STRIDE, grads)) == binding.gradient_strides  # type: ignore[arg-type]
            and list(map(SIZE, grads)) == binding.sizes  # type: ignore[arg-type]
            and not any(map(NEGATIVE, grads))  # type: ignore[arg-type]
        ):
            addresses = np.array(list(map(POINTER, grads)), np.int64)  # type: ignore[arg-type]
            return Gradients(grads, addresses, binding.everywhere)
    except RuntimeError:  # sparse tensors have no strides
        pass
    return _one_by_one(binding, grads)


def _one_by_one(binding: Binding, grads: list[Tensor | None]) -> Gradients | None:
    """As `_as_expected`, with a copy of those gradients that lie in another order."""
    tensors: list[Tensor | None] = []
    for k, given in enumerate(grads):
        if given is None:
            tensors.append(None)
            continue
        gradient, slot = own_gradient(given, binding.params[k]), binding.slots[k]
        dims = gradient.sparse_dim() if gradient.is_sparse else None
        if slot is None or dims != binding.by_rows.get(k):
            return None
        if gradient.dtype != binding.gradient_dtypes[k]:
            return None
        if (slot.parameter.shape, slot.parameter.stride()) != binding.layouts[k]:
            return None
        if not gradient.is_sparse:
            gradient = _laid_out(resolved(gradient), slot.parameter)
        tensors.append(gradient)
    addresses = [0 if one is None or one.is_sparse else one.data_ptr() for one in tensors]
    present = [one is not None for one in tensors]
    return Gradients(tensors, np.array(addresses, np.int64), np.array(present, bool))


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient with its elements in the order in which the parameter has them."""
    if not is_dense(parameter) or same_order(gradient, parameter):
        return gradient
    new = torch.empty_like(parameter, dtype=gradient.dtype, memory_format=torch.preserve_format)
    return new.copy_(gradient.detach())


class Prepared(NamedTuple):
    """One round of a step, before anything is written."""

    launches: dict[Spot, list[Launch]]
    """(update, gradient, offset of its coefficients)."""
    scalars: Scalars
    counts: Counts
    used: HostArray
    """bool, shape (parameters,): True for those that are updated."""


def _run(
    optimizer: Bound,
    binding: Binding,
    gradients: Gradients,
    scale: StepScale,
    grads: Sequence[Tensor | None],
) -> None:
    """Measure, update and count."""
    rounds, places = binding.rounds, optimizer._places
    prepared = [_prepared(optimizer, binding, one, gradients, scale) for one in rounds]
    result: Any = UNMEASURED
    limits = scale.max_norm, scale.max_value
    on_gpu = scale.measures and not scale.skip and _single_gpu(prepared)
    if scale.measures and not on_gpu:
        together = _together([one.launches for one in prepared])
        numbers = np.array(prepared[0].scalars.numbers)
        result = places.measured(together, binding.cuts, numbers, limits, scale.skip)
    if result.skipped:
        optimizer._last = result
        return
    new = binding is not optimizer._binding
    entries = {} if not new and not optimizer._recipe.count_is_int else _entries(optimizer, binding)
    calls = _placements(optimizer, binding, entries) if new else []
    touched = binding.params
    if gradients.present is not binding.everywhere:
        touched = [p for p, g in zip(touched, grads, strict=True) if g is not None]
    torch.autograd.graph.increment_version(touched)
    for number, one in enumerate(prepared):
        if number:  # a parameter of an earlier round may be here again, with another count
            one = _prepared(optimizer, binding, rounds[number], gradients, scale)
        numbers, clip = np.array(one.scalars.numbers), one.scalars.clip_places
        if on_gpu:
            ((spot, launches),) = one.launches.items()
            given = spot.device, launches, numbers, limits, clip
            result, updates = places.clipped_calls(*given)
        else:
            if clip:
                numbers[clip] = result.clip_factor
            updates = places.calls(one.launches, numbers)
        calls += updates
        calls += count_calls(optimizer._recipe, binding, entries, one.used, one.counts)
        for index, table in rounds[number].rows.items():
            if one.used[index]:
                calls.append((setattr, table, "updates", int(one.counts.steps[index])))
        calls.append((vars(optimizer).update, {"_binding": binding, "_last": result}))
        commit(calls)
        calls = []
    if new:
        binding.remember(optimizer.state)


def _single_gpu(rounds: Sequence[Prepared]) -> bool:
    """Whether a step has one round, on one GPU, which can then measure and clip by itself."""
    spots = [spot for one in rounds for spot in one.launches]
    return len(rounds) == len(spots) == 1 and spots[0].device.type == "cuda" and not spots[0].cut


def _together(rounds: Sequence[dict[Spot, list[Launch]]]) -> dict[Spot, list[Launch]]:
    """The launches of all rounds."""
    found: dict[Spot, list[Launch]] = {}
    for launches in rounds:
        for spot, own in launches.items():
            found.setdefault(spot, []).extend(own)
    return found


def _prepared(
    optimizer: Bound, binding: Binding, one: Round, gradients: Gradients, scale: StepScale
) -> Prepared:
    """The launches of a round and their scalars; row indices are checked, nothing is written."""
    used, groups = gradients.present, optimizer.param_groups
    if len(binding.rounds) > 1:
        used = used & np.isin(np.arange(len(used)), one.members)
    counts = counts_after(optimizer._recipe, binding, optimizer.state, groups, used)
    scalars = Scalars(groups, counts, scale.values)
    launches: dict[Spot, list[Launch]] = {}
    for index in (*one.rows, *one.strided):
        slot, gradient = binding.slots[index], gradients.tensors[index]
        if gradient is None or slot is None:
            continue
        spot = Spot(place_of(slot.parameter), slot.cut)
        with entered(spot.device):
            if table := one.rows.get(index):
                table.begin(int(counts.steps[index]) - 1)
                offset = scalars.offset(slot, table.history)
                launched = table.update, table.prepared(gradient), offset
            else:
                view = array_view(real_view(gradient))
                launched = one.strided[index], view, scalars.offset(slot)
        launches.setdefault(spot, []).append(launched)
    if one.many:
        offsets, addresses = scalars.offsets(binding, used), gradients.addresses
        for many in one.many:
            own, starts = addresses, offsets
            if len(many.indices) < len(used):
                own, starts = addresses[many.indices], offsets[many.indices]
            if used is binding.everywhere or own.any():
                launches.setdefault(many.spot, []).append((many.update, own, starts))
    return Prepared(launches, scalars, counts, used)


def _entries(optimizer: Bound, binding: Binding) -> dict[int, dict[str, Any]]:
    """The states of parameters that have slots, by place; new ones are not in the state yet."""
    made: dict[int, dict[str, Any]] = {}
    entries = {}
    for slot in binding.slots:
        if slot is not None:
            parameter = binding.params[slot.index]
            entry = optimizer.state.get(parameter)
            if entry is None:
                entry = made.setdefault(id(parameter), {})
            entries[slot.index] = entry
    return entries


def _placements(
    optimizer: Bound, binding: Binding, entries: Mapping[int, dict[str, Any]]
) -> list[Call]:
    """The calls that put new states into ``optimizer.state``."""
    calls: list[Call] = []
    for slot in binding.slots:
        if slot is None:
            continue
        parameter, entry = binding.params[slot.index], entries[slot.index]
        tensors = {**slot.scalars, **slot.tensors}
        new = {}
        for name, tensor in tensors.items():
            there = entry.get(name)
            if there is None or local(there) is not tensor:
                new[name] = like_parameter(tensor, parameter)
        if new:
            calls.append((entry.update, new))
        calls += [(entry.pop, name, None) for name in other_formats(entry, slot)]
        if tensors:
            calls.append((optimizer.state.__setitem__, parameter, entry))
    return calls
