"""What rows that do not occur do: nothing ("lazy"), what they missed ("exact"), all ("dense")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import Optimizer, RowGrad
from ..arrays import copy_into, namespace
from .corpus import Corpus
from .skipgram import Arrays, Batches, gradients, initial, loss
from .words import METHODS, held_out_pairs

STEPS = 650
"""Half a pass over the standard library."""

COMPARED = ("Adam", "RMSprop")
KINDS: dict[str, dict[str, str]] = {
    "lazy": {},
    "exact": {"sparse": "exact", "exactness": "bits"},
    "dense": {},
}


@dataclass
class Run:
    """One method and kind, from the same vectors by the same batches."""

    method: str
    kind: str
    loss: float
    """Mean over held-out pairs."""
    rare_loss: float
    """Mean over held-out pairs whose centre is a rare word."""
    equal: bool
    """Whether both tables are those of dense steps, bit for bit."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Rows:
    """A table as an optimizer's user reads it: by numbers of rows, up to date."""

    def __init__(self, optimizer: Optimizer, name: str) -> None:
        self._optimizer, self._name = optimizer, name

    def __getitem__(self, rows: Any) -> Any:
        return self._optimizer.read(self._name, rows)


def train(
    corpus: Corpus, batches: Batches, steps: int, backend: str, advance: Callable[[str, int], None]
) -> list[Run]:
    """Every method in every kind; calls ``advance(what, steps)`` now and then."""
    runs = []
    for method in COMPARED:
        found = {}
        for kind in KINDS:
            found[kind] = _train(method, kind, corpus, batches, steps, backend)
            advance(f"{method}, {kind}", steps)
        for kind, (tables, (every, rare)) in found.items():
            equal = all(map(np.array_equal, tables, found["dense"][0]))
            runs.append(Run(method, kind, every, rare, equal))
    return runs


def _train(
    method: str, kind: str, corpus: Corpus, batches: Batches, steps: int, backend: str
) -> tuple[list[np.ndarray], list[float]]:
    """The tables, and the two losses."""
    xp = namespace(backend)
    tables = initial(xp, 0, len(corpus.words))
    optimizer = METHODS[method](tables, **KINDS[kind])
    read: Arrays = {name: _Rows(optimizer, name) for name in tables} if kind == "exact" else tables
    for step in range(min(steps, len(batches.centre))):
        batch = (xp.asarray(of[step]) for of in (batches.centre, batches.context, batches.noise))
        grads: dict[str, Any] = {
            name: RowGrad(*rows) for name, rows in gradients(xp, read, *batch).items()
        }
        if kind == "dense":
            grads = {name: grad.to_dense(tables[name].shape) for name, grad in grads.items()}
        optimizer.step(grads)
    optimizer.flush()
    losses = [
        float(loss(xp, tables, *map(xp.asarray, pairs)).mean()) for pairs in held_out_pairs(corpus)
    ]
    kept = []
    for table in tables.values():
        kept.append(np.empty(table.shape, table.dtype))
        copy_into(kept[-1], table)
    return kept, losses
