"""The methods as the papers have them, for the checks of candidates."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpuadapt.benchmark.candidates import Hyper


def _load() -> ModuleType:
    # By its path: other packages may have installed a "tests" of their own.
    path = Path(__file__).parent.parent / "tests" / "reference.py"
    spec = importlib.util.spec_from_file_location("gpuadapt_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference: Any = _load()
"""The methods as the papers have them, in NumPy expressions: `tests/reference.py`."""


def expected(
    method: str,
    start: np.ndarray,
    gradients: Sequence[np.ndarray],
    hyper: Hyper,
    form: dict[str, Any],
    state: dict[str, Any] | None = None,
    first: int = 1,
) -> np.ndarray:
    """The parameter after a step with each gradient, in float64, as the paper has it.

    ``state`` is updated; ``first`` is the number of the first step.
    """
    w, update = start.astype(np.float64), getattr(reference, method)
    state = {} if state is None else state
    for t, gradient in enumerate(gradients, first):
        w = update(w, gradient.astype(np.float64), state, t, **hyper, **form)
    return w
