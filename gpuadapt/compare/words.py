"""Learn word vectors with every method, by gradients of rows alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop, RowGrad
from ..arrays import copy_into, namespace
from ..errors import Error
from .clock import now
from .corpus import Corpus
from .skipgram import (
    Arrays,
    Batches,
    draw_noise,
    draw_pairs,
    gradients,
    initial,
    keep_probability,
    loss,
)

# Each rate had the lowest held-out loss of a grid (its steps were factors of 1.4 to 2 around the
# best; for Adadelta, whose eps sets the pace, powers of ten) on the standard library, with
# batches and initial vectors of another seed than those compared.
METHODS: dict[str, Callable[..., Optimizer]] = {
    "SGD": lambda w, **more: SGD(w, lr=0.05, **more),
    "momentum": lambda w, **more: SGD(w, lr=0.005, momentum=0.9, **more),
    "Adagrad": lambda w, **more: Adagrad(w, lr=0.1, **more),
    "RMSprop": lambda w, **more: RMSprop(w, lr=0.01, **more),
    "Adadelta": lambda w, **more: Adadelta(w, eps=1e-5, **more),
    "Adam": lambda w, **more: Adam(w, lr=0.005, **more),
}

STEPS = 2600
"""Two passes over the standard library."""
POINTS = 25
"""Points along a run at which losses are recorded."""
EVALUATED = 4096
"""Held-out pairs that a loss is the mean of, at most."""
NOISE = 256
"""Noise words that these pairs share."""

SHOWN = 12
NEIGHBOURS = 4


@dataclass
class Run:
    """One method."""

    method: str
    settings: str
    words: list[float] = field(default_factory=list)
    """Words of the text seen when the losses were recorded."""
    loss: list[float] = field(default_factory=list)
    """Mean over held-out pairs."""
    rare_loss: list[float] = field(default_factory=list)
    """Mean over held-out pairs whose centre is a rare word."""
    optimizer_seconds: float = 0.0
    training_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Pairs = tuple[Any, Any, Any]
"""Centre words, context words (blocks, pairs) and noise words (blocks, shared)."""


def held_out_pairs(corpus: Corpus) -> tuple[Pairs, Pairs]:
    """What losses are evaluated on: pairs of any words, and pairs whose centre is rare."""
    random = np.random.default_rng(0)
    pairs = draw_pairs(random, corpus.held_out, keep_probability(corpus.counts))
    order = random.permutation(len(pairs[0]))
    centre, context = (words[order] for words in pairs)
    rare = centre >= corpus.first_rare
    if not rare.any():
        raise Error(f"too little text in {corpus.name}: no rare words in what is held out")
    noise = draw_noise(random, corpus.counts, (1, NOISE))
    return (
        (centre[None, :EVALUATED], context[None, :EVALUATED], noise),
        (centre[rare][None, :EVALUATED], context[rare][None, :EVALUATED], noise),
    )


def train(
    method: str,
    corpus: Corpus,
    batches: Batches,
    backend: str,
    advance: Callable[..., None],
) -> tuple[Run, np.ndarray]:
    """One run, and its vectors; calls ``advance(steps, more="... words/s")`` now and then."""
    xp = namespace(backend)
    evaluated = [tuple(map(xp.asarray, pairs)) for pairs in held_out_pairs(corpus)]
    centre, context, noise = map(xp.asarray, (batches.centre, batches.context, batches.noise))
    tables = initial(xp, 0, len(corpus.words))
    optimizer = METHODS[method](tables)
    _warm_up(xp, method, tables, (centre[0], context[0], noise[0]))
    run = Run(method, repr(optimizer))
    steps = len(centre)
    record_at = set(np.linspace(0, steps, POINTS + 1).astype(int).tolist())
    reported = 0
    _record(xp, run, 0.0, tables, evaluated)
    for step in range(1, steps + 1):
        start = now(backend)
        found = gradients(xp, tables, centre[step - 1], context[step - 1], noise[step - 1])
        middle = now(backend)
        optimizer.step({name: RowGrad(*rows) for name, rows in found.items()})
        end = now(backend)
        run.optimizer_seconds += end - middle
        run.training_seconds += end - start
        if step in record_at:
            words = step * batches.words_per_step
            _record(xp, run, words, tables, evaluated)
            speed = words / run.training_seconds
            advance(step - reported, more=f"{speed:,.0f} words/s")
            reported = step
    vectors = np.empty(tables["centre"].shape, np.float32)
    copy_into(vectors, tables["centre"])
    return run, vectors


def _warm_up(xp: ModuleType, method: str, tables: Arrays, batch: Pairs) -> None:
    """Compile what the run will need, on copies, so that no timing includes it."""
    copies = {name: table.copy() for name, table in tables.items()}
    found = gradients(xp, copies, *batch)
    METHODS[method](copies).step({name: RowGrad(*rows) for name, rows in found.items()})


def _record(xp: ModuleType, run: Run, words: float, tables: Arrays, evaluated: Any) -> None:
    run.words.append(words)
    for losses, pairs in zip((run.loss, run.rare_loss), evaluated, strict=True):
        losses.append(float(loss(xp, tables, *pairs).mean()))


def neighbours(corpus: Corpus, vectors: np.ndarray) -> dict[str, list[tuple[str, float]]]:
    """Some frequent words, with the words closest to them in direction and their cosines.

    Shown are those whose neighbours are closest, of the 500 most frequent words that come after
    the hundred that any sentence is made of. Rare words, which have been seen next to few
    others, are no neighbours.
    """
    known = corpus.first_rare
    unit = vectors[:known] / np.linalg.norm(vectors[:known], axis=1, keepdims=True)
    first = min(100, known // 5)
    cosines = unit[first : first + 500] @ unit.T
    own = np.arange(len(cosines))
    cosines[own, first + own] = -1
    shown: dict[str, list[tuple[str, float]]] = {}
    seen: set[str] = set()
    for row in np.argsort(-cosines.max(axis=1)).tolist():
        word = corpus.words[first + row]
        if word not in seen and len(shown) < SHOWN:
            closest = np.argsort(-cosines[row])[:NEIGHBOURS].tolist()
            shown[word] = [(corpus.words[i], float(cosines[row, i])) for i in closest]
            seen |= {word, *(other for other, _ in shown[word])}
    return shown


def write_vectors(path: Path, words: list[str], vectors: np.ndarray) -> None:
    """word2vec's text format: a line with count and dimension, then a line for each word."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n")
        for word, vector in zip(words, vectors.tolist(), strict=True):
            # 9 digits give back the same float32.
            file.write(f"{word} {' '.join(f'{value:.9g}' for value in vector)}\n")
