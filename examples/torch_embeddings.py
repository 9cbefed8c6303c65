"""A small recommender in PyTorch: sparse tables, exact rows, states of 8 bits.

    pip install "gpuadapt[torch]"
    python examples/torch_embeddings.py

Users like items of a few topics, and the model does not know which. From pairs (user, item) it
learns a vector for each user and each item. A batch reads a small part of both tables, so their
gradients are sparse. torch.optim.Adam refuses sparse gradients. torch.optim.SparseAdam refuses the
dense gradients of the other parameters, and leaves rows as they are that a batch does not read.

Here one Adam updates everything. With ``sparse="exact"`` each row ends up where dense steps would
move it, but only rows that are read or have a gradient cost time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

import gpuadapt.torch

TOPICS, LIKED, WIDTH = 40, 3, 32
BATCH, NEGATIVES = 2_048, 4


class World(NamedTuple):
    """What the data are drawn from."""

    likes: Tensor
    """int64, shape (users, LIKED): topics that a user likes."""
    topics: Tensor
    """int64, shape (items,): the topic of an item; items of a topic are TOPICS apart."""
    draw: torch.Generator


class Recommender(torch.nn.Module):
    """The score of a pair: a product of two vectors, and how much everyone likes the item."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.users = torch.nn.Embedding(users, WIDTH, sparse=True)
        self.items = torch.nn.Embedding(items, WIDTH, sparse=True)
        self.popular = torch.nn.Linear(WIDTH, 1)
        with torch.no_grad():
            self.users.weight.mul_(0.1)
            self.items.weight.mul_(0.1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return scores, float32 of the shape of ``items``; ``users`` broadcast with it."""
        vectors = self.items(items)
        scores: Tensor = (self.users(users) * vectors).sum(-1) + self.popular(vectors).squeeze(-1)
        return scores


def world(users: int, items: int, seed: int) -> World:
    """Return what each user likes, and the topic of each item."""
    draw = torch.Generator().manual_seed(seed)
    likes = torch.randint(TOPICS, (users, LIKED), generator=draw)
    return World(likes, torch.arange(items) % TOPICS, draw)


def batch(data: World) -> tuple[Tensor, Tensor, Tensor]:
    """Return users, an item that each of them chose, and items at random.

    Within a topic, the k-th item is chosen about 1 / k as often as the first.
    """
    users = torch.randint(len(data.likes), (BATCH,), generator=data.draw)
    choice = torch.randint(LIKED, (BATCH, 1), generator=data.draw)
    topic = data.likes[users].gather(1, choice).squeeze(1)
    each = len(data.topics) // TOPICS
    rank = (each ** torch.rand(BATCH, generator=data.draw)).long() - 1
    random = torch.randint(len(data.topics), (BATCH, NEGATIVES), generator=data.draw)
    return users, rank * TOPICS + topic, random


def loss_of(model: Recommender, users: Tensor, chosen: Tensor, random: Tensor) -> Tensor:
    """Return the mean logistic loss of chosen items against random ones."""
    good = softplus(-model(users, chosen)).mean()
    bad: Tensor = softplus(model(users.unsqueeze(1), random)).mean()
    return (good + bad) / 2


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the memory of all states."""
    return sum(
        tensor.numel() * tensor.element_size()
        for states in optimizer.state.values()
        for tensor in states.values()
        if isinstance(tensor, Tensor)
    )


def train(steps: int, users: int, items: int, seed: int = 0) -> tuple[float, float]:
    """Train, print losses, and return the first and the last that were printed."""
    torch.manual_seed(seed)
    data, model = world(users, items, seed), Recommender(users, items)
    groups: list[dict[str, Any]] = [
        {"params": [model.users.weight, model.items.weight], "state_dtype": "8bit"},
        {"params": model.popular.parameters()},
    ]
    optimizer = gpuadapt.torch.Adam(groups, lr=2e-2, sparse="exact")
    optimizer.watch(model)  # rows catch up before they are read
    every, losses, recent = max(1, steps // 10), [], 0.0
    began = time.perf_counter()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = loss_of(model, *batch(data))
        loss.backward()
        optimizer.step()
        recent += loss.item()
        if step % every == 0:
            losses.append(recent / every)
            print(f"step {step:>5}: loss {losses[-1]:.4f}, {time.perf_counter() - began:.1f} s")
            recent = 0.0
    plain = 8 * sum(parameter.numel() for parameter in model.parameters())
    print(f"states: {state_bytes(optimizer) / 1e6:.2f} MB, in float32 {plain / 1e6:.2f} MB")
    return losses[0], losses[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=4_000, help=f"a multiple of {TOPICS}")
    given = parser.parse_args(arguments)
    if given.steps < 1 or given.users < 1 or given.items < TOPICS or given.items % TOPICS:
        parser.error(f"steps and users are from 1, items a multiple of {TOPICS}")
    train(given.steps, given.users, given.items)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
