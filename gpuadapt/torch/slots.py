"""One parameter of an optimizer for torch: its states, and the numbers beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpuadapt.kernels.formats import parameter_key
from gpuadapt.kernels.options import compose

from ..errors import StateError
from .options import of_group
from .recipes import MU_PRODUCT, Recipe, options_of
from .shards import Cut, check_parts, cut_of, part_name
from .storage import COMPANIONS, Storage, completed, storage_of
from .tensors import element_type, local

NOTHING: frozenset[str] = frozenset()
"""No options of a step."""


@dataclass
class Slot:
    """A parameter that has had a gradient."""

    index: int
    """Its place among the parameters of all groups."""
    group: int
    owner: Tensor
    """The parameter of ``param_groups``."""
    parameter: Tensor
    """The part of it that this process has."""
    storage: Storage
    tensors: dict[str, Tensor]
    """Its states as kernels update them, by torch's names."""
    scalars: dict[str, Tensor]
    """Its numbers, such as "step"."""
    is_new: bool
    """Whether none of its states was there."""
    random_key: int
    gradient: str
    """The element type of its gradient."""
    cut: Cut | None
    """Between which processes it is divided."""

    @property
    def operand_tensors(self) -> list[Tensor]:
        """The tensors of an `Operand`."""
        return [self.parameter, *(self.tensors[name] for name in self.storage.names)]


def names_of(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of all parameters; those without names are numbered."""
    names: list[str] = []
    for group in groups:
        given = group.get("param_names")
        start = len(names)
        names += given or [str(start + k) for k in range(len(group["params"]))]
    return names


def slot_of(
    recipe: Recipe,
    group: Mapping[str, Any],
    index: int,
    number: int,
    parameter: Tensor,
    gradient: Tensor | None,
    entry: Mapping[str, Any],
    name: str,
    step_options: frozenset[str],
) -> Slot:
    """A parameter with its states as they are, or new ones."""
    settings = of_group(group)
    own = local(parameter)
    entry = {
        key: local(value) if isinstance(value, Tensor) else value for key, value in entry.items()
    }
    rule = compose(recipe.rule(group), options_of(group) | step_options)
    storage = storage_of(rule, recipe, settings, own, name)
    check_parts(parameter, storage, settings, name)
    tensors = completed(entry, storage, own, name)
    scalars = {}
    if counts(recipe, storage):
        scalars["step"] = _scalar(entry, "step", 0.0, own, group)
    if MU_PRODUCT in rule.hyperparameters:
        scalars[MU_PRODUCT] = _scalar(entry, MU_PRODUCT, 1.0, own, group)
    key = 0
    if storage.formats.random:
        key = parameter_key(settings["seed"], part_name(name, parameter))
    kind = own if gradient is None else gradient
    return Slot(
        index, number, parameter, own, storage, tensors, scalars,
        not any(name in entry for kept in storage.kept if kept.letter for name in kept.names), key,
        element_type(kind) or str(kind.dtype), cut_of(parameter),
    )  # fmt: skip


def counts(recipe: Recipe, storage: Storage) -> bool:
    """Return whether a parameter has a tensor "step": by torch, or for its random bits."""
    return (recipe.counts and not recipe.count_is_int) or (
        storage.formats.random and not recipe.count_is_int
    )


def _scalar(
    entry: Mapping[str, Any], name: str, start: float, parameter: Tensor, group: Mapping[str, Any]
) -> Tensor:
    """A number of a parameter as a tensor of the host, made if it is not there."""
    given = entry.get(name)
    double = torch.get_default_dtype() == torch.float64 and not group.get("fused")
    dtype = torch.float64 if double else torch.float32
    if given is None:
        return torch.tensor(start, dtype=dtype)
    if not isinstance(given, Tensor):
        return torch.tensor(float(given), dtype=dtype)
    if given.numel() != 1:
        raise StateError(f"state {name!r}: got shape {tuple(given.shape)}, expected one number")
    if given.device.type != "cpu" or given.dtype not in (torch.float32, torch.float64):
        return given.detach().to("cpu", dtype)
    return given


def state_of(
    recipe: Recipe, groups: Sequence[Mapping[str, Any]], state: Mapping[Tensor, Any]
) -> list[tuple[Tensor, dict[str, Tensor], list[str]]]:
    """Return the states of all parameters that have any, in the formats of their groups.

    Returns
    -------
    list of (parameter, tensors by name, names of tensors of another format)

    Raises
    ------
    StateError, HyperparameterError, ParameterError
    """
    names, found, k = names_of(groups), [], 0
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            entry, name = state.get(parameter), names[k]
            k += 1
            if not entry or element_type(local(parameter)) is None:
                continue
            slot = slot_of(recipe, group, k, number, parameter, None, entry, name, NOTHING)
            found.append((parameter, slot.scalars | slot.tensors, other_formats(entry, slot)))
    return found


def other_formats(entry: Mapping[str, Any], slot: Slot) -> list[str]:
    """Return the names in a parameter's state of what its slot stores in another format."""
    wanted = slot.scalars | slot.tensors
    stems = {one.removesuffix(".codes").removesuffix(".scales") for one in wanted}
    formats = {each for stem in stems for each in (stem, f"{stem}.codes", f"{stem}.scales")}
    return [one for one in entry if one in formats.union(COMPANIONS.values()) and one not in wanted]
