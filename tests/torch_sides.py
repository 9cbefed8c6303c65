"""Torch's optimizer and ours, run through one scenario, and what is compared afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import gpuadapt.torch
from gpuadapt.torch import FallbackWarning

CLASSES = [name for name in gpuadapt.torch.__all__ if name in dir(torch.optim)]
CLASSES.remove("Optimizer")
DENSE = [name for name in CLASSES if name != "SparseAdam"]

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True}],
    "Adagrad": [{}, {"initial_accumulator_value": 0.1, "lr_decay": 0.1}],
    "RMSprop": [{}, {"centered": True}, {"momentum": 0.9}, {"centered": True, "momentum": 0.9}],
    "Adam": [{}, {"amsgrad": True}, {"decoupled_weight_decay": True}],
    "AdamW": [{}, {"amsgrad": True}],
    "NAdam": [{}, {"momentum_decay": 6e-3}, {"decoupled_weight_decay": True}],
    "RAdam": [{}, {"decoupled_weight_decay": True}],
}
"""Options of each class that choose a formula, each also with weight decay and maximize."""

CASES = [
    (name, options | common)
    for name in DENSE
    for options in OPTIONS.get(name, [{}])
    for common in ({}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "maximize": True})
]


@dataclass
class Side:
    """One of torch's classes, or ours of the same name; a call makes an optimizer."""

    name: str
    kind: type[torch.optim.Optimizer]
    made: list[torch.optim.Optimizer] = field(default_factory=list)

    def __call__(self, params: Any, **options: Any) -> Any:
        optimizer = self.kind(params, **options)
        self.made.append(optimizer)
        return optimizer

    @property
    def sparse(self) -> bool:
        """Whether it takes sparse gradients alone."""
        return self.name == "SparseAdam"

    def give(self, parameter: Tensor, gradient: Tensor) -> None:
        """Set a gradient, sparse where the class takes no other."""
        parameter.grad = gradient.to_sparse(1) if self.sparse else gradient


@dataclass
class Outcome:
    """What a scenario has left."""

    result: Any = None
    error: BaseException | None = None
    warned: list[tuple[type[Warning], str]] = field(default_factory=list)
    """Without those about torch's own steps."""
    fell_back: list[str] = field(default_factory=list)
    """Why torch's own steps were taken, if they were."""


def outcome(scenario: Callable[[Side], Any], module: Any, name: str) -> Outcome:
    """Run a scenario with a class of `torch.optim` or `gpuadapt.torch`."""
    side, found = Side(name, getattr(module, name)), Outcome()
    checks = torch.sparse.check_sparse_tensor_invariants(False)  # or torch warns, once
    with checks, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found.result = scenario(side)
        except Exception as error:
            found.error = error
    for one in caught:
        if one.category is FallbackWarning:
            found.fell_back.append(str(one.message))
        else:
            found.warned.append((one.category, str(one.message)))
    return found


def seen(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return copies of all parameters and states of an optimizer, and what its groups say."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        "params": [p.detach().clone() for p in params],
        "states": [snapshot(optimizer.state.get(p)) for p in params],
        "groups": [
            {key: snapshot(value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ],
    }


def snapshot(value: Any) -> Any:
    """Return a copy of nested tensors."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: snapshot(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [snapshot(each) for each in value]
    return value


def ulps(found: Tensor | Iterable[Tensor], expected: Tensor | Iterable[Tensor]) -> float:
    """Return the largest difference in units of the last place of the largest number expected.

    Sequences of tensors have one largest number in common. Both are NaN or infinite at the same
    places, or the difference is infinite.
    """
    one, other = _flat(found), _flat(expected)
    if not other.numel():
        return 0.0
    kind = expected if isinstance(expected, Tensor) else next(iter(expected))
    finite = torch.isfinite(other)
    if not torch.equal(one[~finite].nan_to_num(0.5), other[~finite].nan_to_num(0.5)):
        return float("inf")
    one, other = one[finite], other[finite]
    if not other.numel() or torch.equal(one, other):
        return 0.0
    unit = max(other.abs().max().item(), 1e-300) * torch.finfo(kind.dtype).eps
    difference = (one - other).abs().max().item()
    return difference / unit if difference == difference else float("inf")


def _flat(tensors: Tensor | Iterable[Tensor]) -> Tensor:
    """All numbers of some tensors as one of float64."""
    several = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    plain = [one.detach().to_dense() if one.is_sparse else one.detach() for one in several]
    real = [torch.view_as_real(one.resolve_conj()) if one.is_complex() else one for one in plain]
    return torch.cat([one.double().reshape(-1) for one in real])


UNITS = 4
"""Units of the last place of a tensor's largest number that both may differ in a few steps."""


def assert_same(found: Any, expected: Any, path: str = "") -> None:
    """Compare what two scenarios have left: types, layouts, and values within `UNITS`."""
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor), path
        assert (found.dtype, found.shape, found.device, found.layout) == (
            expected.dtype, expected.shape, expected.device, expected.layout,
        ), path  # fmt: skip
        if expected.layout is torch.strided:
            assert found.stride() == expected.stride(), path
        if expected.device.type != "meta":
            if expected.is_floating_point() or expected.is_complex():
                assert ulps(found, expected) <= UNITS, (path, found, expected)
            else:
                assert torch.equal(found, expected), path
    elif isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), path
        for key in expected:
            assert_same(found[key], expected[key], f"{path}[{key!r}]")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), (path, found, expected)
        for k, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{path}[{k}]")
    else:
        assert type(found) is type(expected), (path, found, expected)
        assert found == expected, (path, found, expected)
