"""Hundred steps beside torch's own loop: how far values and states are from each other.

A kernel rounds each operation; torch's loop fuses some of them, by the processor. Rules are
evaluated by NumPy here, which has the kernels' bits and compiles nothing.
"""

import pytest
import torch
from torch_sides import CASES, ulps

import gpuadapt.torch

VALUES = {torch.float32: 2, torch.float64: 4}
"""Units of the last place of the largest weight."""

STATES = 4


def train(optimizer, params, dtype):
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(dtype).to(p.dtype)
        optimizer.step()
    return optimizer, params


def root_mean_square(found, expected):
    pairs = zip(found, expected, strict=True)
    differences = [(a.detach().double() - b.detach()).reshape(-1) for a, b in pairs]
    return torch.cat(differences).square().mean().sqrt()


def drifts(name, options):
    """Whether a rounding of torch's or ours is repeated, so that both drift apart.

    Torch's decoupled decay multiplies by a rounded 1 - lr weight_decay; RMSprop's momentum adds up
    quotients that both round.
    """
    decoupled = name == "AdamW" or options.get("decoupled_weight_decay")
    return bool(decoupled or (name == "RMSprop" and options.get("momentum")))


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.usefixtures("by_numpy")
def test_a_hundred_steps(name, options, dtype):
    if dtype == torch.float64 and drifts(name, options):
        return  # there is no wider run to compare with
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=generator).to(dtype) for s in ((7, 5), (3,), (), (1000,))]

    def run(module, like, **more):
        params = [torch.nn.Parameter(p.to(like, copy=True)) for p in start]
        return train(getattr(module, name)(params, **options, **more), params, dtype)

    ours, ps = run(gpuadapt.torch, dtype)
    torchs, qs = run(torch.optim, dtype, foreach=False)
    exact, rs = run(torch.optim, torch.float64, foreach=False)
    assert ours.fallback is None
    found, expected = [p.detach() for p in ps], [q.detach() for q in qs]
    nearer = root_mean_square(ps, rs) <= 1.05 * root_mean_square(qs, rs)
    assert ulps(found, expected) <= VALUES[dtype] or (drifts(name, options) and nearer)
    for key in torchs.state[qs[0]]:
        one, other, third = (
            [o.state[p][key] for p in params]
            for o, params in ((ours, ps), (torchs, qs), (exact, rs))
        )
        if key == "acc_delta":  # it is made of itself: errors grow, torch's as ours
            limit = STATES if dtype == torch.float32 else 4 * STATES
            nearer = root_mean_square(one, third) <= 1.2 * root_mean_square(other, third)
            assert ulps(one, other) <= limit or nearer
        else:
            assert ulps(one, other) <= STATES, key
