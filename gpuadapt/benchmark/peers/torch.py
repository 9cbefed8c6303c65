"""torch.optim: fused, foreach and single-tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..candidates import Given, Hyper, Make, MakeRows, RowTrainer, Trainer
from .installed import load

NAME = "torch"
PACKAGES = ("torch",)
DTYPES = ("float32", "float64")
FUSED = ("adam", "adagrad", "sgd")
"""What torch has a fused kernel for; an older one has none for Adagrad on a GPU, and says so."""
CLASSES = {
    "sgd": "SGD",
    "adagrad": "Adagrad",
    "rmsprop": "RMSprop",
    "adadelta": "Adadelta",
    "adam": "Adam",
}


def library() -> Any:
    return load("torch")


def makers(method: str, backend: str) -> dict[str, Make]:
    device = "cuda" if backend == "cuda" else "cpu"
    if device == "cuda" and not library().cuda.is_available():
        return {}
    flags = {"torch foreach": {"foreach": True}, "torch single": {"foreach": False}}
    if method in FUSED:
        flags = {"torch fused": {"fused": True}} | flags
    kind = getattr(library().optim, CLASSES[method])
    return {
        name: partial(make, partial(kind, **flag), method, device) for name, flag in flags.items()
    }


def makers_of_few_bits(method: str, backend: str) -> dict[str, Make]:
    """Everything in bfloat16, rounded to the nearest."""
    fused: Any = makers(method, backend).get("torch fused")
    return {} if fused is None else {"torch bfloat16 fused": partial(fused, dtype="bfloat16")}


def make(
    kind: Callable[..., Any],
    method: str,
    device: str,
    start: Given,
    hyper: Hyper,
    dtype: str | None = None,
) -> Trainer:
    """Of anything that is made like torch's optimizer for this method."""
    torch = library()
    kept = None if dtype is None else getattr(torch, dtype)
    parameters = [torch.nn.Parameter(torch.tensor(w, dtype=kept, device=device)) for w in start]
    optimizer = kind(parameters, **keywords(method, hyper))

    def load(gradients: Given) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient, dtype=kept, device=device)

    return Trainer(
        load,
        optimizer.step,
        lambda: [
            p.detach().cpu().to(torch.promote_types(p.dtype, torch.float32)).numpy()
            for p in parameters
        ],
        {} if method in ("adadelta", "sgd") else {"eps_mode": "outside"},
    )


def keywords(method: str, hyper: Hyper) -> dict[str, Any]:
    """The hyperparameters under the names that torch has for them."""
    given: dict[str, Any] = {name: hyper[name] for name in ("lr", "eps") if name in hyper}
    if method == "adam":
        given["betas"] = (hyper["beta1"], hyper["beta2"])
    elif method in ("rmsprop", "adadelta"):
        given["alpha" if method == "rmsprop" else "rho"] = hyper["rho"]
    return given


def row_makers(method: str, backend: str) -> dict[str, MakeRows]:
    device = "cuda" if backend == "cuda" else "cpu"
    if method not in ("adam", "adagrad") or (
        device == "cuda" and not library().cuda.is_available()
    ):
        return {}
    name = {"adam": "SparseAdam", "adagrad": "Adagrad"}[method]
    kind = getattr(library().optim, name)
    return {f"torch {name}": partial(make_rows, kind, method, device)}


def make_rows(
    kind: Callable[..., Any],
    method: str,
    device: str,
    start: Any,
    batches: Sequence[tuple[np.ndarray, Any]],
    hyper: Hyper,
) -> RowTrainer:
    """With sparse gradients, not coalesced: the optimizer does that.

    Of anything that is made like torch's optimizer for this method.
    """
    torch = library()
    table = torch.nn.Parameter(torch.tensor(start, device=device))
    optimizer = kind([table], **keywords(method, hyper))
    gradients = [
        torch.sparse_coo_tensor(
            torch.tensor(numbers[None], device=device),
            torch.tensor(values, device=device),
            start.shape,
            device=device,
            check_invariants=False,
        )
        for numbers, values in batches
    ]

    def step(k: int) -> None:
        table.grad = gradients[k]
        optimizer.step()

    form = "uncorrected" if method == "adam" else "outside"
    return RowTrainer(step, lambda: table.detach().cpu().numpy(), {"eps_mode": form})
