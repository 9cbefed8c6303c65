"""What every candidate is: something that takes gradients, makes steps and shows its result."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np


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

Hyper = dict[str, float]

HYPER: dict[str, Hyper] = {
    "adagrad": {"lr": 1e-2, "eps": 1e-8},
    "rmsprop": {"lr": 1e-3, "rho": 0.9, "eps": 1e-8},
    "adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
}
"""Of what is timed."""

CHECKED: Hyper = {"lr": 0.1, "eps": 1e-3}
"""What checks use instead: it shows where eps stands, which differs between libraries."""


LINE = 64
"""Bytes of a cache line."""


class Trainer(NamedTuple):
    """Parameters of a candidate's own, and its optimizer."""

    load: Callable[[Sequence[np.ndarray]], Any]
    """Set the gradients of the next steps."""
    step: Callable[[], Any]
    """Update the parameters; this is what is timed."""
    result: Callable[[], list[np.ndarray]]
    """The parameters now."""
    form: dict[str, Any] = {}
    """Which form of the method this is: keywords of its function in `tests/reference.py`."""


class RowTrainer(NamedTuple):
    """A table of a candidate's own, its optimizer, and batches of gradient rows."""

    step: Callable[[int], Any]
    """Update by batch k."""
    result: Callable[[], np.ndarray]
    """The table now."""
    form: dict[str, Any] = {}
    """As `Trainer.form`."""
    rowwise: bool = False
    """Whether a row has one second moment, the mean over its elements."""


Make = Callable[[Sequence[np.ndarray], Hyper], Trainer]
"""From the first parameters and the hyperparameters, for one method on one backend."""


def library(backend: str) -> Any:
    """NumPy or CuPy."""
    if backend == "cpu":
        return np
    import cupy

    return cupy


def placed(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a cache line, as torch's tensors do and NumPy's arrays do not.

    Rows of a table may then be whole lines; a row that is not costs one line more.
    """
    memory = np.empty(array.nbytes + LINE, np.uint8)
    copy = memory[-memory.ctypes.data % LINE :][: array.nbytes].view(array.dtype)
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy


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


MakeRows = Callable[[np.ndarray, Sequence[tuple[np.ndarray, np.ndarray]], Hyper], RowTrainer]
"""From the table, batches of (row numbers, gradient rows) and the hyperparameters."""
