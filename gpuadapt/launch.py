"""From (rule, traversal, backend) to a bound kernel: the only dispatch of updates."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from gpuadapt.kernels.cpu import threads  # noqa: F401  (its fork hook must be there early)
from gpuadapt.kernels.rule import Rule

Update = Callable[[Any, Sequence[float]], None]
"""Updates the arrays it is bound to, from a gradient and the coefficients of the step."""


def bind(
    rule: Rule, backend: str, parameter: Any, states: Sequence[Any], traversal: str = "dense"
) -> Update:
    """Compile (or fetch) the kernel for these arrays and bind it to them.

    Nothing is written until the returned function is called.
    """
    module = importlib.import_module(f"gpuadapt.kernels.{backend}.{traversal}")
    update: Update = module.bind(rule, parameter, states)
    return update
