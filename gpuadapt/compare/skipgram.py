"""Skip-gram with negative sampling: pairs of words from text, their loss and its gradients.

After Mikolov, Sutskever, Chen, Corrado and Dean, "Distributed Representations of Words and
Phrases and their Compositionality", 2013 (arXiv:1310.4546). Loss and gradients are array code
that NumPy and CuPy share; sampling is NumPy on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .corpus import Corpus

DIM = 64
WINDOW = 5
THRESHOLD = 1e-4
"""t of section 2.3: words more frequent than this are subsampled."""
NEGATIVES = 5
"""k of section 2.2: how much a pair's noise words weigh, together."""

BLOCKS = 32
PAIRS = 64
SHARED = 32
"""A batch is 32 blocks of 64 pairs; the pairs of a block share 32 noise words.

So that scores are products of matrices. Each noise word weighs k / 32 for each pair: the
expectation of the paper's loss, with less variance than k words for every pair.
"""

Arrays = dict[str, Any]


@dataclass
class Batches:
    """Every batch of a run, the same for all methods."""

    centre: np.ndarray
    """int32, shape (steps, blocks, pairs), as ``context``."""
    context: np.ndarray
    noise: np.ndarray
    """int32, shape (steps, blocks, shared)."""
    words_per_step: float
    """Words of the text, before subsampling, that a batch stands for."""


def keep_probability(counts: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Section 2.3: a word of frequency f stays with probability sqrt(t / f), at most 1."""
    kept: np.ndarray = np.minimum(1, np.sqrt(threshold * counts.sum() / counts))
    return kept


def noise_probability(counts: np.ndarray) -> np.ndarray:
    """Section 2.2: noise words are drawn by their counts to the power 3/4."""
    powers = counts**0.75
    probability: np.ndarray = powers / powers.sum()
    return probability


def draw_noise(
    random: np.random.Generator, counts: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Noise words, int32."""
    ends = np.cumsum(noise_probability(counts))
    drawn = np.searchsorted(ends, random.random(shape), side="right")
    # The last end may have been rounded to just below 1.
    words: np.ndarray = np.minimum(drawn, len(counts) - 1).astype(np.int32)
    return words


def draw_pairs(
    random: np.random.Generator, text: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and context words of one pass over a text, in order of distance.

    Frequent words are thrown out first, so that windows reach further; then each centre has a
    window of its own, of 1 to ``WINDOW`` words to each side.
    """
    text = text[random.random(len(text)) < keep[text]]
    window = random.integers(1, WINDOW + 1, len(text))
    centre, context = [], []
    for distance in range(1, WINDOW + 1):
        before, after = text[:-distance], text[distance:]
        forward = window[:-distance] >= distance
        backward = window[distance:] >= distance
        centre += [before[forward], after[backward]]
        context += [after[forward], before[backward]]
    return np.concatenate(centre), np.concatenate(context)


def draw_batches(corpus: Corpus, steps: int, seed: int) -> Batches:
    """Shuffled pairs of as many passes over the text as ``steps`` batches take."""
    random = np.random.default_rng(seed)
    keep = keep_probability(corpus.counts)
    wanted = steps * BLOCKS * PAIRS
    passes = []
    drawn = 0
    while drawn < wanted:
        centre, context = draw_pairs(random, corpus.text, keep)
        order = random.permutation(len(centre))
        passes.append((centre[order], context[order]))
        drawn += len(centre)
    centre, context = (
        np.concatenate(parts)[:wanted].reshape(steps, BLOCKS, PAIRS)
        for parts in zip(*passes, strict=True)
    )
    return Batches(
        centre,
        context,
        draw_noise(random, corpus.counts, (steps, BLOCKS, SHARED)),
        BLOCKS * PAIRS * len(corpus.text) * len(passes) / drawn,
    )


def initial(xp: ModuleType, seed: int, words: int) -> Arrays:
    """The two tables, the same on every backend: centre vectors small, context vectors zero."""
    random = np.random.default_rng(seed)
    centre = random.uniform(-0.5 / DIM, 0.5 / DIM, (words, DIM))
    return {
        "centre": xp.asarray(centre, dtype=xp.float32),
        "context": xp.zeros((words, DIM), xp.float32),
    }


def loss(xp: ModuleType, tables: Arrays, centre: Any, context: Any, noise: Any) -> Any:
    """Equation 4 of the paper, negated, for every pair: an array (blocks, pairs).

    Parameters
    ----------
    tables : dict
        "centre" and "context", both (words, dim).
    centre, context : int array, shape (blocks, pairs)
    noise : int array, shape (blocks, shared)
        The noise words of a block's pairs.
    """
    *_, score, noise_score = _scores(tables, centre, context, noise)
    weight = NEGATIVES / noise.shape[1]
    return _softplus(xp, -score) + weight * _softplus(xp, noise_score).sum(axis=2)


def gradients(
    xp: ModuleType, tables: Arrays, centre: Any, context: Any, noise: Any
) -> dict[str, tuple[Any, Any]]:
    """Gradients of the sum of `loss` over a batch, as (rows, values) of each table.

    Rows come as often as their words do, and are to be summed.
    """
    v, u, n, score, noise_score = _scores(tables, centre, context, noise)
    d_score = (_sigmoid(xp, score) - 1)[..., None]
    d_noise = _sigmoid(xp, noise_score)
    d_noise *= NEGATIVES / noise.shape[1]
    dim = v.shape[-1]
    d_centre = d_noise @ n
    d_centre += d_score * u
    d_context = d_score * v
    d_noise_words = d_noise.transpose(0, 2, 1) @ v
    return {
        "centre": (centre.ravel(), d_centre.reshape(-1, dim)),
        "context": (
            xp.concatenate((context.ravel(), noise.ravel())),
            xp.concatenate((d_context.reshape(-1, dim), d_noise_words.reshape(-1, dim))),
        ),
    }


def _scores(tables: Arrays, centre: Any, context: Any, noise: Any) -> tuple[Any, ...]:
    """Vectors of centre, context and noise words, the pairs' scores and the noise words'."""
    v, u, n = tables["centre"][centre], tables["context"][context], tables["context"][noise]
    return v, u, n, (v * u).sum(axis=-1), v @ n.transpose(0, 2, 1)


def _sigmoid(xp: ModuleType, x: Any) -> Any:
    # By tanh, which cannot overflow.
    return 0.5 * xp.tanh(0.5 * x) + 0.5


def _softplus(xp: ModuleType, x: Any) -> Any:
    """-log sigmoid(-x)"""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))
