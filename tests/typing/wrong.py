"""Calls that are wrong: type checkers find each marked line, and no other, and Python refuses it.

The mark names mypy's and pyright's kind of error.
"""

import numpy as np
import torch

import gpuadapt as ga
import gpuadapt.torch

w = np.ones((4, 3), np.float32)
layer = torch.nn.Linear(3, 2)
optimizer = ga.Adam({"w": w})

# Numbers, names and choices.
ga.Adam({"w": w}, lr="fast")  # wrong: arg-type, reportArgumentType
ga.Adam({"w": w}, learning_rate=1e-3)  # wrong: call-arg, reportCallIssue
ga.Adam({"w": w}, weight_decay="much")  # wrong: arg-type, reportArgumentType
ga.Adam({"w": w}, decay="l3")  # wrong: arg-type, reportArgumentType
ga.Adam(w, sparse="exat")  # wrong: arg-type, reportArgumentType
ga.Adam(w, exactness="near", sparse="exact")  # wrong: arg-type, reportArgumentType
ga.Adam(w, state_dtype="float8")  # wrong: arg-type, reportArgumentType
ga.Adam(w, state_dtype={"m": "float8"})  # wrong: dict-item, reportArgumentType
ga.Adam(w, master="float64")  # wrong: arg-type, reportArgumentType
ga.Adam(w, rounding="up")  # wrong: arg-type, reportArgumentType
ga.Adam(w, eps_mode="none")  # wrong: arg-type, reportArgumentType
ga.Adam(w, amsgrad="biased")  # wrong: arg-type, reportArgumentType
ga.Adam(w, betas=0.9)  # wrong: arg-type, reportArgumentType
ga.Adam(w, betas=(0.9, "high"))  # wrong: arg-type, reportArgumentType
ga.Adam(w, 0.1, (0.9, 0.99))  # wrong: call-arg, reportCallIssue
ga.AdamW(w, eps="small")  # wrong: arg-type, reportArgumentType
ga.AdamW(w, bias_corection=False)  # wrong: call-arg, reportCallIssue
ga.SGD(w, momentum_form="heavy")  # wrong: arg-type, reportArgumentType
ga.SGD(w, betas=(0.9, 0.99))  # wrong: call-arg, reportCallIssue
ga.Adamax(w, eps_mode="inside")  # wrong: arg-type, reportArgumentType
ga.RMSprop(w, lr=lambda: 0.1).step(w + 1)  # wrong: arg-type misc, reportArgumentType
ga.SGD(w, lr=lambda step: "f").step(w + 1)  # wrong: arg-type return-value, reportArgumentType
ga.RMSprop(w, rho=[0.9])  # wrong: arg-type, reportArgumentType
ga.LossScale("large")  # wrong: arg-type, reportArgumentType

# Parameters and groups.
ga.Adam(17)  # wrong: arg-type, reportArgumentType
ga.Adam("w")  # wrong: arg-type, reportArgumentType
ga.Adam([17])  # wrong: list-item, reportArgumentType
ga.Adam({"w": 17})  # wrong: dict-item, reportArgumentType
ga.Adam({"w": [[1.0, 2.0]]})  # wrong: list-item, reportArgumentType
ga.Adam({1: w})  # wrong: dict-item, reportArgumentType
ga.Adam([{"params": w, "lr": "fast"}])  # wrong: dict-item, reportArgumentType
ga.Adam([{"params": w, "rho": 0.9}])  # wrong: dict-item, reportArgumentType
ga.Adam([{"params": 17}])  # wrong: dict-item, reportArgumentType
ga.SGD([{"params": w, "decay": "l3"}])  # wrong: dict-item, reportArgumentType

