"""What both `torch.optim` and `gpuadapt.torch` do with odd tensors, settings and surroundings.

Each row is a scenario that is run with torch's class and with ours; what they leave is compared:
parameters, states, groups, warnings, or the exception and its text.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch_sides import CLASSES, DENSE, Side, assert_same, outcome, seen

import gpuadapt.torch

MOVING = ["Adam", "AdamW", "NAdam", "RAdam", "Adamax"]
LAZY = ["SGD", "Adagrad", "SparseAdam"]
REFUSING = [name for name in CLASSES if name not in LAZY]
FUSED = ["SGD", "Adagrad", "Adam", "AdamW"]


@dataclass
class Row:
    """A scenario."""

    scenario: Callable[[Side], Any]
    names: Collection[str]
    fallback: bool
    """Whether torch's own step is taken."""


ROWS: list[Row] = []


def row(
    names: Collection[str] = tuple(CLASSES), fallback: bool = False
) -> Callable[[Callable[[Side], Any]], Callable[[Side], Any]]:
    def add(scenario: Callable[[Side], Any]) -> Callable[[Side], Any]:
        ROWS.append(Row(scenario, names, fallback))
        return scenario

    return add


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def steps(side: Side, optimizer: torch.optim.Optimizer, count: int = 2) -> dict[str, Any]:
    """Take steps with gradients for every parameter; return what is there then."""
    for number in range(count):
        for k, p in enumerate(q for group in optimizer.param_groups for q in group["params"]):
            side.give(p, numbers(*p.shape, seed=100 * number + k, dtype=p.dtype))
        optimizer.step()
    return seen(optimizer)


# Gradients that are not there, and odd parameters


@row()
def no_gradients(side):
    p, q = Parameter(numbers(3)), Parameter(numbers(2, 2))
    optimizer = side([p, q])
    optimizer.step()
    before = seen(optimizer)
    side.give(q, numbers(2, 2, seed=1))
    optimizer.step()
    q.grad = None
    optimizer.step()
    return before, seen(optimizer)


@row()
def frozen_and_thawed(side):
    p, q = Parameter(numbers(3)), Parameter(numbers(2))
    optimizer = side([p, q])
    steps(side, optimizer, 1)
    q.requires_grad_(False)
    q.grad = None
    optimizer.step()
    optimizer.step()
    q.requires_grad_(True)
    side.give(q, numbers(2, seed=2))
    optimizer.step()
    return seen(optimizer)


@row()
def parameters_that_need_no_gradient(side):
    p, q = Parameter(numbers(3)), Parameter(numbers(2), requires_grad=False)
    optimizer = side([p, q])
    side.give(p, numbers(3, seed=1))
    optimizer.step()
    return seen(optimizer)


@row()
def empty_parameters(side):
    optimizer = side([Parameter(numbers(0)), Parameter(numbers(2)), Parameter(numbers(0, 3))])
    return steps(side, optimizer)


@row()
def only_empty_parameters(side):
    return steps(side, side([Parameter(numbers(0))]))


@row(DENSE)
def parameters_of_one_element(side):
    return steps(
        side, side([Parameter(numbers()), Parameter(numbers(1)), Parameter(numbers(1, 1))])
    )


@row()
def the_same_parameter_twice(side):
    p = Parameter(numbers(3))
    return steps(side, side([p, p]))


@row(["SGD", "RMSprop"])
def the_same_parameter_twice_with_momentum(side):
    p, q = Parameter(numbers(3)), Parameter(numbers(3))
    settings = {"dampening": 0.5} if side.name == "SGD" else {}
    return steps(side, side([p, q, p], momentum=0.9, **settings), 3)


@row()
def parameters_that_share_memory(side):
    memory = numbers(6)
    return steps(side, side([Parameter(memory), Parameter(memory[2:]), Parameter(memory[:3])]))


