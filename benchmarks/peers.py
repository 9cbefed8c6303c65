"""Other libraries doing the same work; each is optional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def versions() -> dict[str, str | None]:
    """The version of each peer; None where it is not installed."""
    torch = _torch()
    return {"torch": torch.__version__ if torch else None}


def torch_adam(start: np.ndarray, backend: str) -> dict[str, Callable[[], Any]]:
    """torch.optim.Adam, fused and foreach, on a parameter of its own."""
    torch = _torch()
    if torch is None:
        return {}
    device = "cuda" if backend == "cuda" else "cpu"
    found = {}
    for form in ("fused", "foreach"):
        parameter = torch.nn.Parameter(torch.tensor(start, device=device))
        parameter.grad = torch.randn_like(parameter)
        found[f"torch {form}"] = torch.optim.Adam([parameter], **{form: True}).step
    return found


def torch_steps(start: np.ndarray, lr: float) -> Callable[[Any], Any] | None:
    """A function of a gradient that takes a step in float64, and of None that shows the result."""
    torch = _torch()
    if torch is None:
        return None
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.Adam([parameter], lr=lr, fused=True)

    def step(gradient: Any) -> Any:
        if gradient is not None:
            parameter.grad = torch.tensor(gradient)
            optimizer.step()
        return parameter.detach().numpy()

    return step


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch
