"""What the processes of `torch_pair` run: training on two processes, and its checkpoints."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import gpuadapt.torch
from gpuadapt.errors import HyperparameterError

warnings.simplefilter("error", gpuadapt.torch.FallbackWarning)
for noise in ("barrier", "TypedStorage", "_get_pg_default_device", "Please use DTensor"):
    warnings.filterwarnings("ignore", f".*{noise}.*")

FORMATS: dict[str, dict[str, Any]] = {
    "8bit": {"state_dtype": "8bit"},
    "stochastic": {"rounding": "stochastic"},
    "master": {"master": "float32"},
    "split": {"master": "split"},
    "kahan": {"rounding": "kahan"},
    "rowwise": {"rowwise": True},
}
"""Own formats; all but "8bit" and "rowwise" of bfloat16 parameters."""


def is_short(name: str) -> bool:
    return name in FORMATS and name not in ("8bit", "rowwise")


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (2,))


def network(dtype: torch.dtype = torch.float32, bias: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(16, 24, bias=bias), torch.nn.Tanh(), torch.nn.Linear(24, 3, bias=bias)
    ).to(dtype)


def sharded(model: torch.nn.Module) -> torch.nn.Module:
    fully_shard(model, mesh=mesh())
    return model


def make(optimizer: str, model: torch.nn.Module, **options: Any) -> Any:
    """An optimizer by its name, "torch.Adam" or "ours.Adam"."""
    where, _, name = optimizer.partition(".")
    module = torch.optim if where == "torch" else gpuadapt.torch
    return getattr(module, name)(model.parameters(), **options)


def train(
    model: torch.nn.Module, optimizer: Any, steps: int, first: int = 0, rank: int | None = None
) -> None:
    """Take steps, each process with data of its own, or all with those of one."""
    rank = dist.get_rank() if rank is None else rank
    dtype = next(model.parameters()).dtype
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(2 * step + rank)
        inputs = torch.randn(8, 16, generator=generator).to(dtype)
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    if isinstance(optimizer, gpuadapt.torch.Adam | gpuadapt.torch.SGD):
        assert optimizer.fallback is None, optimizer.fallback


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def assert_close(found: torch.nn.Module, expected: torch.nn.Module, units: float = 2.0) -> None:
    """Weights differ by so many units of the last place of the largest."""
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        a, b = whole(one.detach()).double(), whole(other.detach()).double()
        unit = b.abs().max().item() * torch.finfo(one.dtype).eps
        assert (a - b).abs().max().item() <= units * unit


def digest(tensors: Iterator[Tensor]) -> str:
    """A hash of the bits that this process has."""
    found = hashlib.sha256()
    for tensor in tensors:
        plain = part(tensor.detach()).contiguous()
        found.update(str((plain.dtype, tuple(plain.shape))).encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def bits(model: torch.nn.Module, optimizer: Any) -> str:
    """A hash of all weights and states of this process."""

    def each() -> Iterator[Tensor]:
        for parameter in model.parameters():
            yield parameter
            for name, value in sorted(optimizer.state[parameter].items()):
                assert isinstance(value, Tensor), name
                yield value

    return digest(each())


def in_turn(function: Callable[[], Any]) -> None:
    """Run a function in one process after the other: the second finds kernels compiled."""
    for rank in range(2):
        if dist.get_rank() == rank:
            function()
        dist.barrier()


def compiled(optimizer: str, dtype: torch.dtype, **options: Any) -> None:
    """Compile the kernels of an optimizer."""

    def one_step() -> None:
        layer = torch.nn.Linear(16, 2, bias=False).to(dtype)
        layer.weight.grad = torch.zeros_like(layer.weight)
        make(optimizer, layer, **options).step()

    in_turn(one_step)


def ddp(bucket_view: bool) -> str:
    """DistributedDataParallel: as torch's own, and all processes have the same bits."""
    models = []
    for name in ("torch.Adam", "ours.Adam"):
        model = DistributedDataParallel(network(), gradient_as_bucket_view=bucket_view)
        train(model, make(name, model, lr=0.01), 5)
        models.append(model)
    assert_close(models[1], models[0])
    return digest(models[1].parameters())


