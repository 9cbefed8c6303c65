"""The rules, in the papers' letters.

``p`` parameter, ``g`` gradient, ``h`` hyperparameters, ``h.t`` the step from 1. What
differs between statements of one method is a function that its rule calls, one of
`gpuadapt.kernels.pieces`; `Rule.variant` exchanges them.

``rate`` is the per-element effective learning rate that multiplies the gradient.
"""

from .host_functions import momentum_product, rectification
from .language.primitives import abs, maximum, sign, sq, sqrt, where
from .language.rule import Rule, rule
from .pieces import corrected, inside, outside


def __dir__():
    return sorted(name for name, value in globals().items() if isinstance(value, Rule))


@rule
def sgd(p, g, h):
    """p <- p - lr g

    Robbins & Monro, A Stochastic Approximation Method, 1951.
    """
    rate = h.lr
    return p - rate * g


@rule
def momentum(p, g, b, h):
    """b <- momentum b + (1 - dampening) g, the first time momentum b + g ;  p <- p - lr b

    Polyak, Some methods of speeding up the convergence of iteration methods, 1964
    (heavy ball), with lr outside the buffer; dampening as in Torch, which takes the first
    gradient whole.
    """
    rate = h.lr
    b = h.momentum * b + where(h.t == 1, 1, 1 - h.dampening) * g
    return p - rate * b, b


@rule
def nesterov(p, g, b, h):
    """b <- momentum b + g ;  p <- p - lr (g + momentum b)

    Sutskever et al., On the importance of initialization and momentum in deep learning,
    2013, section 2, eq. 3-4, written at the look-ahead point, with lr outside the buffer.
    """
    rate = h.lr
    b = h.momentum * b + g
    return p - rate * (g + h.momentum * b), b


@rule
def velocity(p, g, b, h):
    """b <- momentum b + lr g ;  p <- p - b

    As momentum, with lr inside the buffer: what was gathered keeps the lr of its time.
    """
    rate = h.lr
    b = h.momentum * b + rate * g
    return p - b, b


@rule
def nesterov_velocity(p, g, b, h):
    """b <- momentum b + lr g ;  p <- p - (lr g + momentum b)

    Sutskever et al. 2013, section 2, eq. 3-4, written at the look-ahead point.
    """
    rate = h.lr
    step = rate * g
    b = h.momentum * b + step
    return p - (step + h.momentum * b), b


@rule(root=inside, nonnegative="G")
def adagrad(p, g, G, h):
    """G <- G + g^2 ;  p <- p - lr / (1 + (t - 1) lr_decay) g / root(G)

    Duchi, Hazan & Singer, Adaptive Subgradient Methods, 2011, the diagonal form of fig. 1,
    where lr is constant.
    """
    G = G + sq(g)
    rate = h.lr / (1 + (h.t - 1) * h.lr_decay) / root(G, h)
    return p - rate * g, G


@rule(root=inside, nonnegative="G")
def rmsprop(p, g, G, h):
    """G <- rho G + (1 - rho) g^2 ;  p <- p - lr g / root(G)

    Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012.
    """
    G = h.rho * G + (1 - h.rho) * sq(g)
    rate = h.lr / root(G, h)
    return p - rate * g, G


@rule(root=inside, nonnegative="G")
def rmsprop_momentum(p, g, G, b, h):
    """As rmsprop, with b <- momentum b + g / root(G) ;  p <- p - lr b"""
    G = h.rho * G + (1 - h.rho) * sq(g)
    r = root(G, h)
    rate = h.lr / r
    b = h.momentum * b + g / r
    return p - h.lr * b, G, b


@rule(root=inside, nonnegative="G")
def rmsprop_velocity(p, g, G, b, h):
    """As rmsprop, with b <- momentum b + lr g / root(G) ;  p <- p - b"""
    G = h.rho * G + (1 - h.rho) * sq(g)
    rate = h.lr / root(G, h)
    b = h.momentum * b + rate * g
    return p - b, G, b


