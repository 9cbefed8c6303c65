"""A network of bfloat16 that torch and gpuadapt train: where the loss ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import peers

INPUTS, WIDTH, CLASSES = 32, 64, 10
EXAMPLES, BATCH = 4_096, 128


class Case(NamedTuple):
    """Steps of Adam with a learning rate."""

    steps: int
    lr: float

    @property
    def label(self) -> str:
        return f"{self.steps:,} steps of Adam with lr {self.lr:g}"

    @property
    def name(self) -> str:
        return f"bfloat16 network, {self.label}"


def cases(quick: bool) -> list[Case]:
    """Learning rates at which rounding to the nearest loses many updates, and few."""
    return [Case(200, 2e-4)] if quick else [Case(3_000, lr) for lr in (2e-4, 1e-3)]


def run(case: Case) -> dict[str, Any]:
    """Train one network in each format, with the same batches in the same order.

    Returns
    -------
    dict
        "name", "label", "times" (none); "losses" over all examples and "seconds" of training, by
        format; "figures": the losses, and how far each is above float32's.
    """
    losses, seconds = {}, {}
    for name, (dtype, make) in formats(case.lr).items():
        began = time.perf_counter()
        losses[name] = final_loss(dtype, make, case.steps)
        seconds[name] = time.perf_counter() - began
    base = losses["torch float32"]
    figures = []
    for name, loss in losses.items():
        label = f"{case.name}: {name}"
        figures.append({"name": f"{label}, final loss", "value": loss, "unit": ""})
        if name != "torch float32":
            above = {"name": f"{label}, above float32", "value": 100 * (loss / base - 1)}
            figures.append(above | {"unit": "%"})
    return {
        "name": case.name,
        "backend": "cpu",
        "times": {},
        "figures": figures,
        "label": case.label,
        "losses": losses,
        "seconds": seconds,
    }


def formats(lr: float) -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """By name: the parameters' type, and what makes an optimizer of them."""
    import gpuadapt.torch

    def theirs(params: Any) -> Any:
        return peers.torch.library().optim.Adam(params, lr=lr, fused=True)

    def ours(**options: Any) -> Callable[[Any], Any]:
        return lambda params: gpuadapt.torch.Adam(params, lr=lr, **options)

    return {
        "torch float32": ("float32", theirs),
        "torch bfloat16": ("bfloat16", theirs),
        "gpuadapt nearest": ("bfloat16", ours()),
        "gpuadapt stochastic": ("bfloat16", ours(rounding="stochastic")),
        "gpuadapt Kahan": ("bfloat16", ours(rounding="kahan")),
        "gpuadapt stochastic, 8-bit states": (
            "bfloat16",
            ours(rounding="stochastic", state_dtype="8bit"),
        ),
        "gpuadapt float32, 8-bit states": ("float32", ours(state_dtype="8bit")),
    }


def final_loss(dtype: str, make: Callable[[Any], Any], steps: int) -> float:
    """The loss over all examples after training, computed in float32."""
    torch = peers.torch.library()
    functional = torch.nn.functional
    x, y = examples(torch)
    model = network(torch, 0).to(getattr(torch, dtype))
    optimizer = make(model.parameters())
    inputs, draw = x.to(getattr(torch, dtype)), torch.Generator().manual_seed(3)
    for _ in range(steps):
        chosen = torch.randint(0, EXAMPLES, (BATCH,), generator=draw)
        loss = functional.cross_entropy(model(inputs[chosen]).float(), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(functional.cross_entropy(model.float()(x), y))


def examples(torch: Any) -> tuple[Any, Any]:
    """Normal inputs, and the largest of a random network's outputs with noise."""
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(EXAMPLES, INPUTS, generator=draw)
    first = torch.randn(INPUTS, WIDTH, generator=draw) / INPUTS**0.5
    second = torch.randn(WIDTH, CLASSES, generator=draw) / WIDTH**0.5
    noise = torch.randn(EXAMPLES, CLASSES, generator=draw)
    return x, ((2 * x @ first).tanh() @ second * 2 + 0.5 * noise).argmax(1)


def network(torch: Any, seed: int) -> Any:
    """Three linear layers, with weights drawn from a generator of its own."""
    draw, parts = torch.Generator().manual_seed(seed), []
    for before, after in ((INPUTS, WIDTH), (WIDTH, WIDTH), (WIDTH, CLASSES)):
        layer = torch.nn.Linear(before, after)
        with torch.no_grad():
            for parameter in layer.parameters():
                drawn = 2 * torch.rand(parameter.shape, generator=draw) - 1
                parameter.copy_(drawn / before**0.5)
        parts += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])