def zero(bucket_view: bool) -> str:
    """ZeroRedundancyOptimizer: as torch's own, and goes on from its whole state."""
    models, optimizers = [], []
    for module in (torch.optim, gpuadapt.torch):
        model = DistributedDataParallel(network())
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(), module.Adam, parameters_as_bucket_view=bucket_view, lr=0.01
        )
        train(model, optimizer, 4)
        models.append(model)
        optimizers.append(optimizer)
    assert optimizers[1].optim.fallback is None
    assert_close(models[1], models[0])
    optimizers[1].consolidate_state_dict(0)
    saved = [optimizers[1].state_dict() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(saved)
    again = copy.deepcopy(models[1].module)
    later = ZeroRedundancyOptimizer(again.parameters(), gpuadapt.torch.Adam, lr=0.1)
    later.load_state_dict(copy.deepcopy(saved[0]))
    wrapped = DistributedDataParallel(again)
    train(wrapped, later, 3, 4)
    train(models[1], optimizers[1], 3, 4)
    assert digest(again.parameters()) == digest(models[1].parameters())
    return digest(models[1].parameters())


def fsdp(name: str, options: dict[str, Any]) -> None:
    """fully_shard: as torch's own, with states that are divided as the parameters are."""
    models, optimizers = [], []
    for where in ("torch", "ours"):
        model = sharded(network())
        optimizer = make(f"{where}.{name}", model, **options)
        train(model, optimizer, 5)
        models.append(model)
        optimizers.append(optimizer)
    assert_close(models[1], models[0])
    assert optimizers[1].fallback is None
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        expected, found = optimizers[0].state[p], optimizers[1].state[q]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            other = found[key]
            assert type(other) is type(value) and other.dtype == value.dtype, key
            assert other.shape == value.shape and other.stride() == value.stride(), key
            if isinstance(value, DTensor):
                assert other.placements == value.placements, key
                assert other.to_local().shape == value.to_local().shape, key


def norms(max_norm: float | None) -> list[float]:
    """The norm is that of all parts, and so is what follows from it."""
    one, whole_model = sharded(network()), network()
    extra = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizers = []
    for model, more in zip((one, whole_model), extra, strict=True):
        params = [*model.parameters(), more]  # one that every process has whole
        options = {"max_norm": max_norm} if max_norm else {"skip_nonfinite": True}
        optimizers.append(gpuadapt.torch.Adam(params, lr=0.01, **options))
    found = []
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for p, q in zip(whole_model.parameters(), one.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = distribute_tensor(p.grad, q.device_mesh, q.placements)
        for more in extra:
            more.grad = torch.full((3,), 0.1)
        if step == 1 and not max_norm:  # in one process alone
            whole_model[0].weight.grad[0, 0] = torch.nan
            if dist.get_rank() == 0:
                one[0].weight.grad.to_local()[0, 0] = torch.nan
        for optimizer in optimizers:
            optimizer.step()
        a, b = (optimizer.last for optimizer in optimizers)
        assert a.skipped == b.skipped == (step == 1 and not max_norm)
        if a.skipped:
            continue
        assert a.grad_norm is None or abs(a.grad_norm - b.grad_norm) <= 1e-12 * b.grad_norm
        found.append(a.grad_norm)
    assert_close(one, whole_model)
    return found


def state_dicts(source: str, target: str, kind: str) -> None:
    """A state goes from one optimizer to another through get_ and set_optimizer_state_dict."""
    options = {
        "sharded": StateDictOptions(),
        "full": StateDictOptions(full_state_dict=True),
        "broadcast": StateDictOptions(full_state_dict=True, broadcast_from_rank0=True),
    }[kind]
    model = sharded(network())
    optimizer = make(f"{source}.Adam", model, lr=0.01, amsgrad=True)
    train(model, optimizer, 3)
    weights = get_model_state_dict(model, options=options)
    states = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    if kind == "broadcast" and dist.get_rank():
        weights, states = {}, {}
    other = sharded(network())
    resumed = make(f"{target}.Adam", other, lr=0.5, amsgrad=True)
    set_model_state_dict(other, weights, options=options)
    set_optimizer_state_dict(other, resumed, states, options=options)
    assert resumed.param_groups[0]["lr"] == 0.01
    train(other, resumed, 3, 3)
    train(model, optimizer, 3, 3)
    assert_close(other, model, 0.0 if source == target else 2.0)


def begin(format: str, folder: str | None = None) -> tuple[torch.nn.Module, Any]:
    """A network in one of `FORMATS`, and its optimizer, as loaded or new."""
    dtype = torch.bfloat16 if is_short(format) else torch.float32
    # A bias of 24 elements in two parts would have blocks of its own.
    model = sharded(network(dtype, bias=format not in ("8bit",)))
    name, options = ("ours.Adam", {"lr": 0.01, **FORMATS[format]})
    if format == "kahan":
        name, options = "ours.SGD", {"lr": 0.01, "momentum": 0.9, **FORMATS[format]}
    compiled(name, dtype, **options)
    optimizer = make(name, model, **options)
    if folder is not None:
        weights = get_model_state_dict(model)
        states = get_optimizer_state_dict(model, optimizer)
        dcp.load({"model": weights, "optimizer": states}, checkpoint_id=f"{folder}/{format}")
        set_model_state_dict(model, weights)
        set_optimizer_state_dict(model, optimizer, states)
    return model, optimizer


def save(format: str, folder: str, steps: int) -> tuple[str, str]:
    """Save a checkpoint after 5 steps; return the bits then, and so many steps later."""
    model, optimizer = begin(format)
    train(model, optimizer, 5)
    saved = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer),
    }
    dcp.save(saved, checkpoint_id=f"{folder}/{format}")
    before = bits(model, optimizer)
    train(model, optimizer, steps, 5)
    return before, bits(model, optimizer)