@rule(root=inside, nonnegative="V")
def centered(p, g, V, M, h):
    """V <- rho V + rho (1 - rho) (g - M)^2 ;  M <- rho M + (1 - rho) g ;
    p <- p - lr g / root(V)

    Graves, Generating Sequences with Recurrent Neural Networks, 2013, eq. 38-41, where V is
    G - M^2 with G <- rho G + (1 - rho) g^2. That difference has no correct digit left where
    gradients vary by less than the square root of the rounding error of their mean; V is the
    same number, computed without it.
    """
    V = h.rho * V + h.rho * (1 - h.rho) * sq(g - M)
    M = h.rho * M + (1 - h.rho) * g
    rate = h.lr / root(V, h)
    return p - rate * g, V, M


@rule(root=inside, nonnegative="V")
def centered_momentum(p, g, V, M, b, h):
    """As centered, with b <- momentum b + g / root(V) ;  p <- p - lr b"""
    V = h.rho * V + h.rho * (1 - h.rho) * sq(g - M)
    M = h.rho * M + (1 - h.rho) * g
    r = root(V, h)
    rate = h.lr / r
    b = h.momentum * b + g / r
    return p - h.lr * b, V, M, b


@rule(root=inside, nonnegative="V")
def centered_velocity(p, g, V, M, b, h):
    """As centered, with b <- momentum b + lr g / root(V) ;  p <- p - b"""
    V = h.rho * V + h.rho * (1 - h.rho) * sq(g - M)
    M = h.rho * M + (1 - h.rho) * g
    rate = h.lr / root(V, h)
    b = h.momentum * b + rate * g
    return p - b, V, M, b


@rule(nonnegative=("G", "U"))
def adadelta(p, g, G, U, h):
    """G <- rho G + (1 - rho) g^2 ;  u = g sqrt(U + eps) / sqrt(G + eps) ;
    U <- rho U + (1 - rho) u^2 ;  p <- p - lr u

    Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, algorithm 1 (there lr = 1).
    """
    G = h.rho * G + (1 - h.rho) * sq(g)
    ratio = sqrt(U + h.eps) / sqrt(G + h.eps)
    u = ratio * g
    U = h.rho * U + (1 - h.rho) * sq(u)
    rate = h.lr * ratio
    return p - rate * g, G, U


@rule(root=outside, debias=corrected, nonnegative="v")
def adam(p, g, m, v, h):
    """m <- beta1 m + (1 - beta1) g ;  v <- beta2 v + (1 - beta2) g^2 ;
    p <- p - lr mhat / root(vhat),
    mhat = m / (1 - beta1^t),  vhat = v / (1 - beta2^t)

    Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1.
    """
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    mhat = debias(h.beta1**h.t, h) * m
    vhat = debias(h.beta2**h.t, h) * v
    rate = h.lr / root(vhat, h)
    return p - rate * mhat, m, v


@rule(root=outside, debias=corrected, nonnegative=("v", "w"))
def amsgrad(p, g, m, v, w, h):
    """As adam, with w <- max(w, v) in the place of v

    Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, 2018, algorithm 2, with
    Adam's correction of both moments.
    """
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    w = maximum(w, v)
    mhat = debias(h.beta1**h.t, h) * m
    what = debias(h.beta2**h.t, h) * w
    rate = h.lr / root(what, h)
    return p - rate * mhat, m, v, w


@rule(root=outside, debias=corrected, nonnegative=("v", "w"))
def amsgrad_corrected(p, g, m, v, w, h):
    """As adam, with w <- max(w, vhat) in the place of vhat"""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    w = maximum(w, debias(h.beta2**h.t, h) * v)
    mhat = debias(h.beta1**h.t, h) * m
    rate = h.lr / root(w, h)
    return p - rate * mhat, m, v, w


