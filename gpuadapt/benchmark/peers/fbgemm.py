"""FBGEMM's table-batched embedding: its backward pass is the update of the touched rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..candidates import Hyper, MakeRows, RowTrainer
from . import torch
from .installed import load

NAME = "fbgemm_gpu"
PACKAGES = ("fbgemm-gpu-cpu", "fbgemm-gpu")


def library() -> Any:
    return load("fbgemm_gpu.split_table_batched_embeddings_ops_training")


def row_makers(method: str, backend: str) -> dict[str, MakeRows]:
    if (method, backend) != ("adagrad", "cpu"):
        return {}
    return {
        "fbgemm": partial(make_rows, "EXACT_ADAGRAD"),
        "fbgemm row-wise": partial(make_rows, "EXACT_ROWWISE_ADAGRAD"),
    }


def make_rows(
    kind: str,
    start: np.ndarray,
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    hyper: Hyper,
) -> RowTrainer:
    """The forward passes are done here, once: a step is backward and update alone."""
    ops, tensor = library(), torch.library().tensor
    table = ops.SplitTableBatchedEmbeddingBagsCodegen(
        [(*start.shape, ops.EmbeddingLocation.HOST, ops.ComputeDevice.CPU)],
        optimizer=ops.OptimType[kind],
        learning_rate=hyper["lr"],
        eps=hyper["eps"],
        pooling_mode=ops.PoolingMode.NONE,
        device=torch.library().device("cpu"),
    )
    (weights,) = table.split_embedding_weights()
    weights.data.copy_(tensor(start))
    forward = [
        (table(tensor(numbers), torch.library().arange(numbers.size + 1)), tensor(values))
        for numbers, values in batches
    ]

    def step(k: int) -> None:
        output, gradient = forward[k]
        output.backward(gradient, retain_graph=True)

    return RowTrainer(
        step,
        lambda: weights.detach().numpy(),
        {"eps_mode": "outside"},
        rowwise=kind == "EXACT_ROWWISE_ADAGRAD",
    )
