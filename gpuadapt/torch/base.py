"""`Bound`: an optimizer of torch with a binding."""

from __future__ import annotations

from typing import Any

import torch

from ..turn import Turn, in_turn
from .binding import Binding
from .places import Places
from .recipes import Recipe
from .rows import RowTable


class Bound(torch.optim.Optimizer):
    """What a step knows of an optimizer beside its groups and its state."""

    _recipe: Recipe
    _torch_class: type[torch.optim.Optimizer] | None = None
    """Whose step is taken where kernels cannot; None if there is none."""

    _binding: Binding | None = None
    _last: Any = None
    """A `StepResult`, or the `StepScalars` of the GPU that has it."""
    _fallback: str | None = None
    _complete = False
    """Whether all groups are there with all their settings, which the constructor adds."""

    @property
    def _places(self) -> Places:
        made: Places | None = self.__dict__.get("_made_places")
        if made is None:
            made = self.__dict__["_made_places"] = Places()
        return made

    @property
    def _turn(self) -> Turn:
        made: Turn | None = self.__dict__.get("_made_turn")
        return made or self.__dict__.setdefault("_made_turn", Turn())

    def _tables(self) -> list[RowTable]:
        """The tables that are updated by rows."""
        rounds = self._binding.rounds if self._binding is not None else ()
        return [table for one in rounds for table in one.rows.values()]

    @in_turn
    def flush(self) -> None:
        """Let all rows of tables with ``sparse="exact"`` catch up with the last step."""
        for table in self._tables():
            table.flush()
