"""The methods, from the papers, in plain NumPy float64; imports nothing of the package.

Each takes the parameter, the gradient, a dictionary of states (filled on first use), the
number of the step from 1 and the hyperparameters, and returns the new parameter. What takes
``square`` may be given a mean of squares over a row instead.
"""

import numpy as np


def sgd(w, g, state, t, *, lr):
    return w - lr * g


def momentum(w, g, state, t, *, lr, momentum, dampening=0.0):
    first = "b" not in state
    buffer = state["b"] = g if first else momentum * state["b"] + (1 - dampening) * g
    return w - lr * buffer


def nesterov(w, g, state, t, *, lr, momentum):
    buffer = state["b"] = momentum * state.get("b", 0.0) + g
    return w - lr * (g + momentum * buffer)


def velocity(w, g, state, t, *, lr, momentum, nesterov=False):
    """With the sign of the papers' velocity; ours is its negative."""
    v = momentum * -state.get("b", 0.0) - lr * g
    state["b"] = -v
    return w + momentum * v - lr * g if nesterov else w + v


def adagrad(
    w, g, state, t, *, lr, eps=None, eps_mode="inside", square=np.square,
    initial_accumulator=0.0, lr_decay=0.0,
):  # fmt: skip
    total = state["G"] = state.get("G", initial_accumulator) + square(g)
    return w - lr / (1 + (t - 1) * lr_decay) * over(g, root(total, eps, eps_mode))


def rmsprop(
    w, g, state, t, *, lr, rho, eps, eps_mode="inside", square=np.square,
    momentum=0.0, momentum_form="heavy_ball", centered=False, initial_square=0.0,
):  # fmt: skip
    mean = state["G"] = rho * state.get("G", initial_square) + (1 - rho) * square(g)
    if centered:
        average = state["M"] = rho * state.get("M", 0.0) + (1 - rho) * g
        mean = state["V"] = np.maximum(mean - average**2, 0)
    step = g / root(mean, eps, eps_mode)
    if not momentum:
        return w - lr * step
    if momentum_form == "heavy_ball":
        state["b"] = momentum * state.get("b", 0.0) + step
        return w - lr * state["b"]
    state["b"] = momentum * state.get("b", 0.0) + lr * step
    return w - state["b"]


def adadelta(w, g, state, t, *, lr, rho, eps):
    mean = state["G"] = rho * state.get("G", 0.0) + (1 - rho) * g**2
    before = state.get("U", np.zeros_like(w))
    step = g * np.sqrt(before + eps) / np.sqrt(mean + eps)
    state["U"] = rho * before + (1 - rho) * step**2
    return w - lr * step


def adam(
    w, g, state, t, *, lr, beta1, beta2, eps, eps_mode="outside", square=np.square,
    amsgrad=False, bias_correction=True,
):  # fmt: skip
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * square(g)
    c1, c2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1.0, 1.0)
    if amsgrad == "corrected":
        vhat = state["w"] = np.maximum(state.get("w", 0.0), v / c2)
    elif amsgrad:
        state["w"] = np.maximum(state.get("w", 0.0), v)
        vhat = state["w"] / c2
    else:
        vhat = v / c2
    return w - lr * (m / c1) / adam_root(vhat, c2, eps, eps_mode)


def adamax(w, g, state, t, *, lr, beta1, beta2, eps, eps_mode="add", bias_correction=True):
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    size = np.abs(g) + eps if eps_mode == "max" else np.abs(g)
    u = state["u"] = np.maximum(beta2 * state.get("u", 0.0), size)
    mhat = m / (1 - beta1**t) if bias_correction else m
    return w - lr * mhat / (u if eps_mode == "max" else u + eps)


def nadam(
    w, g, state, t, *, lr, beta1, beta2, eps, eps_mode="outside", square=np.square,
    momentum_decay=0.004, schedule=True, bias_correction=True,
):  # fmt: skip
    def mu(i):
        return beta1 * (1 - 0.5 * 0.96 ** (i * momentum_decay)) if schedule else beta1

    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * square(g)
    product = np.prod([mu(i) for i in range(1, t + 1)])
    one, two, c2 = 1 - product, 1 - product * mu(t + 1), 1 - beta2**t
    if not bias_correction:
        one = two = c2 = 1.0
    mhat = mu(t + 1) * m / two + (1 - mu(t)) * g / one
    return w - lr * mhat / adam_root(v / c2, c2, eps, eps_mode)


def radam(
    w, g, state, t, *, lr, beta1, beta2, eps, eps_mode="outside", square=np.square,
    threshold=5.0, threshold_inclusive=False, bias_correction=True,
):  # fmt: skip
    m = state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * square(g)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    c1, c2 = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1.0, 1.0)
    if length < threshold or (length == threshold and not threshold_inclusive):
        return w - lr * m / c1
    r = np.sqrt((length - 4) / (longest - 4) * (length - 2) / (longest - 2) * longest / length)
    return w - lr * r * (m / c1) / adam_root(v / c2, c2, eps, eps_mode)


def lion(w, g, state, t, *, lr, beta1, beta2):
    m = state.get("m", 0.0)
    state["m"] = beta2 * m + (1 - beta2) * g
    return w - lr * np.sign(beta1 * m + (1 - beta1) * g)


def ftrl(w, g, state, t, *, lr, l1, l2, beta, initial_accumulator=0.0, square=np.square):
    before = state.get("n", initial_accumulator)
    n = state["n"] = before + square(g)
    sigma = (np.sqrt(n) - np.sqrt(before)) / lr
    z = state["z"] = state.get("z", 0.0) + g - sigma * w
    return np.where(np.abs(z) <= l1, 0.0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / lr + l2))


def root(x, eps, eps_mode):
    """sqrt(x + eps), sqrt(x) + eps or sqrt(x)."""
    if eps_mode == "none":
        return np.sqrt(x)
    return np.sqrt(x + eps) if eps_mode == "inside" else np.sqrt(x) + eps


def adam_root(vhat, c2, eps, eps_mode):
    """As `root`; or of the moment before its correction, corrected together with eps."""
    if eps_mode == "uncorrected":
        return (np.sqrt(vhat * c2) + eps) / np.sqrt(c2)
    return root(vhat, eps, eps_mode)


def over(a, b):
    """a / b, with 0 / 0 = 0. Functions of CuPy's arrays have no ``where=``: `np.where` it is."""
    neither = (a == 0) & (b == 0)
    return np.where(neither, 0, a / np.where(neither, 1, b))


def with_options(method, *, weight_decay=0.0, decay="l2", maximize=False):
    """The method on the loss with weight decay: Loshchilov & Hutter 2019, algorithms 1, 2."""

    def update(w, g, state, t, **hyper):
        g = -g if maximize else g
        if decay == "l2":
            g = g + weight_decay * w
        elif decay == "decoupled":
            w = w - hyper["lr"] * weight_decay * w
        elif decay == "absolute":
            w = w - weight_decay * w
        w = method(w, g, state, t, **hyper)
        return w - hyper["lr"] * weight_decay * w if decay == "after" else w

    return update
