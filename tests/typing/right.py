"""A script as users write it, which has no complaint from mypy --strict or pyright, and runs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import ml_dtypes
import numpy as np
import torch

import gpuadapt as ga
import gpuadapt.torch
from gpuadapt.language import Hyper, Number, abs, maximum, sign, sq, sqrt, where

w = np.ones((4, 3), np.float32)
b = np.zeros(3, np.float32)
table = np.zeros((100, 3), np.float32)
layer = torch.nn.Linear(3, 2)


class Weights(NamedTuple):
    """Parameters with names."""

    w: np.ndarray
    b: np.ndarray


# Parameters, in all that they come in.
ga.SGD(w)
ga.SGD([w, b])
ga.SGD((w, [b, table]))
ga.SGD({"w": w, "b": b})
ga.SGD({"encoder": {"w": w}, "heads": [b, table]})
ga.SGD(Weights(w, b))
ga.SGD([("w", w), ("b", b)])
ga.SGD({"w": w}.items())
ga.SGD({"w": w, "b": b}.values())
ga.SGD(array for array in (w, b))
ga.SGD(memoryview(bytearray(12)).cast("f"))
ga.SGD(np.ones(3, ml_dtypes.bfloat16), rounding="kahan")
ga.SGD(layer.parameters())
ga.SGD(layer.named_parameters(), lr=0.1)
ga.SGD([w, layer.weight])

# Numbers and schedules.
ga.Adam(w, 1e-2)
ga.Adam(w, lr=np.float32(0.1), eps=np.array(1e-7), weight_decay=1)
ga.Adam(w, lr=lambda step: 0.1 / (1 + step), betas=(lambda step: 0.9, 0.99))
ga.Adam(w, lr=ga.schedules.WarmUp(100, ga.schedules.Cosine(1e-3, 1e-5, steps=900)))
ga.AdamW(w, betas=(0.9, 0.95), eps=1e-6, amsgrad="raw", decay="after", beta1=None)
ga.NAdam(w, beta1=0.8, beta2=0.9, schedule=False)
ga.RMSprop(w, momentum=0.9, momentum_form="velocity", eps_mode="outside", centered=True)
ga.Adagrad(table, rowwise=True, check="skip", initial={"G": 0.1}, max_row_norm=1.0)
ga.Adam({"t": table}, state_dtype={"m": "8bit", "v": "bfloat16"}, seed=3, sparse="exact")


def halved(step: int) -> float:
    """A schedule."""
    return float(0.5**step)


joined = ga.schedules.Join([ga.schedules.Linear(0.0, 1.0, steps=4), halved, 0.1], [10, 20])
print(joined(3), ga.schedules.Constant(0.1)(5) + 1)

# Groups, of one kind or of several.
ga.Adam([{"params": [w], "lr": 1e-4}, {"params": {"b": b}}])
ga.Adam([{"params": w, "lr": halved}, {"params": b, "weight_decay": 0, "betas": (0.8, 0.9)}])
ga.RMSprop([{"params": [w]}, {"params": b, "rho": 0.8}], lr=0.1)
ga.SGD([{"params": layer.parameters(), "momentum": 0.5}, {"params": [w]}], momentum=0.9)
groups: list[ga.typing.AdamGroup] = [{"params": [w], "lr": 1e-4}, {"params": {"b": b}}]
groups.append({"params": table, "sparse": "exact", "eps": 1e-6})
ga.AdamW(groups)
configured: list[dict[str, Any]] = [{"params": [w], "lr": 1e-4}, {"params": {"b": b}}]
ga.AdamW(configured)

# Steps.
optimizer = ga.Adam({"w": w, "table": table}, lr=1e-3)
optimizer.step({"w": w + 1, "table": None})
rows = ga.RowGrad(np.array([7, 2, 7]), np.ones((3, 3), np.float32), duplicates="mean")
optimizer.step({"w": np.ones((4, 3)), "table": rows}, max_norm=1.0, clip_value=np.float64(0.5))
optimizer.step({"w": None, "table": [rows, table + 1]}, skip_nonfinite=True, stats=["table"])
gradients: dict[str, ga.typing.Grads] = {"w": [w + 1, w + 2], "table": rows + rows}
scale = ga.LossScale(1024.0, interval=100)
optimizer.step(gradients, grad_scale=2 * scale)
optimizer.step({"w": torch.ones(4, 3), "table": None}, grad_scale=scale)
ga.SGD(w).step(np.ones((4, 3)))
ga.SGD([w, [b]]).step([w + 1, [None]])
ga.SGD({"a": {"w": w}, "b": [b]}).step({"a": {"w": w + 1}, "b": [b + 1]})

# What they give back.
if optimizer.last is not None and not optimizer.last.skipped and optimizer.last.grad_norm:
    print(optimizer.last.grad_norm.hex(), optimizer.step_count + 1, optimizer.stats("table").ratio)
optimizer.param_groups[0]["lr"] = halved
optimizer.param_groups[0].update(beta1=0.8)
optimizer.state["w"]["m"][...] = 0
print(optimizer.params["w"].mean(), optimizer.effective_lr("w").max(), rows.values.sum())
print(optimizer.read("table", np.array([[1, 2]])).sum(), optimizer.read("table", [1, 2]).shape)
optimizer.write("w", np.ones((4, 3)))
optimizer.grow("table", np.zeros((200, 3), np.float32))
optimizer.add({"more": np.ones(3)}, lr=0.1, maximize=True)
optimizer.flush(fraction=0.5)
snapshot: dict[str, Any] = optimizer.state_dict()
left = optimizer.load_state_dict(snapshot, strict=False)
print(left.missing + left.unexpected, sorted(left.reasons))
with tempfile.TemporaryDirectory() as folder:
    optimizer.save(folder + "/a.safetensors", keep=1, progress=lambda done, all: None)
    ga.save(Path(folder) / "b.safetensors", optimizer, extra={"epoch": 3}, loss_scale=scale)
    newest = ga.latest(folder)
    if newest is not None:
        print(ga.load(newest, optimizer, loss_scale=scale).extra["epoch"], newest.name)
        optimizer.load(newest, strict=False, only=["w"])

# What looks on, and averages.
kept = ga.Adam({"w": w}, average=ga.averages.Exponential(0.999))
record = ga.Record(kept, every=1, names=["w"])
kept.step({"w": w + 1})
print(len(record.rows), record.rows[0]["step"], kept.averages["w"].shape)
record.to_json(sys.stdout)
with kept.averages.swapped():
    print(kept.params["w"][0])


# A rule of one's own, and another form of it.
def inside(x: Number, h: Hyper) -> Number:
    """sqrt(x + eps)"""
    return sqrt(x + h.eps)


def outside(x: Number, h: Hyper) -> Number:
    """sqrt(x) + eps"""
    return sqrt(x) + h.eps


def warmup(t: float, steps: float) -> float:
    """The share of the learning rate at a step."""
    return min(1.0, t / steps)


@ga.rule(inside=inside, prepare=warmup, nonnegative="v")
def slow(p: Number, g: Number, m: Number, v: Number, h: Hyper) -> tuple[Number, Number, Number]:
    """m <- the sign's mean ;  v <- the largest g^2"""
    m = h.beta * m + (1 - h.beta) * sign(g)
    v = maximum(v, where(h.t == 1, sq(g), abs(g)))
    rate = warmup(h.t, h.steps) * h.lr / inside(v / (1 - h.beta**h.t), h)
    return p - rate * m, m, v


