"""What every candidate is: something that takes gradients, makes steps and shows its result."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from functools import cache
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
    "sgd": {"lr": 1e-2},
    "adagrad": {"lr": 1e-2, "eps": 1e-8},
    "rmsprop": {"lr": 1e-3, "rho": 0.9, "eps": 1e-8},
    "adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
}
"""Of what is timed."""

CHECKED: Hyper = {"lr": 0.1, "eps": 1e-3}
"""What checks use instead: it shows where eps stands, which differs between libraries."""


def checked(method: str) -> Hyper:
    """The hyperparameters of a method for checks."""
    return {name: CHECKED.get(name, value) for name, value in HYPER[method].items()}


LINE = 64
"""Bytes of a cache line."""


Given = Sequence[Any]
"""Parameters or gradients that all candidates are given, and copy: NumPy's arrays, or CuPy's."""


class Trainer(NamedTuple):
    """Parameters of a candidate's own, and its optimizer."""

    load: Callable[[Given], Any]
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


Make = Callable[[Given, Hyper], Trainer]
"""From the first parameters and the hyperparameters, for one method on one backend."""


def library(backend: str) -> Any:
    """NumPy or CuPy."""
    if backend == "cpu":
        return np
    import cupy

    return cupy


def normal(backend: str, seed: int, zeros: int = 0) -> Callable[..., Any]:
    """A function of (shape, dtype) that draws arrays of a normal distribution where they are to be.

    Of a hundred numbers so many are zero instead.

    With the same seed it draws the same numbers. One thread of the host would take longer for
    the arrays of a GPU than everything that is measured on them.
    """
    if backend == "cpu":
        random = np.random.default_rng(seed)

        def drawn(shape: Any, dtype: Any = "float32") -> np.ndarray:
            array = random.standard_normal(shape, np.float32).astype(dtype, copy=False)
            if zeros:
                array[random.random(shape, np.float32) < zeros / 100] = 0
            return array

        return drawn
    xp, numbers = library(backend), itertools.count(seed << 16)

    def draw(shape: Any, dtype: Any = "float32") -> Any:
        array = xp.empty(shape, dtype)
        _normal_cuda()(np.int64(next(numbers)), np.int64(zeros), array)
        return array

    return draw


NORMAL_IN = "int64 array, int64 zeros"
NORMAL_CUDA = """
    unsigned long long z = ((unsigned long long)array << 40) + (unsigned long long)i + 1;
    z *= 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z ^= z >> 31;
    const double u = ((double)(z >> 32) + 1) / 4294967296.0;
    const double turn = (double)(z & 0xFFFFFFFFULL) / 4294967296.0;
    x = (T)(sqrt(-2 * log(u)) * cos(6.283185307179586 * turn));
    if ((long long)((z * 0x9E3779B97F4A7C15ULL >> 32) % 100) < zeros) {
        x = 0;
    }
"""
"""SplitMix64 of the array's number and the element's, then Box and Muller's transform."""


@cache
def _normal_cuda() -> Callable[..., None]:
    import cupy

    options = ("--fmad=false",)  # the same numbers whatever the compiler contracts
    kernel: Callable[..., None] = cupy.ElementwiseKernel(
        NORMAL_IN, "T x", NORMAL_CUDA, "gpuadapt_normal", options=options
    )
    return kernel


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


MakeRows = Callable[[Any, Sequence[tuple[np.ndarray, Any]], Hyper], RowTrainer]
"""From the table, batches of (row numbers, gradient rows) and the hyperparameters; as `Given`."""
