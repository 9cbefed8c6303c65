"""From (rule, traversal, backend) to a bound kernel: the only dispatch of updates."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gpuadapt.kernels.cpu import threads  # noqa: F401  (its fork hook must be there early)
from gpuadapt.kernels.rule import Rule

Update = Callable[[Any, Sequence[float]], None]
"""Updates the arrays it is bound to, from a gradient and the coefficients of the step."""


class RowUpdate(Protocol):
    """Updates rows of the table it is bound to, in two steps."""

    skipped: int
    """Rows that were out of range and left out."""

    def prepare(self, rows: Any, values: Any, duplicates: str, skip: bool, most: float) -> Any:
        """Check and sort row numbers; what it returns is for the next call."""

    def __call__(self, plan: Any, coefficients: Sequence[float]) -> None:
        """Write."""


def bind(rule: Rule, backend: str, parameter: Any, states: Sequence[Any]) -> Update:
    """Compile (or fetch) the dense kernel for these arrays and bind it to them.

    Nothing is written until the returned function is called.
    """
    update: Update = _traversal(backend, "dense").bind(rule, parameter, states)
    return update


def bind_rows(rule: Rule, backend: str, parameter: Any, states: Sequence[Any]) -> RowUpdate:
    """As `bind`, for rows of these arrays."""
    update: RowUpdate = _traversal(backend, "rows").bind(rule, parameter, states)
    return update


def _traversal(backend: str, name: str) -> Any:
    return importlib.import_module(f"gpuadapt.kernels.{backend}.{name}")
