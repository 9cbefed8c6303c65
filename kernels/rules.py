"""The rules, in the papers' letters.

``p`` parameter, ``g`` gradient, ``h`` hyperparameters, ``h.t`` the step from 1. Where eps
stands differs between frameworks and changes results, so each place is a rule of its own:
plain (the place the method's usual statement has), ``_inside`` sqrt(x + eps), ``_outside``
sqrt(x) + eps, ``_uncorrected`` sqrt of the second moment before bias correction, + eps.

``rate`` is the per-element effective learning rate that multiplies the gradient.
"""

from .functions import sq, sqrt
from .rule import rule


@rule
def sgd(p, g, h):
    """p <- p - lr g

    Robbins & Monro, A Stochastic Approximation Method, 1951.
    """
    rate = h.lr
    return p - rate * g


@rule
def momentum(p, g, b, h):
    """b <- momentum b + g ;  p <- p - lr b

    Polyak, Some methods of speeding up the convergence of iteration methods, 1964
    (heavy ball), with lr outside the buffer.
    """
    rate = h.lr
    b = h.momentum * b + g
    return p - rate * b, b


@rule
def nesterov(p, g, b, h):
    """b <- momentum b + g ;  p <- p - lr (g + momentum b)

    Sutskever et al., On the importance of initialization and momentum in deep learning,
    2013, section 2, eq. 3-4, written at the look-ahead point.
    """
    rate = h.lr
    b = h.momentum * b + g
    return p - rate * (g + h.momentum * b), b


@rule
def adagrad(p, g, G, h):
    """G <- G + g^2 ;  p <- p - lr g / sqrt(G + eps)

    Duchi, Hazan & Singer, Adaptive Subgradient Methods, 2011, the diagonal form of fig. 1.
    """
    G = G + sq(g)
    rate = h.lr / sqrt(G + h.eps)
    return p - rate * g, G


@rule
def adagrad_outside(p, g, G, h):
    """G <- G + g^2 ;  p <- p - lr g / (sqrt(G) + eps)"""
    G = G + sq(g)
    rate = h.lr / (sqrt(G) + h.eps)
    return p - rate * g, G


@rule
def rmsprop(p, g, G, h):
    """G <- rho G + (1 - rho) g^2 ;  p <- p - lr g / sqrt(G + eps)

    Tieleman & Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012.
    """
    G = h.rho * G + (1 - h.rho) * sq(g)
    rate = h.lr / sqrt(G + h.eps)
    return p - rate * g, G


@rule
def rmsprop_outside(p, g, G, h):
    """G <- rho G + (1 - rho) g^2 ;  p <- p - lr g / (sqrt(G) + eps)"""
    G = h.rho * G + (1 - h.rho) * sq(g)
    rate = h.lr / (sqrt(G) + h.eps)
    return p - rate * g, G


@rule
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


@rule
def adam(p, g, m, v, h):
    """m <- beta1 m + (1 - beta1) g ;  v <- beta2 v + (1 - beta2) g^2 ;
    p <- p - lr mhat / (sqrt(vhat) + eps),
    mhat = m / (1 - beta1^t),  vhat = v / (1 - beta2^t)

    Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1.
    """
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    mhat = 1 / (1 - h.beta1**h.t) * m
    vhat = 1 / (1 - h.beta2**h.t) * v
    rate = h.lr / (sqrt(vhat) + h.eps)
    return p - rate * mhat, m, v


@rule
def adam_inside(p, g, m, v, h):
    """As adam, with p <- p - lr mhat / sqrt(vhat + eps)"""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    mhat = 1 / (1 - h.beta1**h.t) * m
    vhat = 1 / (1 - h.beta2**h.t) * v
    rate = h.lr / sqrt(vhat + h.eps)
    return p - rate * mhat, m, v


@rule
def adam_uncorrected(p, g, m, v, h):
    """As adam, with p <- p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)

    Kingma & Ba 2015, the reordering at the end of section 2 (there eps is called eps-hat).
    """
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * sq(g)
    rate = h.lr * sqrt(1 - h.beta2**h.t) / (1 - h.beta1**h.t) / (sqrt(v) + h.eps)
    return p - rate * m, m, v