# Steps.
optimizer.step(17)  # wrong: arg-type, reportArgumentType
optimizer.step("w")  # wrong: arg-type, reportArgumentType
optimizer.step({"w": 17})  # wrong: dict-item, reportArgumentType
optimizer.step({"w": [1.0, 2.0]})  # wrong: list-item, reportArgumentType
optimizer.step({"w": w}, max_nrom=1.0)  # wrong: call-arg, reportCallIssue
optimizer.step({"w": w}, max_norm="large")  # wrong: arg-type, reportArgumentType
optimizer.step({"w": w}, skip_nonfinite="yes")  # wrong: arg-type, reportArgumentType
optimizer.step({"w": w}, {"w": w})  # wrong: arg-type call-arg, reportCallIssue
ga.RowGrad([1, 2], w)  # wrong: arg-type, reportArgumentType
ga.RowGrad(np.array([1]), 2.0)  # wrong: arg-type, reportArgumentType
ga.RowGrad(np.array([1]), w[:1], duplicates="max")  # wrong: arg-type, reportArgumentType
ga.RowGrad(np.array([1]), w[:1]) + 2  # wrong: operator, reportOperatorIssue

# Attributes and results.
optimizer.lr = 0.1  # wrong: attr-defined, reportAttributeAccessIssue
optimizer.step_count = 0  # wrong: misc, reportAttributeAccessIssue
optimizer.zero_grad()  # wrong: attr-defined, reportAttributeAccessIssue
optimizer.state_dict().step_count  # wrong: attr-defined, reportAttributeAccessIssue
optimizer.read("w")  # wrong: call-arg, reportCallIssue
optimizer.save(17)  # wrong: arg-type, reportArgumentType
optimizer.params["w"] = w  # wrong: index, reportIndexIssue
ga.load("run.safetensors")  # wrong: call-arg, reportCallIssue
ga.AdaGrad(w)  # wrong: attr-defined, reportAttributeAccessIssue

# Other constructors.
ga.presets.torch.Adam(w, decay="l2")  # wrong: call-arg, reportCallIssue
ga.presets.keras.Adam(w, lr=0.1)  # wrong: call-arg, reportCallIssue
ga.presets.keras.SGD(w, sparse="exat")  # wrong: arg-type, reportArgumentType
ga.presets.optax.adam(w)  # wrong: call-arg, reportCallIssue
gpuadapt.torch.Adam(layer.parameters(), rounding="up")  # wrong: arg-type, reportArgumentType
gpuadapt.torch.Adam(layer.parameters(), sparse="dense")  # wrong: arg-type, reportArgumentType
gpuadapt.torch.Adam(layer.parameters(), learning_rate=1)  # wrong: call-arg, reportCallIssue
gpuadapt.torch.Adam(layer.parameters(), threads="all")  # wrong: arg-type, reportArgumentType

# Rules.
ga.Optimizer(max, w, lr=0.1)  # wrong: arg-type, reportArgumentType
ga.Optimizer(ga.rules.sgd, w, lr="fast")  # wrong: arg-type, reportArgumentType
ga.rule(17)  # wrong: call-overload, reportArgumentType
ga.rules.adam.variant(root=17)  # wrong: arg-type, reportArgumentType
ga.rules.sgd.source("gpu")  # wrong: arg-type, reportArgumentType
ga.testing.benchmark(ga.rules.sgd, dtype="float8")  # wrong: arg-type, reportArgumentType
ga.testing.benchmark(ga.rules.sgd, backend="gpu")  # wrong: arg-type, reportArgumentType
ga.Record(optimizer, every="often")  # wrong: arg-type, reportArgumentType
ga.Record(w)  # wrong: arg-type, reportArgumentType
ga.Record(optimizer, evry=2)  # wrong: call-arg, reportCallIssue
ga.schedules.Linear("fast", 0.0, steps=4)  # wrong: arg-type, reportArgumentType
ga.schedules.WarmUp(3)  # wrong: call-arg, reportCallIssue
ga.Adam(w, average=0.999)  # wrong: arg-type, reportArgumentType
ga.averages.Exponential("slow")  # wrong: arg-type, reportArgumentType
ga.testing.check_rule("sgd")  # wrong: arg-type, reportArgumentType
