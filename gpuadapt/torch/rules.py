"""Rules whose states torch keeps in another form than gpuadapt's own methods."""

from gpuadapt.kernels.language.primitives import maximum, sq, sqrt
from gpuadapt.kernels.language.rule import rule
from gpuadapt.kernels.pieces import outside


@rule(nonnegative="G")
def torch_centered(p, g, G, M, h):
    """G <- rho G + (1 - rho) g^2 ;  M <- rho M + (1 - rho) g ;
    p <- p - lr g / (sqrt(G - M^2) + eps)

    Graves, Generating Sequences with Recurrent Neural Networks, 2013, eq. 38-41, with torch's
    eps and states. Rounding may take the difference below zero, where torch gets NaN.
    """
    G = h.rho * G + (1 - h.rho) * sq(g)
    M = M + (1 - h.rho) * (g - M)
    rate = h.lr / (sqrt(maximum(G - M * M, 0)) + h.eps)
    return p - rate * g, G, M


@rule(nonnegative="G")
def torch_centered_momentum(p, g, G, M, b, h):
    """As torch_centered, with b <- momentum b + g / root ;  p <- p - lr b"""
    G = h.rho * G + (1 - h.rho) * sq(g)
    M = M + (1 - h.rho) * (g - M)
    root = sqrt(maximum(G - M * M, 0)) + h.eps
    rate = h.lr / root
    b = h.momentum * b + g / root
    return p - h.lr * b, G, M, b


@rule(root=outside, nonnegative="v")
def torch_nadam(p, g, m, v, h):
    """As `gpuadapt.kernels.rules.nadam`, with mu_1 ... mu_t = mu_product, which torch keeps

    Dozat, Incorporating Nesterov Momentum into Adam, 2016, algorithm 2 and section 3.
    """
    mu = h.beta1 * (1 - 0.5 * 0.96 ** (h.t * h.momentum_decay))
    next_mu = h.beta1 * (1 - 0.5 * 0.96 ** ((h.t + 1) * h.momentum_decay))
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    scale = root(v / (1 - h.beta2**h.t), h)
    rate = h.lr / scale
    # One after the other, as torch: together they would be rounded once.
    p = p - h.lr * (1 - mu) / (1 - h.mu_product) * g / scale
    return p - h.lr * next_mu / (1 - h.mu_product * next_mu) * m / scale, m, v
