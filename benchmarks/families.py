"""The kernels whose speed is predicted: one of each kind, as optimizers launch it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import gpuadapt as ga
from gpuadapt.arrays import numpy_dtype
from gpuadapt.kernels.catchup.plan import plan_for
from gpuadapt.kernels.cuda import multi_tensor, rows, squares, tuning
from gpuadapt.kernels.formats import PLAIN, Formats, traffic
from gpuadapt.kernels.language.rule import Rule
from gpuadapt.optimizer import internals

from .sass import LOADS, STORES, Instruction, Wanted, moved

WIDTH = 64
"""Elements of a row."""

ROW = rows.launch_config(WIDTH, multi_tensor.ACCESS // 4, False)
"""Of float32."""


class Family(NamedTuple):
    """A kernel, and how its speed is found from its instructions."""

    name: str
    source: str
    """CUDA C."""
    threads: int
    """Threads of a block."""
    moved: float
    """Bytes of an element that are read or written."""
    stored: float
    """Of these, bytes that are written, but for scales: one lane of a warp writes them."""
    wanted: Wanted
    """What distinguishes its fast path."""
    loop: bool = True
    """Its fast path is a loop; else the whole kernel, which a thread goes through once."""
    divides: bool = True
    """Its arithmetic has a division or a root."""

    def elements(self, given: Sequence[Instruction]) -> float:
        """Return how many elements a fast path updates or reads."""
        if not self.loop:
            return ROW.elements  # rows that catch up are stored twice
        if not self.stored:
            return moved(given, LOADS, self.wanted.least) / self.moved
        return moved(given, STORES, self.wanted.least) / self.stored


def families() -> list[Family]:
    """Return all kernels of the table, in its order."""
    plain = [("sgd", ga.SGD), ("adagrad", ga.Adagrad), ("rmsprop", ga.RMSprop)]
    plain += [("adadelta", ga.Adadelta), ("adam", ga.Adam)]
    dense = [_dense(f"{name}, float32", of, "float32", {}) for name, of in plain]
    dense.append(_dense("adam, float64", ga.Adam, "float64", {}))
    for name, (dtype, settings) in FORMATS.items():
        dense.append(_dense(f"adam, {name}", ga.Adam, dtype, settings))
    norm = [
        Family(
            f"norm, {dtype}",
            squares.source("float32", PLAIN[dtype]),
            squares.THREADS,
            PLAIN_BYTES[dtype],
            0,
            Wanted(LOADS, 1, ()),
        )
        for dtype in ("float32", "bfloat16")
    ]
    return [*dense, *norm, *_by_rows()]


STOCHASTIC = {"rounding": "stochastic"}
KAHAN = {"rounding": "kahan"}
BFLOAT16 = {"state_dtype": "bfloat16"}
EIGHT = {"state_dtype": "8bit"}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "bfloat16, float32 states": ("bfloat16", {}),
    "bfloat16 stochastic, float32 states": ("bfloat16", STOCHASTIC),
    "all bfloat16, stochastic": ("bfloat16", STOCHASTIC | BFLOAT16),
    "bfloat16 split, bfloat16 states": ("bfloat16", {"master": "split"} | BFLOAT16),
    "bfloat16 with float32 master": ("bfloat16", {"master": "float32"}),
    "bfloat16 Kahan, bfloat16 states": ("bfloat16", KAHAN | BFLOAT16),
    "float32, bfloat16 states": ("float32", BFLOAT16),
    "float32, float16 states": ("float32", {"state_dtype": "float16"}),
    "float32, 8-bit states": ("float32", EIGHT),
    "bfloat16 stochastic, 8-bit states": ("bfloat16", STOCHASTIC | EIGHT),
}
"""Of Adam: the parameter's and the gradient's dtype, and settings of the optimizer."""

VECTORS = Wanted((*LOADS, *STORES), 8, ("MUFU", "I2FP", "I2F", "F2I"))
"""In loops over arrays."""

BLOCKS = VECTORS._replace(least=4, kept=("MUFU",))
"""In loops over 8-bit blocks, where a lane has four codes in a word. Codes of numbers below the
smallest one's are found in a slow way, by conversions to float32."""

PLAIN_BYTES = {"float32": 4, "bfloat16": 2}


def _made(
    method: Callable[..., ga.Optimizer], dtype: str, settings: dict[str, Any]
) -> tuple[Rule, Formats]:
    """The rule and the formats of a method with default hyperparameters."""
    optimizer = method(np.zeros((4, WIDTH), numpy_dtype(dtype, "cpu")), **settings)
    parts = internals(optimizer)
    return parts.groups[0].rule, parts.parameters["0"].formats_for(dtype)


def _dense(
    name: str, method: Callable[..., ga.Optimizer], dtype: str, settings: dict[str, Any]
) -> Family:
    rule, formats = _made(method, dtype, settings)
    text = multi_tensor.source(rule, formats)
    threads, stored = tuning.default(tuning.family(formats)).threads, _stored(formats)
    wanted = BLOCKS if formats.block else VECTORS
    return Family(name, text, threads, traffic(formats), stored, wanted, divides=bool(rule.states))


def _stored(formats: Formats) -> float:
    """See `Family`."""
    parts = [part for form in formats.updated for part in form.parts if part[0] != "scale"]
    return float(sum(np.dtype(dtype).itemsize for _, dtype in parts))


def _by_rows() -> list[Family]:
    found, threads = [], tuning.default(tuning.ROWS).threads
    adam, float32 = _made(ga.Adam, "float32", {})
    adagrad, whole = _made(ga.Adagrad, "float32", {})
    rowwise, by_row = _made(ga.Adagrad, "float32", {"rowwise": True})
    for name, rule, formats, exact in (
        (f"rows of {WIDTH}, adam", adam, float32, False),
        (f"rows of {WIDTH}, adagrad", adagrad, whole, False),
        (f"rows of {WIDTH}, row-wise adagrad", rowwise, by_row, False),
        (f"exact rows of {WIDTH}, adam", adam, float32, True),
    ):
        plan = plan_for(rule, formats) if exact else None
        text = rows.source(rule, formats, ROW, exact, plan)
        elements = len(formats.updated) - len(rule.row_states)
        moved = 4.0 * (2 * elements + 1)
        # The squares of a row are added in float64.
        wanted = Wanted(STORES, 16, ("DADD",) * (rule.squared is not None))
        found.append(Family(name, text, threads, moved, 4.0 * elements, wanted, loop=False))
    return found