@ga.rule
def plain(p: Number, g: Number, h: Hyper) -> Number:
    """p <- p - lr g"""
    return p - h.lr * g


mine = ga.Optimizer(slow, {"w": w}, lr=0.1, beta=0.9, eps=1e-8, steps=10, state_dtype="bfloat16")
ga.Optimizer(slow.variant(inside=outside), [{"params": w, "beta": 0.5}], lr=0.1, eps=1, steps=1,
             beta=0.9)  # fmt: skip
ga.Optimizer(ga.rules.adam, w, lr=0.1, betas=(0.9, 0.99), eps=1e-8)
print(slow.source("cpu", "rows").count("def "), slow.states, plain.name)


def timed() -> float:
    """Time a rule beside the machine's limit."""
    return ga.testing.benchmark(slow, 1000, "float32", "cpu", beta=0.9, runs=3).seconds


# Other frameworks' constructors, and their states.
ga.presets.torch.AdamW({"w": w}, 1e-3, (0.9, 0.99), amsgrad=True, check="skip")
ga.presets.keras.RMSprop([w, b], learning_rate=1e-3, momentum=0.9, sparse="exact")
ga.presets.optax.adam(w, halved, b1=0.8, decay="decoupled", weight_decay=0.1)
ga.presets.optax.rmsprop([{"params": [w], "lr": 0.1}, {"params": b}], 0.1, 0.9)
ga.presets.chainer.AdaDelta([{"params": w}, {"params": [b]}])
ga.presets.tensorflow.FtrlOptimizer(w, 0.1, rounding="nearest")

# PyTorch's place.
theirs = gpuadapt.torch.AdamW(layer.parameters(), lr=1e-3, betas=(0.9, 0.99), max_norm=1.0)
layer(torch.ones(1, 3)).sum().backward()
theirs.step()
print(theirs.last, theirs.fallback, theirs.effective_lr(layer.weight).shape)
torch.optim.lr_scheduler.LambdaLR(theirs, halved)
gpuadapt.torch.Adam([{"params": layer.weight, "lr": 0.1}, {"params": [layer.bias]}], threads=1)
gpuadapt.torch.SGD(layer.parameters(), momentum=0.9, rounding="stochastic", sparse="lazy") if (
    False) else None  # fmt: skip
gpuadapt.torch.Optimizer(plain, layer.parameters(), lr=0.1, weight_decay=0.1, decay="after")


# Functions of one's own around all that.
def made(params: ga.typing.Params, **options: Unpack[ga.typing.CommonOptions]) -> ga.Optimizer:
    """Pass options on."""
    return ga.Adagrad(params, 0.1, **options)


def trained(
    arrays: Sequence[np.ndarray], by_name: Mapping[str, np.ndarray], more: Iterator[np.ndarray],
    state: ga.typing.StateDtype, rate: ga.typing.Hyperparameter,
) -> ga.typing.StepResult | None:  # fmt: skip
    """Take what functions are given."""
    made(arrays, state_dtype=state, maximize=True)
    made(by_name, weight_decay=rate)
    made(more)
    one = ga.SGD(arrays, rate)
    one.step(arrays[0:0] or [array + 1 for array in arrays])
    return one.last


trained([w, b], {"w": w}, iter([table]), "bfloat16", halved)
