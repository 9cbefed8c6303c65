"""The binding of an optimizer: addresses of its parameters and states, and their updates.

``optimizer.state`` is what holds the states. A binding is made of what is there, and each step
asks whether it still is; if not, another binding is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.formats import PLAIN, Formats, Operand
from gpuadapt.kernels.language.rule import Rule

from .. import launch
from ..launch import Threads
from .options import of_group, row_norm_limit
from .places import array_view, entered, flat_view, place_of
from .recipes import MU_PRODUCT, Recipe
from .rows import RowTable
from .shards import Cut, Spot, cut_of
from .slots import Slot, names_of, slot_of
from .storage import width_of
from .tensors import is_dense, local, real_view

POINTER, STRIDE = Tensor.data_ptr, Tensor.stride
DTYPE = Tensor.dtype.__get__  # type: ignore[attr-defined]

RULE_SETTINGS = ("maximize", "amsgrad", "centered", "nesterov", "decoupled_weight_decay", "decay")
"""The settings of a group that choose its rule, beside weight decay and momentum."""

STORED_SETTINGS = ("rounding", "master", "rowwise", "sparse", "max_row_norm", "seed")
"""The settings of a group that, beside state_dtype, choose how its parameters are stored."""

SETTINGS = (*RULE_SETTINGS, *STORED_SETTINGS, "fused", "capturable", "threads")

GroupKey = tuple[Any, ...]


def key_of(group: Mapping[str, Any]) -> GroupKey:
    """Return what an update of a group depends on, beside its numbers."""
    momentum, formats = group.get("momentum", 0), group.get("state_dtype")
    return (
        tuple(formats.items()) if isinstance(formats, Mapping) else formats,
        bool(group.get("weight_decay", 0)),
        momentum != 0,
        *map(group.get, SETTINGS),
        len(group["params"]),
    )


@dataclass
class Bucket:
    """Parameters that one launch updates."""

    update: Any
    spot: Spot
    indices: HostArray
    """int64, shape (n,): their places among all parameters."""


@dataclass
class Round:
    """Updates that may run in any order: no two of them are of the same memory."""

    many: list[Bucket] = field(default_factory=list)
    strided: dict[int, Any] = field(default_factory=dict)
    """By index: the updates of parameters with gaps between their elements."""
    rows: dict[int, RowTable] = field(default_factory=dict)
    """By index: parameters that are updated by rows."""
    members: list[int] = field(default_factory=list)
    """The places of its parameters."""


@dataclass
class Binding:
    """What steps with the same tensors have in common."""

    params: list[Tensor]
    """The parameters of all groups; one may occur several times."""
    groups: list[int]
    keys: list[GroupKey]
    step_options: frozenset[str]
    slots: list[Slot | None]
    """For each parameter, None as long as it has had no gradient."""
    rounds: list[Round]
    pointers: list[int]
    gradient_dtypes: list[torch.dtype]
    gradient_strides: list[tuple[int, ...]]
    sizes: list[int]
    layouts: list[tuple[torch.Size, tuple[int, ...]]]
    """Shape and strides of each parameter, which others may change without moving it."""
    by_rows: dict[int, int]
    """By place: sparse dimensions of the last gradient, for those that were sparse."""
    distributed: bool
    """Whether some parameters are DTensors."""
    cuts: list[Cut]
    """Between which processes parameters are divided, in the same order on each of them."""
    all_dense: bool
    """Whether all parameters have had gradients, which are real, plain tensors and not sparse."""
    everywhere: HostArray
    """bool, shape (parameters,): True."""
    group_numbers: HostArray
    """int64: the group of each parameter."""
    kinds: list[tuple[list[Slot], HostArray]]
    """Parameters of one group and rule, and their places: they have the same coefficients."""
    scalars: dict[str, tuple[HostArray, HostArray]]
    """By name: addresses of numbers, and whether they are float64."""
    offsets: tuple[tuple[int, ...], HostArray] = ((), np.empty(0, np.int64))
    """Where the coefficients of each of `kinds` and of each parameter begin, in the last step."""
    state_keys: list[int] = field(default_factory=list)
    """The ``id`` of each key of ``optimizer.state``."""
    state_names: list[tuple[tuple[str, ...], list[int] | None]] = field(default_factory=list)
    """Names of states, and the places in ``optimizer.state`` of those that have them.

    None for all places.
    """
    state_pointers: list[int] = field(default_factory=list)

    def holds(self, params: Sequence[Tensor], keys: Sequence[GroupKey], options: Any) -> bool:
        """Return whether the parameters and settings are those that this binding is made for."""
        return (
            len(params) == len(self.params)
            and all(map(is_, params, self.params))
            and keys == self.keys
            and options == self.step_options
            and list(map(POINTER, map(local, params) if self.distributed else params))
            == self.pointers
        )

    def remember(self, state: Mapping[Tensor, Any]) -> None:
        """Remember the tensors of the slots, which ``optimizer.state`` has to have."""
        keys = list(map(id, state))
        places = {key: place for place, key in enumerate(keys)}
        sets: dict[tuple[str, ...], set[int]] = {}
        pointers: dict[tuple[str, int], int] = {}
        for slot in self.slots:
            if slot is not None and (tensors := {**slot.scalars, **slot.tensors}):
                place = places[id(slot.owner)]
                sets.setdefault(tuple(tensors), set()).add(place)
                for name, tensor in tensors.items():
                    pointers.setdefault((name, place), tensor.data_ptr())
        state_names = [
            (names, None if len(members) == len(state) else sorted(members))
            for names, members in sets.items()
        ]
        state_pointers = [
            pointers[name, place]
            for names, members in sets.items()
            for name in names
            for place in sorted(members)
        ]
        vars(self).update(state_keys=keys, state_names=state_names, state_pointers=state_pointers)

    def holds_states(self, state: Mapping[Tensor, Any]) -> bool:
        """Return whether ``optimizer.state`` has the tensors that this binding is made for."""
        # By identity: a tensor as a key would be hashed, which takes longer than the rest.
        if list(map(id, state)) != self.state_keys:
            return False
        found: list[Tensor] = []
        there: list[Any] = list(state.values())
        try:
            for names, places in self.state_names:
                entries = there if places is None else [there[k] for k in places]
                for name in names:
                    found += [entry[name] for entry in entries]
            if self.distributed:
                found = list(map(local, found))
            return list(map(POINTER, found)) == self.state_pointers
        except (KeyError, TypeError, AttributeError):
            return False


def bind(
    recipe: Recipe,
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Tensor, Any],
    params: list[Tensor],
    grads: Sequence[Tensor | None],
    step_options: frozenset[str],
) -> Binding:
    """Make a binding for the parameters and their states as they are; changes nothing.

    Parameters
    ----------
    recipe : Recipe
    groups : sequence of dict
        ``optimizer.param_groups``.
    state : mapping
        ``optimizer.state``.
    params : list of Tensor
        The parameters of all groups.
    grads : sequence of Tensor or None
        Their gradients.
    step_options : frozenset of str
        Options that the step composes around all rules.

    Raises
    ------
    ParameterError, HyperparameterError, StateError
    """
    numbers = [number for number, group in enumerate(groups) for _ in group["params"]]
    slots = _slots(recipe, groups, state, numbers, params, grads, step_options)
    own = [local(parameter) for parameter in params]
    scalars: dict[str, tuple[HostArray, HostArray]] = {}
    for name in ("step", MU_PRODUCT):
        there = [None if slot is None else slot.scalars.get(name) for slot in slots]
        if any(one is not None for one in there):
            addresses = [0 if one is None else one.data_ptr() for one in there]
            wide = [one is not None and one.dtype == torch.float64 for one in there]
            scalars[name] = np.array(addresses, np.int64), np.array(wide, bool)
    distributed = any(one is not other for one, other in zip(own, params, strict=True))
    sparse = {k: g for k, g in enumerate(grads) if g is not None and g.is_sparse}
    by_rows = {k: g.sparse_dim() for k, g in sparse.items()}
    dense = [own[k] if g is None or g.is_sparse else local(g) for k, g in enumerate(grads)]
    return Binding(
        params=params,
        groups=numbers,
        keys=[key_of(group) for group in groups],
        step_options=step_options,
        slots=slots,
        rounds=_rounds(slots, groups, by_rows),
        pointers=list(map(POINTER, own)),
        gradient_dtypes=list(map(DTYPE, dense)),
        gradient_strides=[
            one.stride() if is_dense(one) else other.stride()
            for one, other in zip(own, dense, strict=True)
        ],
        sizes=[one.numel() for one in own],
        layouts=[(one.shape, one.stride()) for one in own],
        by_rows=by_rows,
        distributed=distributed,
        cuts=list(dict.fromkeys(filter(None, map(cut_of, params if distributed else ())))),
        all_dense=not (
            by_rows
            or distributed
            or any(slot is None or one.is_complex() for slot, one in zip(slots, own, strict=True))
        ),
        everywhere=np.ones(len(params), bool),
        group_numbers=np.array(numbers, np.int64),
        kinds=_kinds(slots),
        scalars=scalars,
    )


def _slots(
    recipe: Recipe,
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Tensor, Any],
    numbers: Sequence[int],
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    step_options: frozenset[str],
) -> list[Slot | None]:
    """A slot for each parameter that has a gradient or a state; ``numbers`` are their groups."""
    slots: list[Slot | None] = []
    names = names_of(groups)
    made: dict[int, Slot] = {}
    for index, (number, parameter, gradient) in enumerate(zip(numbers, params, grads, strict=True)):
        entry = state.get(parameter) or {}
        if gradient is None and not entry:
            slots.append(None)
            continue
        group = groups[number]
        before = made.get(id(parameter))
        # A parameter that occurs twice has one state, and is as new in both places. Torch's SGD
        # gives each place a new buffer, of which the last one stays.
        there = entry
        if before is not None and (recipe.counts or not before.is_new):
            there = {**entry, **before.scalars, **before.tensors}
        slot = slot_of(
            recipe, group, index, number, parameter, gradient, there, names[index], step_options
        )
        if before is not None:
            slot.is_new = before.is_new
        made[id(parameter)] = slot
        slots.append(slot)
    return slots


def _rounds(
    slots: Sequence[Slot | None], groups: Sequence[Mapping[str, Any]], by_rows: Mapping[int, int]
) -> list[Round]:
    """The launches of all parameters."""
    rounds: list[Round] = []
    threads = groups[0].get("threads")
    buckets: list[dict[tuple[Rule, Formats, Spot], list[Slot]]] = []
    for slot, number in _placed(slots):
        while len(rounds) <= number:
            rounds.append(Round())
            buckets.append({})
        one = rounds[number]
        one.members.append(slot.index)
        if not slot.parameter.numel():
            continue
        settings = of_group(groups[slot.group])
        formats = slot.storage.formats._replace(gradient=PLAIN[slot.gradient])
        limit = row_norm_limit(settings)
        device, exact = place_of(slot.parameter), settings["sparse"] == "exact"
        with entered(device):
            if slot.index in by_rows or limit < np.inf or settings["rowwise"] or exact:
                dims = by_rows.get(slot.index, 1)
                one.rows[slot.index] = RowTable(slot, formats, limit, exact, threads, dims)
            elif not is_dense(slot.parameter):
                arrays = [array_view(real_view(tensor)) for tensor in slot.operand_tensors]
                operand = Operand(arrays, slot.random_key, width_of(slot.parameter))
                update = launch.bind_strided(
                    slot.storage.rule, device.type, formats, operand, threads
                )
                one.strided[slot.index] = update
            else:
                key = slot.storage.rule, formats, Spot(device, slot.cut)
                buckets[number].setdefault(key, []).append(slot)
    for one, found in zip(rounds, buckets, strict=True):
        one.many = [_bucket(*key, members, threads) for key, members in found.items()]
    return rounds


def _bucket(
    rule: Rule, formats: Formats, spot: Spot, members: Sequence[Slot], threads: Threads
) -> Bucket:
    """The launch of parameters of equal rules and formats."""
    with entered(spot.device):
        operands = [
            Operand(
                [flat_view(tensor) for tensor in slot.operand_tensors],
                slot.random_key,
                width_of(slot.parameter) if formats.block else 0,
            )
            for slot in members
        ]
        update = launch.bind_multi_tensor(rule, spot.device.type, formats, operands, threads)
    return Bucket(update, spot, np.array([slot.index for slot in members], np.int64))


def _kinds(slots: Sequence[Slot | None]) -> list[tuple[list[Slot], HostArray]]:
    """The parameters that have the same coefficients if they have had as many updates."""
    found: dict[Any, list[Slot]] = {}
    for slot in slots:
        if slot is not None:
            found.setdefault((slot.group, slot.storage.rule), []).append(slot)
    return [(m, np.array([slot.index for slot in m], np.int64)) for m in found.values()]


def _placed(slots: Sequence[Slot | None]) -> list[tuple[Slot, int]]:
    """Each parameter with the number of its round: those that share memory are in several."""
    there = [slot for slot in slots if slot is not None]
    ends: list[list[tuple[int, int]]] = []
    spans = [_span(slot.parameter) for slot in there]
    order = sorted(range(len(there)), key=lambda k: spans[k])
    shared = any(spans[b][0] < spans[a][1] for a, b in pairwise(order))
    if not shared:
        return [(slot, 0) for slot in there]
    placed = []
    for slot, (low, high) in zip(there, spans, strict=True):
        # After every earlier parameter with which it shares memory.
        number = 1 + max(
            (n for n, taken in enumerate(ends) if any(a < high and low < b for a, b in taken)),
            default=-1,
        )
        while len(ends) <= number:
            ends.append([])
        ends[number].append((low, high))
        placed.append((slot, number))
    return placed


def _span(tensor: Tensor) -> tuple[int, int]:
    """The first address of a tensor and the one behind it."""
    start = tensor.data_ptr()
    if not tensor.numel():
        return start, start
    reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (reach + 1) * tensor.element_size()
