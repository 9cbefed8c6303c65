"""`Bound`: an optimizer of torch with a binding."""

from __future__ import annotations

import torch

from ..step_options import StepResult
from .binding import Binding
from .recipes import Recipe


class Bound(torch.optim.Optimizer):
    """What a step knows of an optimizer beside its groups and its state."""

    _recipe: Recipe
    _torch_class: type[torch.optim.Optimizer] | None = None
    """Whose step is taken where kernels cannot; None if there is none."""

    _binding: Binding | None = None
    _last: StepResult | None = None
    _fallback: str | None = None

    def flush(self) -> None:
        """Let all rows of tables with ``sparse="exact"`` catch up with the last step."""
        if self._binding is not None:
            for one in self._binding.rounds:
                for table in one.rows.values():
                    table.flush()