def resume(format: str, folder: str, steps: int) -> tuple[str, str]:
    """As `save`, from the checkpoint."""
    model, optimizer = begin(format, folder)
    before = bits(model, optimizer)
    train(model, optimizer, steps, 5)
    return before, bits(model, optimizer)


def full_states(format: str) -> None:
    """States of own formats survive being put together and divided again."""
    model, optimizer = begin(format)
    train(model, optimizer, 2)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    states = get_optimizer_state_dict(model, optimizer, options=options)
    states = {} if dist.get_rank() else states
    other, again = begin(format)
    set_model_state_dict(other, get_model_state_dict(model))
    set_optimizer_state_dict(other, again, states, options=options)
    assert bits(other, again) == bits(model, optimizer)


def blocks() -> None:
    """Blocks of 8-bit states are those of one process: scales are the same in two parts."""
    compiled("ours.Adam", torch.float32, lr=0.01, state_dtype="8bit")
    one = torch.nn.Linear(600, 6, bias=False)
    with torch.no_grad():
        one.weight.copy_(torch.randn(6, 600, generator=torch.Generator().manual_seed(0)))
    two = sharded(copy.deepcopy(one))
    optimizers = []
    for model in (one, two):
        generator = torch.Generator().manual_seed(1)
        gradient = torch.randn(6, 600, generator=generator) * torch.logspace(-3, 3, 6)[:, None]
        weight = model.weight
        if isinstance(weight, DTensor):
            gradient = distribute_tensor(gradient, weight.device_mesh, weight.placements)
        weight.grad = gradient
        optimizer = gpuadapt.torch.Adam([weight], lr=0.01, state_dtype="8bit")
        optimizer.step()
        optimizers.append(optimizer)
    expected, found = (each.state_dict()["state"][0] for each in optimizers)
    for name in ("exp_avg.scales", "exp_avg_sq.scales"):
        assert found[name].placements == (Shard(0),)
        assert torch.equal(found[name].full_tensor(), expected[name]), name
    # Each part draws random bits of its own, so codes may differ by one.
    a, b = found["exp_avg.codes"].full_tensor().int(), expected["exp_avg.codes"].int()
    assert (a - b).abs().max() <= 1
    # What one process has saved, two go on with.
    given = {
        name: value if value.ndim == 0 else distribute_tensor(value, mesh(), [Shard(0)])
        for name, value in expected.items()
    }
    optimizers[1].load_state_dict(optimizers[1].state_dict() | {"state": {0: given}})
    for name, value in optimizers[1].state_dict()["state"][0].items():
        assert torch.equal(whole(value), expected[name]), name


def divided(shape: tuple[int, ...], dim: int, options: dict[str, Any]) -> str | None:
    """Take a step on a tensor in two parts; return why it is refused, if it is."""
    parameter = torch.nn.Parameter(distribute_tensor(torch.ones(shape), mesh(), [Shard(dim)]))
    parameter.grad = distribute_tensor(torch.ones(shape), mesh(), [Shard(dim)])
    try:
        optimizer = gpuadapt.torch.Adam([parameter], **options)
        optimizer.step()
    except HyperparameterError as error:
        assert not optimizer.state
        assert torch.equal(parameter.full_tensor(), torch.ones(shape))
        return str(error)
    assert optimizer.fallback is None
    return None


def partial_gradients() -> None:
    """A gradient with other placements than its parameter is brought to the parameter's."""
    start = torch.arange(6.0).reshape(3, 2)
    for placement in (Replicate(), Shard(0)):
        plain = torch.nn.Parameter(start.clone())
        plain.grad = torch.full((3, 2), 3.0)
        gpuadapt.torch.SGD([plain], lr=0.1).step()
        parameter = torch.nn.Parameter(distribute_tensor(start, mesh(), [placement]))
        own = torch.full((3, 2), 1.0 + dist.get_rank())
        parameter.grad = DTensor.from_local(own, mesh(), [Partial()])
        optimizer = gpuadapt.torch.SGD([parameter], lr=0.1)
        optimizer.step()
        assert optimizer.fallback is None
        assert np.array_equal(parameter.full_tensor().detach(), plain.detach())
