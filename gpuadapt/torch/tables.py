"""Tables whose rows catch up: brought up to date before a module reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError
from ..turn import alone, in_turn
from .base import Bound

LOOKUPS = (torch.nn.Embedding, torch.nn.EmbeddingBag)
"""The modules that read rows of their ``weight`` by indices, which are their first argument."""


def catch_up(optimizer: Bound, table: Tensor, rows: Tensor | None = None) -> None:
    """Let rows of an exact table catch up with the last step; see `Fused.catch_up`."""
    # A signal handler may save a module, which lets all rows catch up.
    (_of_all if rows is None else _of_some)(optimizer, table, rows)


def _catch_up(optimizer: Bound, table: Tensor, rows: Tensor | None) -> None:
    if not any(table is one for group in optimizer.param_groups for one in group["params"]):
        raise ParameterError("catch_up: the tensor is not among the optimizer's parameters")
    for own in optimizer._tables():
        if own.slot.owner is table and own.history is not None:
            if rows is None:
                own.flush()
            else:
                own.catch_up(rows)
            torch.autograd.graph.increment_version([table])


_of_all, _of_some = in_turn(_catch_up), alone(_catch_up)


class Watch:
    """The hooks by which modules read rows that are up to date."""

    def __init__(self, handles: list[Any]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def watch(optimizer: Bound, module: torch.nn.Module, read: Callable[..., None]) -> Watch:
    """Let the lookups of a module call ``read(table, rows)``; see `Fused.watch`."""
    exact = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get("sparse") == "exact"
        for parameter in group["params"]
    }
    lookups = [
        each for each in module.modules() if isinstance(each, LOOKUPS) and id(each.weight) in exact
    ]
    if not lookups:
        raise ParameterError(
            "watch: the module has no Embedding and no EmbeddingBag whose weight is a parameter of "
            "this optimizer with sparse='exact'"
        )

    def before_forward(lookup: Any, given: tuple[Any, ...]) -> None:
        read(lookup.weight, given[0] if given else None)

    def before_all(lookup: Any, *_: Any) -> None:
        read(lookup.weight)

    handles: list[Any] = []
    for each in lookups:
        handles.append(each.register_forward_pre_hook(before_forward))
        # Steps that rows have missed are for the weights before, not for those that are loaded.
        hooks: list[Any] = [
            each.register_state_dict_pre_hook,
            each.register_load_state_dict_pre_hook,
        ]
        handles += [register(before_all) for register in hooks]
    return Watch(handles)