@rule(debias=corrected, nonnegative="u")
def adamax(p, g, m, u, h):
    """m <- beta1 m + (1 - beta1) g ;  u <- max(beta2 u, |g|) ;  p <- p - lr mhat / (u + eps)

    Kingma & Ba 2015, algorithm 2 (there without eps).
    """
    m = h.beta1 * m + (1 - h.beta1) * g
    u = maximum(h.beta2 * u, abs(g))
    rate = h.lr / (u + h.eps)
    return p - rate * (debias(h.beta1**h.t, h) * m), m, u


@rule(debias=corrected, nonnegative="u")
def adamax_floor(p, g, m, u, h):
    """As adamax, with u <- max(beta2 u, |g| + eps) ;  p <- p - lr mhat / u"""
    m = h.beta1 * m + (1 - h.beta1) * g
    u = maximum(h.beta2 * u, abs(g) + h.eps)
    rate = h.lr / u
    return p - rate * (debias(h.beta1**h.t, h) * m), m, u


@rule(prepare=momentum_product, root=outside, debias=corrected, nonnegative="v")
def nadam(p, g, m, v, h):
    """m <- beta1 m + (1 - beta1) g ;  v <- beta2 v + (1 - beta2) g^2 ;
    p <- p - lr mhat / root(vhat),
    mu_t = beta1 (1 - 0.5 0.96^(t momentum_decay)),
    mhat = mu_(t+1) m / (1 - mu_1 ... mu_(t+1)) + (1 - mu_t) g / (1 - mu_1 ... mu_t)

    Dozat, Incorporating Nesterov Momentum into Adam, 2016, algorithm 2 with the schedule
    of its section 3; an infinite momentum_decay leaves mu at beta1.
    """
    mu = h.beta1 * (1 - 0.5 * 0.96 ** (h.t * h.momentum_decay))
    next_mu = h.beta1 * (1 - 0.5 * 0.96 ** ((h.t + 1) * h.momentum_decay))
    product = momentum_product(h.beta1, h.momentum_decay, h.t)
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    mhat = debias(product * next_mu, h) * next_mu * m + debias(product, h) * (1 - mu) * g
    vhat = debias(h.beta2**h.t, h) * v
    rate = h.lr / root(vhat, h)
    return p - rate * mhat, m, v


@rule(prepare=rectification, root=outside, debias=corrected, nonnegative="v")
def radam(p, g, m, v, h):
    """As adam, with p <- p - lr r mhat / root(vhat) if r > 0, else p <- p - lr mhat

    Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, 2020, algorithm 2,
    whose r_t this is; zero until the variance can be estimated.
    """
    r = rectification(h.beta2, h.threshold, h.threshold_inclusive, h.t)
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    mhat = debias(h.beta1**h.t, h) * m
    vhat = debias(h.beta2**h.t, h) * v
    rate = where(r > 0, h.lr * r / root(vhat, h), h.lr)
    return p - rate * mhat, m, v


@rule(nonnegative="n")
def ftrl(p, g, z, n, h):
    """z <- z + g - (sqrt(n + g^2) - sqrt(n)) / lr p ;  n <- n + g^2 ;
    p <- (l1 sign(z) - z) / ((beta + sqrt(n)) / lr + l2) where |z| > l1, else 0

    McMahan et al., Ad Click Prediction: a View from the Trenches, 2013, algorithm 1.
    """
    total = n + sq(g)
    z = z + g - 1 / h.lr * (sqrt(total) - sqrt(n)) * p
    rate = h.lr / (h.beta + sqrt(total) + h.lr * h.l2)
    return where(abs(z) <= h.l1, 0, rate * (h.l1 * sign(z) - z)), z, total


@rule
def lion(p, g, m, h):
    """p <- p - lr sign(beta1 m + (1 - beta1) g) ;  m <- beta2 m + (1 - beta2) g

    Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, algorithm 2.
    """
    rate = h.lr
    step = sign(h.beta1 * m + (1 - h.beta1) * g)
    return p - rate * step, h.beta2 * m + (1 - h.beta2) * g
