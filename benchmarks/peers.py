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
    """A step of torch.optim.Adam in each form, on a parameter of its own."""
    steps = {}
    for form, (parameter, optimizer) in _torch_optimizers(start, 1e-3, backend).items():
        parameter.grad = _torch().randn_like(parameter)
        steps[form] = optimizer.step
    return steps


def torch_results(
    start: np.ndarray, gradients: list[np.ndarray], lr: float, backend: str
) -> dict[str, np.ndarray]:
    """The parameter after a step with each gradient, for each form."""
    results = {}
    for form, (parameter, optimizer) in _torch_optimizers(start, lr, backend).items():
        for gradient in gradients:
            parameter.grad = _torch().tensor(gradient).to(parameter)
            optimizer.step()
        results[form] = parameter.detach().cpu().numpy()
    return results


def _torch_optimizers(start: np.ndarray, lr: float, backend: str) -> dict[str, tuple[Any, Any]]:
    """A float32 parameter on the backend's device and its optimizer, fused and foreach."""
    torch = _torch()
    if torch is None:
        return {}
    found = {}
    for form in ("fused", "foreach"):
        data = torch.tensor(
            start, dtype=torch.float32, device="cuda" if backend == "cuda" else "cpu"
        )
        parameter = torch.nn.Parameter(data)
        found[f"torch {form}"] = parameter, torch.optim.Adam([parameter], lr=lr, **{form: True})
    return found


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch
