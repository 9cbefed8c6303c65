"""Train with Adam in every storage format: what does each cost in loss, and take in memory?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import Adam, Optimizer, RowGrad
from ..arrays import backend_of, dtype_name, namespace, numpy_dtype
from ..state_formats import decoded
from . import digits, network, skipgram
from .corpus import Corpus
from .skipgram import Batches

EXACT = "float32"
"""The format that others are compared with."""

_BFLOAT16 = {"state_dtype": "bfloat16"}

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    EXACT: ("float32", {}),
    "bfloat16 state": ("float32", _BFLOAT16),
    "float16 state": ("float32", {"state_dtype": "float16"}),
    "float16 state, v too": ("float32", {"state_dtype": {"m": "float16", "v": "float16"}}),
    "8-bit state": ("float32", {"state_dtype": "8bit"}),
    "bfloat16, nearest": ("bfloat16", _BFLOAT16),
    "bfloat16, stochastic": ("bfloat16", _BFLOAT16 | {"rounding": "stochastic"}),
    "bfloat16, kahan": ("bfloat16", _BFLOAT16 | {"rounding": "kahan"}),
    "bfloat16, split": ("bfloat16", _BFLOAT16 | {"master": "split"}),
    "bfloat16, master": ("bfloat16", _BFLOAT16 | {"master": "float32"}),
    "float16, master": ("float16", {"state_dtype": "float16", "master": "float32"}),
    "8-bit, bfloat16 stochastic": (
        "bfloat16",
        {"state_dtype": "8bit", "rounding": "stochastic"},
    ),
}
"""The parameter's element type and Adam's settings, by name."""

LR = {"digits": 2e-3, "words": 5e-3}
"""Adam's first learning rates, those of `digits.METHODS` and `words.METHODS`.

They fall to 0 in a line, so that updates become as small as formats are coarse.
"""
WEIGHT_DECAY = 1e-3
"""Of the digits: without it the loss would go on falling to where any difference is large."""
STEPS = 1300
"""Of the words: one pass over the standard library."""
SAMPLED = 16
"""Batches of words, of those that a run has learned from, whose mean loss is the run's."""


@dataclass
class Run:
    """One format on one task and seed."""

    task: str
    format: str
    seed: int
    bytes: float
    """Per element of the parameters, with everything that is kept for it."""
    loss: float
    """On what was learned from, after the last step."""
    accuracy: float | None = None
    """Of the digits, on the test set."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Widened:
    """What is read of arrays by name, or of a table by rows, as float32."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __getitem__(self, key: Any) -> Any:
        array = self.of[key]
        if dtype_name(array) == "bfloat16" and backend_of(array) == "cuda":
            return namespace("cuda").asarray(decoded(array))
        return array.astype(np.float32, copy=False)


def rounded(arrays: dict[str, Any], kind: str, backend: str) -> dict[str, Any]:
    """New arrays of an element type, the nearest to arrays of float32 on the host."""
    xp, bits = namespace(backend), numpy_dtype(kind, backend)
    # CuPy's bfloat16 are their bits.
    return {
        name: xp.asarray(array.astype(numpy_dtype(kind, "cpu")).view(bits))
        for name, array in arrays.items()
    }


def bytes_per_parameter(optimizer: Optimizer, parameters: dict[str, Any]) -> float:
    """Bytes of parameters and of all that is kept beside them, for each element."""
    kept = sum(part.nbytes for name in parameters for part in optimizer.state[name].values())
    own = sum(array.nbytes for array in parameters.values())
    return float((own + kept) / sum(array.size for array in parameters.values()))


def train_digits(
    seeds: int, epochs: int, data: tuple[np.ndarray, ...], backend: str
) -> Iterator[Run]:
    """A run for every format and seed, each when it has ended."""
    xp = namespace(backend)
    x, labels, test_x, test_labels = map(xp.asarray, data)
    steps = digits.total_steps(epochs, x)
    for name in FORMATS:
        for seed in range(seeds):
            initial = network.initial(np, seed, x.shape[1], digits.HIDDEN, 10)
            weights, optimizer = _begin(
                name, initial, seed, backend, _falling(LR["digits"], steps), WEIGHT_DECAY
            )
            read: Any = Widened(weights)
            # A format may be so coarse that numbers overflow. That is a result.
            with np.errstate(over="ignore", invalid="ignore"):
                for _ in digits.descend(xp, seed, epochs, x, labels, read, optimizer, backend):
                    pass
                loss, _ = network.loss_and_gradients(xp, read, x, labels)
                accuracy = digits.accuracy(read, test_x, test_labels)
            size = bytes_per_parameter(optimizer, weights)
            yield Run("digits", name, seed, size, float(loss), accuracy)


def train_words(seeds: int, corpus: Corpus, steps: int, backend: str) -> Iterator[Run]:
    """A run for every format and seed, each when it has ended."""
    for seed in range(seeds):
        # Once for all formats, which takes as long as training with some of them.
        batches = skipgram.draw_batches(corpus, steps, seed)
        for name in FORMATS:
            initial = skipgram.initial(np, seed, len(corpus.words))
            tables, optimizer = _begin(
                name, initial, seed, backend, _falling(LR["words"], steps), 0.0
            )
            read: dict[str, Any] = {key: Widened(table) for key, table in tables.items()}
            with np.errstate(over="ignore", invalid="ignore"):
                loss = _learn(read, optimizer, batches, backend)
            yield Run("words", name, seed, bytes_per_parameter(optimizer, tables), loss)


def _begin(
    name: str,
    initial: dict[str, Any],
    seed: int,
    backend: str,
    lr: Callable[[int], float],
    weight_decay: float,
) -> tuple[dict[str, Any], Optimizer]:
    """Parameters in a format, and their optimizer."""
    kind, settings = FORMATS[name]
    parameters = rounded(initial, kind, backend)
    given: dict[str, Any] = {**settings, "lr": lr, "weight_decay": weight_decay}
    if "state_dtype" in settings or settings.get("rounding") == "stochastic":
        given["seed"] = seed  # elsewhere nothing is rounded at random
    return parameters, Adam(parameters, **given)


def _falling(lr: float, steps: int) -> Callable[[int], float]:
    return lambda step: lr * (1 - step / steps)


def _learn(read: dict[str, Any], optimizer: Optimizer, batches: Batches, backend: str) -> float:
    """Learn from all batches; the loss on some of them thereafter."""
    xp = namespace(backend)
    given = [xp.asarray(part) for part in (batches.centre, batches.context, batches.noise)]
    for batch in zip(*given, strict=True):
        found = skipgram.gradients(xp, read, *batch)
        optimizer.step({name: RowGrad(*rows) for name, rows in found.items()})
    chosen = np.linspace(0, len(batches.centre) - 1, SAMPLED).astype(int).tolist()
    losses = [skipgram.loss(xp, read, *(part[i] for part in given)).mean() for i in chosen]
    return float(np.mean([float(loss) for loss in losses]))
