"""`gpuadapt.torch` in compiled training, in several threads, and in forked children."""

import os
import threading
import time

import pytest
import torch
import torch._dynamo
from torch.nn import Parameter
from torch_sides import assert_same, seen

import gpuadapt.torch

NAMES = ["SGD", "Adam"]


def trained(module, name, compiled, steps=10):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    optimizer = getattr(module, name)(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    frames = []

    def train(x):
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        torch._dynamo.reset()

        def count(graph, inputs):
            frames.append(len(losses))
            return graph

        train = torch.compile(train, backend=count)
    losses = []
    for k in range(steps):
        losses.append(train(torch.full((2, 4), 1.0 + k)).detach())
        schedule.step()
    return losses, seen(optimizer), frames


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_a_compiled_training_step(name):
    """The same values, and nothing is compiled again when a scheduler changes the rate."""
    plain, states, _ = trained(torch.optim, name, False)
    losses, found, frames = trained(gpuadapt.torch, name, True)
    assert_same(losses, plain)
    assert_same(found["params"], states["params"])
    assert_same(found["states"], states["states"])
    assert max(frames) <= 1


def stepped(optimizer, count, seed):
    (p,) = optimizer.param_groups[0]["params"]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def test_two_threads_step_two_optimizers():
    def made():
        return [gpuadapt.torch.Adam([Parameter(torch.ones(200_000))]) for _ in range(2)]

    one, other = made(), made()
    for seed, optimizer in enumerate(one):
        stepped(optimizer, 5, seed)
    threads = [
        threading.Thread(target=stepped, args=(optimizer, 5, seed))
        for seed, optimizer in enumerate(other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(one, other, strict=True):
        assert all(map(torch.equal, seen(a)["params"], seen(b)["params"]))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_step_in_a_forked_child():
    p = Parameter(torch.ones(300_000))
    p.share_memory_()
    optimizer = gpuadapt.torch.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()  # in the threads of the parent
    before = p.detach().clone()
    child = os.fork()
    if child == 0:
        try:
            optimizer.step()
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("a forked child does not end its step")
        time.sleep(0.01)
    assert bool((p.detach() < before).all())
