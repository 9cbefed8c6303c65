"""optax under jit, parameters and state donated, so that they are updated in place."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from ...arrays import to_host
from ..candidates import Given, Hyper, Make, Trainer
from .installed import load as imported

NAME = "optax"
PACKAGES = ("optax",)
DTYPES = ("float32",)


def library() -> Any:
    # JAX would take most of a GPU's memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return imported("optax")


def makers(method: str, backend: str) -> dict[str, Make]:
    on = {"cpu": "cpu", "cuda": "gpu"}[backend]
    if imported("jax").default_backend() != on:
        return {}
    return {"optax jit": partial(make, method)}


def make(method: str, start: Given, hyper: Hyper) -> Trainer:
    jax, jnp = imported("jax"), imported("jax.numpy")
    transform, form = _transform(method, hyper)
    parameters = [jnp.array(to_host(w)) for w in start]
    now: dict[str, Any] = {"w": parameters, "state": transform.init(parameters)}

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(w: Any, state: Any, gradients: Any) -> Any:
        updates, state = transform.update(gradients, state, w)
        return library().apply_updates(w, updates), state

    def load(gradients: Given) -> None:
        now["gradients"] = [jnp.array(to_host(g)) for g in gradients]

    def step() -> None:
        now["w"], now["state"] = update(now["w"], now["state"], now["gradients"])
        jax.block_until_ready(now["w"])

    return Trainer(load, step, lambda: [np.asarray(w) for w in now["w"]], form)


def _transform(method: str, hyper: Hyper) -> tuple[Any, dict[str, Any]]:
    """The gradient transformation, and which form it is."""
    optax, lr, eps = library(), hyper["lr"], hyper.get("eps")
    if method == "sgd":
        return optax.sgd(lr), {}
    if method == "adam":
        made = optax.adam(lr, b1=hyper["beta1"], b2=hyper["beta2"], eps=eps)
        return made, {"eps_mode": "outside"}
    if method == "adagrad":
        made = optax.adagrad(lr, initial_accumulator_value=0.0, eps=eps)
        return made, {"eps_mode": "inside"}
    if method == "rmsprop":
        return optax.rmsprop(lr, decay=hyper["rho"], eps=eps), {"eps_mode": "inside"}
    return optax.adadelta(lr, rho=hyper["rho"], eps=eps), {}
