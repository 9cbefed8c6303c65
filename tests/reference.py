"""The methods, from the papers, in plain NumPy float64; imports nothing of the package.

Each takes the parameter, the gradient, a dictionary of states (filled on first use), the
number of the step from 1 and the hyperparameters, and returns the new parameter. What takes
``square`` may be given a mean of squares over a row instead.
"""

import numpy as np


def sgd(w, g, state, t, *, lr):
    return w - lr * g


def momentum(w, g, state, t, *, lr, momentum):
    buffer = state["b"] = momentum * state.get("b", 0.0) + g
    return w - lr * buffer


def nesterov(w, g, state, t, *, lr, momentum):
    buffer = state["b"] = momentum * state.get("b", 0.0) + g
    return w - lr * (g + momentum * buffer)


def adagrad(w, g, state, t, *, lr, eps, eps_mode="inside", square=np.square):
    total = state["G"] = state.get("G", 0.0) + square(g)
    return w - lr * g / root(total, eps, eps_mode)


def rmsprop(w, g, state, t, *, lr, rho, eps, eps_mode="inside", square=np.square):
    mean = state["G"] = rho * state.get("G", 0.0) + (1 - rho) * square(g)
    return w - lr * g / root(mean, eps, eps_mode)


def adadelta(w, g, state, t, *, lr, rho, eps):
    mean = state["G"] = rho * state.get("G", 0.0) + (1 - rho) * g**2
    before = state.get("U", np.zeros_like(w))
    step = g * np.sqrt(before + eps) / np.sqrt(mean + eps)
    state["U"] = rho * before + (1 - rho) * step**2
    return w - lr * step


def adam(w, g, state, t, *, lr, beta1, beta2, eps, eps_mode="outside", square=np.square):
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * square(g)
    if eps_mode == "uncorrected":
        return w - lr * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + eps)
    return w - lr * (m / (1 - beta1**t)) / root(v / (1 - beta2**t), eps, eps_mode)


def root(x, eps, eps_mode):
    """sqrt(x + eps) or sqrt(x) + eps."""
    return np.sqrt(x + eps) if eps_mode == "inside" else np.sqrt(x) + eps


def with_options(method, *, weight_decay=0.0, decay="l2", maximize=False):
    """The method on the loss with weight decay: Loshchilov & Hutter 2019, algorithms 1, 2."""

    def update(w, g, state, t, **hyper):
        g = -g if maximize else g
        if decay == "l2":
            g = g + weight_decay * w
        else:
            w = w - hyper["lr"] * weight_decay * w
        return method(w, g, state, t, **hyper)

    return update