@row(DENSE)
def tied_weights(side):
    model = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)])
    for p in model.parameters():
        p.data.copy_(numbers(*p.shape))
    model[1].weight = model[0].weight
    optimizer = side(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        model[1](model[0](torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
    return seen(optimizer)


@row()
def sliced_parameters(side):
    whole = numbers(2, 3, 2)
    result = steps(side, side([Parameter(whole[..., 0]), Parameter(numbers(4, 5)[1:3, ::2])]))
    return result, whole


@row(DENSE)
def channels_last_with_contiguous_gradient(side):
    p = Parameter(numbers(2, 3, 2, 2).to(memory_format=torch.channels_last))
    return steps(side, side([p]))


@row(DENSE)
def contiguous_with_channels_last_gradient(side):
    p = Parameter(numbers(2, 3, 2, 2))
    optimizer = side([p])
    p.grad = numbers(2, 3, 2, 2, seed=1).to(memory_format=torch.channels_last)
    optimizer.step()
    return seen(optimizer), p.grad


@row(DENSE)
def permuted_parameters(side):
    p, q = Parameter(numbers(2, 3, 4).permute(2, 0, 1)), Parameter(numbers(3, 2).t())
    optimizer = side([p, q])
    first = steps(side, optimizer)
    p.grad = numbers(2, 3, 4, seed=5).permute(2, 0, 1)
    q.grad = numbers(3, 2, seed=6).t()
    optimizer.step()
    return first, seen(optimizer)


@row(DENSE)
def channels_last_3d(side):
    p = Parameter(numbers(2, 3, 2, 2, 2).to(memory_format=torch.channels_last_3d))
    return steps(side, side([p]))


@row(DENSE)
def odd_strides_where_the_size_is_one(side):
    p = Parameter(torch.as_strided(numbers(6), (3, 1, 2), (2, 17, 1)))
    q = Parameter(torch.as_strided(numbers(6), (1, 6), (99, 1)))
    optimizer = side([p, q])
    p.grad = torch.as_strided(numbers(6, seed=1), (3, 1, 2), (2, 5, 1))
    q.grad = torch.as_strided(numbers(6, seed=2), (1, 6), (1, 1))
    optimizer.step()
    return seen(optimizer)


@row(DENSE)
def gradient_with_gaps(side):
    p = Parameter(numbers(3, 2))
    optimizer = side([p])
    p.grad = numbers(3, 4, seed=1)[:, ::2]
    optimizer.step()
    return seen(optimizer), p.grad


@row(DENSE)
def expanded_gradient(side):
    p = Parameter(numbers(3, 2))
    optimizer = side([p])
    p.grad = numbers(1, 1, seed=1).expand(3, 2)
    optimizer.step()
    return seen(optimizer)


# AdamW of torch decays the parameter first, and so its gradient.
@row([name for name in DENSE if name != "AdamW"])
def gradient_that_is_the_parameter(side):
    p = Parameter(numbers(3, 2))
    optimizer = side([p])
    p.grad = p.detach()
    optimizer.step()
    return seen(optimizer)


@row(DENSE)
def expanded_parameter(side):
    p = Parameter(numbers(1).expand(3))
    optimizer = side([p])
    p.grad = torch.ones(3)
    optimizer.step()


@row(DENSE)
def gradient_with_negative_bit(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    p.grad = torch._neg_view(numbers(3, seed=1))
    optimizer.step()
    assert p.grad.is_neg()
    return seen(optimizer)


@row(DENSE)
def negative_bit_from_autograd(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    torch.complex(p, p).conj().imag.pow(2).sum().backward()
    optimizer.step()
    return seen(optimizer)


@row(DENSE)
def complex_parameters(side):
    p = Parameter(torch.complex(numbers(3, 2), numbers(3, 2, seed=1)))
    q = Parameter(numbers(2, dtype=torch.complex128))
    s = Parameter(torch.complex(numbers(2, 4), numbers(2, 4, seed=1))[:, ::2])
    optimizer = side([p, q, s])
    return steps(side, optimizer)


# Others of torch's raise.
@row(["SGD"])
def conjugate_gradients(side):
    p = Parameter(torch.complex(numbers(3, 2), numbers(3, 2, seed=1)))
    optimizer = side([p])
    p.grad = torch.complex(numbers(3, 2), numbers(3, 2, seed=1)).conj()
    optimizer.step()
    assert p.grad.is_conj()
    return seen(optimizer)


@row(["SGD", "Adagrad"], fallback=True)
def parameters_with_a_negative_bit(side):
    return steps(side, side([Parameter(torch._neg_view(numbers(3)))]))


@row(DENSE)
def gradients_that_are_not_finite(side):
    p = Parameter(numbers(4))
    optimizer = side([p])
    p.grad = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    optimizer.step()
    return seen(optimizer)


@row(DENSE, fallback=True)
def meta_parameters(side):
    p = Parameter(torch.ones(3, device="meta"))
    optimizer = side([p])
    p.grad = torch.ones(3, device="meta")
    optimizer.step()
    return seen(optimizer)


@row(FUSED)
def fused_on_meta(side):
    p = Parameter(torch.ones(3, device="meta"))
    optimizer = side([p], fused=True)
    p.grad = torch.ones(3, device="meta")
    optimizer.step()


@row(DENSE)
def inference_tensor(side):
    with torch.inference_mode():
        p = torch.ones(3)
        p.grad = torch.ones(3)
    optimizer = side([Parameter(torch.ones(2))])
    optimizer.param_groups[0]["params"] = [p]
    optimizer.step()


@row(DENSE)
def gradient_made_in_inference_mode(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    with torch.inference_mode():
        p.grad = numbers(3, seed=1)
    optimizer.step()
    return seen(optimizer)


# Others of torch's make states that later steps may not change.
@row(["SGD", "Adagrad"])
def step_in_inference_mode(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    p.grad = numbers(3, seed=1)
    with torch.inference_mode():
        optimizer.step()
    optimizer.step()
    return seen(optimizer)


@row(DENSE)
def backward_through_a_stale_graph(side):
    p = Parameter(numbers(3))
    loss = (p * p).sum()
    optimizer = side([p])
    p.grad = numbers(3, seed=1)
    optimizer.step()
    try:
        loss.backward()
    except RuntimeError as error:
        return str(error).partition(" is at version")[0]


@row(DENSE)
def version_counters(side):
    p, q = Parameter(numbers(3)), Parameter(numbers(3))
    optimizer = side([p, q])
    p.grad = numbers(3, seed=1)
    before = p._version, q._version
    optimizer.step()
    return p._version > before[0], q._version > before[1]


# Sparse gradients


def coo(rows, *shape, seed=1, size=5):
    """A sparse gradient with these rows, as they are."""
    values = numbers(len(rows), *shape, seed=seed)
    rows = torch.tensor([rows], dtype=torch.int64)
    return torch.sparse_coo_tensor(rows, values, (size, *shape), check_invariants=False)


@row(LAZY)
def sparse_gradients(side):
    p = Parameter(numbers(5, 2))
    optimizer = side([p])
    for gradient in (
        coo([1, 3, 1, 1], 2),
        coo([4, 0], 2, seed=2).coalesce(),
        coo([], 2),
        coo([3], 2, seed=3),
    ):
        p.grad = gradient
        optimizer.step()
    return seen(optimizer)


@row(LAZY)
def sparse_gradients_of_other_shapes(side):
    p, q = Parameter(numbers(5)), Parameter(numbers(5, 2, 2))
    optimizer = side([p, q])
    p.grad, q.grad = coo([2, 0, 2]), coo([2, 1, 2], 2, 2)
    optimizer.step()
    return seen(optimizer)


@row(LAZY)
def all_dimensions_sparse(side):
    p = Parameter(numbers(5))
    optimizer = side([p])
    p.grad = numbers(5, seed=1).to_sparse()
    optimizer.step()
    return seen(optimizer)


@row(LAZY)
def several_sparse_dimensions(side):
    p, q = Parameter(numbers(3, 2)), Parameter(numbers(3, 2, 4, 2)[..., 1])
    optimizer = side([p, q])
    for seed in (1, 2):
        some = numbers(3, 2, seed=seed).relu()
        p.grad = some.to_sparse(2)
        p.grad = torch.sparse_coo_tensor(  # each element twice
            p.grad.indices().repeat(1, 2), p.grad.values().repeat(2), (3, 2), check_invariants=False
        )
        q.grad = (numbers(3, 2, 4, seed=seed) * some[..., None]).to_sparse(seed + 1)
        optimizer.step()
    return seen(optimizer)


@row(["Adagrad"], fallback=True)
def sparse_gradients_of_complex_numbers(side):
    p = Parameter(numbers(3, 2, dtype=torch.complex64))
    optimizer = side([p])
    p.grad = numbers(3, 2, seed=1, dtype=torch.complex64).to_sparse(1)
    optimizer.step()
    return seen(optimizer)


@row(LAZY)
def embeddings(side):
    table = torch.nn.Embedding(6, 2, sparse=True, padding_idx=0)
    bags = torch.nn.EmbeddingBag(6, 2, sparse=True, mode="sum")
    for module in (table, bags):
        module.weight.data.copy_(numbers(6, 2))
    optimizer = side([table.weight, bags.weight])
    for ids in ([1, 1, 2], [0, 4], [5, 5, 5]):
        ids = torch.tensor(ids)
        optimizer.zero_grad()
        loss = table(ids).square().sum() + bags(ids, torch.tensor([0, 1])).square().sum()
        loss.backward()
        optimizer.step()
    return seen(optimizer)


@row(LAZY)
def sparse_table_in_another_order(side):
    p = Parameter(numbers(2, 5).t())
    optimizer = side([p])
    p.grad = coo([1, 3, 1], 2)
    optimizer.step()
    return seen(optimizer)


@row(LAZY)
def sliced_sparse_table(side):
    p = Parameter(numbers(5, 4)[:, ::2])
    optimizer = side([p])
    p.grad = coo([1, 3, 1], 2)
    optimizer.step()
    return seen(optimizer)


@row(["SGD", "Adagrad"])
def sparse_then_dense(side):
    p = Parameter(numbers(5, 2))
    optimizer = side([p])
    p.grad = coo([1, 3, 1], 2)
    optimizer.step()
    p.grad = numbers(5, 2, seed=3)
    optimizer.step()
    p.grad = coo([2, 2], 2, seed=4)
    optimizer.step()
    return seen(optimizer)


@row(["SGD", "Adagrad"])
def sparse_beside_dense(side):
    p, q = Parameter(numbers(5, 2)), Parameter(numbers(3))
    optimizer = side([p, q])
    p.grad, q.grad = coo([1, 3, 1], 2), numbers(3, seed=1)
    optimizer.step()
    return seen(optimizer)


@row(REFUSING)
def sparse_gradients_refused(side):
    p = Parameter(numbers(5, 2))
    optimizer = side([p])
    p.grad = coo([1, 3, 1], 2)
    optimizer.step()


@row(["Adagrad"])
def sparse_with_weight_decay(side):
    p = Parameter(numbers(5, 2))
    optimizer = side([p], weight_decay=0.1)
    p.grad = coo([1, 3, 1], 2)
    optimizer.step()


@row(["SGD"], fallback=True)
def sparse_with_momentum(side):
    p = Parameter(numbers(5, 2))
    optimizer = side([p], momentum=0.9)
    for rows in ([1, 3, 1], [2]):
        p.grad = coo(rows, 2)
        optimizer.step()
    return [one.to_dense() for one in (p.detach(), optimizer.state[p]["momentum_buffer"])]


@row(["SparseAdam"])
def dense_gradient_of_sparse_adam(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    p.grad = numbers(3, seed=1)
    optimizer.step()


@row(["SparseAdam"])
def sparse_parameter(side):
    side([numbers(3).to_sparse()])


@row(LAZY)
def maximized_sparse(side):
    p = Parameter(numbers(5, 2))
    optimizer = side([p], maximize=True)
    p.grad = coo([1, 3, 1], 2)
    optimizer.step()
    return seen(optimizer)


# Hyperparameters


@row()
def lr_tensor_changed_in_place(side):
    lr = torch.tensor(0.1)
    optimizer = side([Parameter(numbers(3))], lr=lr)
    steps(side, optimizer)
    lr.fill_(0.2)
    return steps(side, optimizer)


@row(["Adam", "AdamW"])
def betas_tensors_changed_in_place(side):
    betas = torch.tensor(0.8), torch.tensor(0.9)
    optimizer = side([Parameter(numbers(3))], lr=torch.tensor(0.1), betas=betas)
    steps(side, optimizer)
    betas[0].fill_(0.5)
    betas[1].fill_(0.6)
    return steps(side, optimizer)


@row(["SGD"])
def weight_decay_tensor(side):
    decay = torch.tensor(0.1)
    optimizer = side([Parameter(numbers(3))], weight_decay=decay)
    steps(side, optimizer)
    decay.zero_()
    return steps(side, optimizer)


@row(DENSE)
def one_cycle(side):
    settings = {"momentum": 0.9} if side.name in ("SGD", "RMSprop") else {}
    optimizer = side([Parameter(numbers(3))], lr=0.01, **settings)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, total_steps=10, cycle_momentum="betas" in optimizer.defaults
    )
    for _ in range(5):
        steps(side, optimizer, 1)
        schedule.step()
    return seen(optimizer)


@row()
def values_that_a_constructor_refuses_set_later(side):
    optimizer = side([Parameter(numbers(3))])
    (group,) = optimizer.param_groups
    wanted = {"lr": -0.01, "eps": 0.0, "momentum": 1.5, "alpha": 1.0, "rho": 1.0, "lr_decay": 0.5}
    group.update({name: value for name, value in wanted.items() if name in group})
    return steps(side, optimizer)


@row()
def lr_of_zero(side):
    return steps(side, side([Parameter(numbers(3))], lr=0.0))


@row([name for name in CLASSES if name != "SGD"])
def eps_of_zero(side):
    return steps(side, side([Parameter(numbers(3))], eps=0.0))


@row([name for name in DENSE if name != "SGD"])
def eps_of_zero_with_a_gradient_of_zero(side):
    p = Parameter(numbers(3))
    optimizer = side([p], eps=0.0)
    p.grad = torch.tensor([0.0, 1.0, -2.0])
    optimizer.step()
    return seen(optimizer)


@row(["RMSprop"])
def alpha_of_one(side):
    return steps(side, side([Parameter(numbers(3))], alpha=1.0))


@row(["RMSprop", "SGD"])
def momentum_above_one(side):
    return steps(side, side([Parameter(numbers(3))], momentum=1.5), 3)


@row(MOVING)
def betas_of_zero(side):
    return steps(side, side([Parameter(numbers(3))], betas=(0.0, 0.0)))


@row(DENSE)
def weight_decay_set_later(side):
    optimizer = side([Parameter(numbers(3))])
    steps(side, optimizer)
    optimizer.param_groups[0]["weight_decay"] = 0.1
    first = steps(side, optimizer)
    optimizer.param_groups[0]["weight_decay"] = 0
    return first, steps(side, optimizer)


@row()
def maximize_set_later(side):
    optimizer = side([Parameter(numbers(3))])
    steps(side, optimizer)
    optimizer.param_groups[0]["maximize"] = True
    return steps(side, optimizer)


@row(["SGD"])
def momentum_set_later(side):
    optimizer = side([Parameter(numbers(3))])
    steps(side, optimizer)
    optimizer.param_groups[0]["momentum"] = 0.9
    return steps(side, optimizer)


BAD = {
    "lr": -1.0, "eps": -1.0, "weight_decay": -1.0, "momentum": -1.0, "rho": 2.0, "alpha": -1.0,
    "betas": (1.0, 0.9), "lr_decay": -1.0, "initial_accumulator_value": -1.0,
    "momentum_decay": -1.0, "nesterov": True,
}  # fmt: skip


@row()
def constructors_refuse(side):
    texts = {}
    for name, value in BAD.items():
        try:
            side([Parameter(numbers(3))], **{name: value})
        except Exception as error:
            if not isinstance(error, TypeError):  # a keyword that the class does not have
                texts[name] = type(error).__name__, str(error)
    for params in ([], [1], torch.ones(3), [{"params": []}], [Parameter(numbers(2)) * 2]):
        try:
            side(params)
        except Exception as error:
            texts[str(params)] = type(error).__name__, str(error)
    return texts


# Parameters and states that others change


@row()
def data_replaced(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    steps(side, optimizer)
    p.data = torch.full((3,), 5.0)
    return steps(side, optimizer)


@row(DENSE)
def data_transposed(side):
    p = Parameter(numbers(3, 3))
    optimizer = side([p])
    steps(side, optimizer)
    p.data = p.data.t()
    p.grad = numbers(3, 3, seed=9).t()
    optimizer.step()
    return p, [v.contiguous() for v in optimizer.state[p].values() if torch.is_tensor(v)]


@row(DENSE)
def data_of_another_shape_at_the_same_place(side):
    p = Parameter(numbers(4, 3))
    optimizer = side([p], **({"momentum": 0.9} if side.name == "SGD" else {}))
    steps(side, optimizer)
    p.grad = None
    p.data = p.data[:2]
    p.grad = numbers(2, 3, seed=9)
    for name, value in optimizer.state[p].items():
        optimizer.state[p][name] = value[:2] if torch.is_tensor(value) and value.ndim else value
    return steps(side, optimizer)


# Torch's Adagrad makes states with the optimizer alone, and fails.
@row([name for name in CLASSES if name != "Adagrad"])
def another_parameter_of_the_same_memory(side):
    """It begins without states."""
    p = Parameter(numbers(3))
    optimizer = side([p], **({"momentum": 0.9} if side.name == "SGD" else {}))
    steps(side, optimizer)
    (group,) = optimizer.param_groups
    group["params"] = [Parameter(p.detach())]
    return steps(side, optimizer), len(optimizer.state)


@row()
def states_replaced(side):
    p = Parameter(numbers(3))
    optimizer = side([p], **({"momentum": 0.9} if side.name == "SGD" else {}))
    steps(side, optimizer)
    for name, value in optimizer.state[p].items():
        optimizer.state[p][name] = torch.ones_like(value) if torch.is_tensor(value) else 1
    return steps(side, optimizer)


@row()
def states_changed_in_place(side):
    p = Parameter(numbers(3))
    optimizer = side([p], **({"momentum": 0.9} if side.name == "SGD" else {}))
    steps(side, optimizer)
    for value in optimizer.state[p].values():
        if torch.is_tensor(value):
            value.fill_(0.5 if value.ndim else 7.0)
    return steps(side, optimizer)


@row([name for name in CLASSES if name != "Adagrad"])
def states_cleared(side):
    p = Parameter(numbers(3))
    optimizer = side([p], **({"momentum": 0.9} if side.name == "SGD" else {}))
    steps(side, optimizer)
    optimizer.state.clear()
    return steps(side, optimizer)


@row()
def gaussian_splatting(side):
    """Rows are added to a parameter and its states, under a new key."""
    p = Parameter(numbers(3, 2))
    settings = {"momentum": 0.9} if side.name == "SGD" else {}
    optimizer = side([{"params": [p], "name": "xyz"}], **settings)
    steps(side, optimizer)
    state = optimizer.state.pop(p)
    for name, value in state.items():
        if torch.is_tensor(value) and value.ndim:
            state[name] = torch.cat([value, torch.zeros(2, 2)])
    more = Parameter(torch.cat([p.detach(), numbers(2, 2)]))
    optimizer.param_groups[0]["params"][0] = more
    optimizer.state[more] = state
    result = steps(side, optimizer)
    # And rows are removed.
    keep = torch.tensor([True, False, True, True, False])
    state = optimizer.state.pop(more)
    for name, value in state.items():
        if torch.is_tensor(value) and value.ndim:
            state[name] = value[keep]
    fewer = Parameter(more.detach()[keep])
    optimizer.param_groups[0]["params"][0] = fewer
    optimizer.state[fewer] = state
    return result, steps(side, optimizer)


@row()
def groups_added_and_mutated(side):
    p, q, r = (Parameter(numbers(3, seed=k)) for k in range(3))
    optimizer = side([{"params": [p], "lr": 0.5}], lr=0.1)
    steps(side, optimizer)
    optimizer.add_param_group({"params": [q]})
    first = steps(side, optimizer)
    if side.name != "Adagrad":  # which makes its states in the constructor
        optimizer.param_groups[1]["params"].append(r)
    second = steps(side, optimizer)
    del optimizer.param_groups[0]
    return first, second, steps(side, optimizer)


@row()
def group_settings_of_their_own(side):
    p, q = Parameter(numbers(3)), Parameter(numbers(3))
    own = {"lr": 0.3, "maximize": True} if "eps" not in side.name else {}
    return steps(side, side([{"params": [p]} | own, {"params": [q]}], lr=0.1))


@row()
def named_parameters(side):
    named = [("first", Parameter(numbers(3))), ("second", Parameter(numbers(2)))]
    return steps(side, side(named))


@row()
def checkpoints(side):
    """A state_dict of torch's is loaded by both, and goes on."""
    p, q = Parameter(numbers(3)), Parameter(numbers(2, 2))
    settings = {"momentum": 0.9} if side.name == "SGD" else {}
    torchs = getattr(torch.optim, side.name)([p, q], **settings)
    steps(side, torchs)
    file = io.BytesIO()
    torch.save(torchs.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    optimizer = side([Parameter(p.detach().clone()), Parameter(q.detach().clone())], **settings)
    optimizer.load_state_dict(loaded)
    after = seen(optimizer)
    return after, steps(side, optimizer), optimizer.state_dict()


# Of NAdam torch would cast mu_product, one number for a parameter, as well.
@row([name for name in CLASSES if name != "NAdam"])
def checkpoints_of_other_precision(side):
    """States have the parameter's dtype."""
    settings = {"momentum": 0.9} if side.name == "SGD" else {}
    torchs = getattr(torch.optim, side.name)([Parameter(numbers(3))], **settings)
    steps(side, torchs)
    optimizer = side([Parameter(numbers(3, dtype=torch.float64))], **settings)
    optimizer.load_state_dict(torchs.state_dict())
    return seen(optimizer), steps(side, optimizer)


@row()
def checkpoints_with_numbers_as_steps(side):
    optimizer = side([Parameter(numbers(3))])
    steps(side, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    for entry in saved["state"].values():
        if "step" in entry:
            entry["step"] = int(entry["step"])
    optimizer.load_state_dict(saved)
    return seen(optimizer), steps(side, optimizer)


@row()
def checkpoints_that_do_not_fit(side):
    optimizer = side([Parameter(numbers(3))])
    steps(side, optimizer)
    optimizer.load_state_dict(side([Parameter(numbers(3)), Parameter(numbers(3))]).state_dict())


@row()
def older_checkpoints(side):
    """Groups without the keys that later versions have."""
    optimizer = side([Parameter(numbers(3))])
    steps(side, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    for name in ("maximize", "foreach", "capturable", "differentiable", "fused"):
        saved["param_groups"][0].pop(name, None)
    optimizer.load_state_dict(saved)
    return seen(optimizer), steps(side, optimizer)


@row()
def copies(side):
    optimizer = side([Parameter(numbers(3))])
    steps(side, optimizer)
    results = []
    for one in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(one) is type(optimizer)
        results.append((one.defaults, steps(side, one)))
    return results, steps(side, optimizer)


@row()
def state_dict_hooks(side):
    optimizer, called = side([Parameter(numbers(3))]), []
    steps(side, optimizer)
    optimizer.register_state_dict_pre_hook(lambda o: called.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, d: called.append("post"))
    optimizer.register_load_state_dict_pre_hook(lambda o, d: called.append(list(d)))
    optimizer.register_load_state_dict_post_hook(lambda o: called.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    return called, steps(side, optimizer)


@row()
def shared_memory(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    steps(side, optimizer)
    p.share_memory_()
    for value in optimizer.state[p].values():
        if torch.is_tensor(value):
            value.share_memory_()
    return steps(side, optimizer), p.is_shared()


# What is around a step


@row()
def zero_grad(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    steps(side, optimizer)
    optimizer.zero_grad(set_to_none=False)
    gradient = p.grad.to_dense()
    optimizer.step()
    first = seen(optimizer)
    optimizer.zero_grad()
    optimizer.step()
    return gradient, first, p.grad, seen(optimizer)


@row()
def closures(side):
    p = Parameter(numbers(3))
    optimizer, states = side([p]), []

    def closure():
        states.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        side.give(p, p.grad)
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    return loss, states, seen(optimizer)


def _hooked(side, **options):
    optimizer, called = side([Parameter(numbers(3))], **options), []
    handles = [
        register_optimizer_step_pre_hook(lambda o, a, k: called.append("global pre")),
        register_optimizer_step_post_hook(lambda o, a, k: called.append("global post")),
        optimizer.register_step_pre_hook(lambda o, a, k: called.append("pre")),
        optimizer.register_step_post_hook(lambda o, a, k: called.append("post")),
    ]
    try:
        result = steps(side, optimizer)
    finally:
        for handle in handles:
            handle.remove()
    return called, result


@row()
def hooks(side):
    return _hooked(side)


@row(DENSE, fallback=True)
def hooks_beside_torchs_own_step(side):
    return _hooked(side, differentiable=True)


@row(DENSE)
def foreach(side):
    return [steps(side, side([Parameter(numbers(3))], foreach=on)) for on in (True, False)]


@row(DENSE)
def foreach_with_tensor_lr(side):
    return steps(side, side([Parameter(numbers(3))], foreach=True, lr=torch.tensor(0.1)))


@row([name for name in DENSE if name not in ("SGD", "Adagrad")])
def capturable(side):
    return steps(side, side([Parameter(numbers(3))], capturable=True))


@row(DENSE, fallback=True)
def differentiable(side):
    p = numbers(3).requires_grad_()
    lr = torch.tensor(0.1, requires_grad=True) if side.name in ("SGD", "Adam") else 0.1
    q = p.clone()
    optimizer = side([q], differentiable=True, lr=lr)
    q.grad = numbers(3, seed=1)
    optimizer.step()
    q.sum().backward()
    return q, p.grad, lr.grad if torch.is_tensor(lr) else None


@row(FUSED)
def fused(side):
    return steps(side, side([Parameter(numbers(3))], fused=True))


@row(FUSED)
def fused_and_foreach(side):
    side([Parameter(numbers(3))], fused=True, foreach=True)


@row(FUSED)
def fused_and_differentiable(side):
    side([Parameter(numbers(3))], fused=True, differentiable=True)


def _scaled(side, **options):
    p, sequence = Parameter(torch.ones(3)), []
    optimizer = side([p], lr=0.1, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for k in range(4):
        optimizer.zero_grad()
        loss = (p * torch.tensor([1.0, 2.0, 3.0])).sum()
        scaler.scale(loss * float("inf") if k == 2 else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        sequence.append((seen(optimizer), scaler.get_scale()))
    return sequence, getattr(optimizer, "_step_supports_amp_scaling", None)


@row(DENSE)
def grad_scaler(side):
    return _scaled(side)


@row(FUSED)
def grad_scaler_of_fused(side):
    return _scaled(side, fused=True)


@row(FUSED)
def grad_scaler_with_unscaled_gradients(side):
    p = Parameter(torch.ones(3))
    optimizer = side([p], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale((p * torch.tensor([1.0, 2.0, 3.0])).sum()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([p], 0.5)
        scaler.step(optimizer)
        scaler.update()
    return seen(optimizer)


@row(DENSE)
def float64_by_default(side):
    torch.set_default_dtype(torch.float64)
    try:
        return [
            steps(side, side([Parameter(numbers(3)), Parameter(torch.ones(2))], **options))
            for options in ({}, *([{"fused": True}] if side.name in FUSED else []))
        ]
    finally:
        torch.set_default_dtype(torch.float32)


@row([name for name in CLASSES if name != "SGD"])
def very_many_steps(side):
    p = Parameter(numbers(3))
    optimizer = side([p])
    steps(side, optimizer, 1)
    if torch.is_tensor(optimizer.state[p]["step"]):
        optimizer.state[p]["step"].fill_(2.0**24)
    else:
        optimizer.state[p]["step"] = 2**24
    return steps(side, optimizer)


@row()
def averaged_weights(side):
    model = torch.nn.Linear(2, 1)
    for p in model.parameters():
        p.data.copy_(numbers(*p.shape))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    optimizer = side(model.parameters())
    schedule = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    for _ in range(3):
        steps(side, optimizer, 1)
        averaged.update_parameters(model)
        schedule.step()
    return seen(optimizer), [p.detach().clone() for p in averaged.parameters()]


@row()
def profiled(side):
    optimizer = side([Parameter(numbers(3))])
    with torch.profiler.profile() as profile:
        steps(side, optimizer)
    return sorted(e.key for e in profile.key_averages() if "Optimizer" in e.key)


@row()
def printed(side):
    return repr(side([Parameter(numbers(3))]))


@row()
def initialised_by_distributed_checkpoint(side):
    from torch.distributed.checkpoint.state_dict import _init_optim_state

    p, q = Parameter(numbers(3)), Parameter(torch.tensor([0.0, 1e-40, -1e-40]))
    optimizer = side([p, q], lr=0.1, **({"momentum": 0.9} if side.name == "SGD" else {}))
    if side.sparse:
        return None
    _init_optim_state(optimizer)
    result = seen(optimizer)
    bits = [one.detach().view(torch.int32).clone() for one in (p, q)]
    return result, bits, p.grad


@row(DENSE)
def half_precision(side):
    params = [Parameter(numbers(3).to(dtype)) for dtype in (torch.bfloat16, torch.float16)]
    return steps(side, side(params))


@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(one, name, id=f"{one.scenario.__name__}-{name}")
        for one in ROWS
        for name in one.names
    ],
)
def test_edge_case(case: Row, name: str) -> None:
    expected = outcome(case.scenario, torch.optim, name)
    found = outcome(case.scenario, gpuadapt.torch, name)
    if expected.error is not None:
        assert isinstance(found.error, type(expected.error)), repr(found.error)
        assert str(found.error) == str(expected.error)
    elif found.error is not None:
        raise found.error
    assert found.warned == expected.warned
    assert_same(found.result, expected.result)
    assert bool(found.fell_back) == case.fallback, found.fell_back
