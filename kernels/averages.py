"""Averages of the parameter, in the rules' own language; `averaging` puts them after a rule.

``p`` new parameter, ``a`` average, which begins as the parameter, ``h`` hyperparameters, ``h.t``
the number of the update from 1.
"""

from .averaging import average
from .host_functions import averaged_models, is_due
from .language.primitives import maximum, where
from .language.rule import rule


def exponential(p, a, h):
    """a <- decay a + (1 - decay) p, the first time a <- p

    Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992, with
    exponential weights; torch.optim.swa_utils.get_ema_avg_fn.
    """
    keep = where(h.t == 1, 0, h.decay)
    return p, keep * a + (1 - keep) * p


def corrected_exponential(p, a, h):
    """a <- (decay (1 - decay^(t-1)) a + (1 - decay) p) / (1 - decay^t)

    The mean of weights decay^(t-i), i = 1 ... t, whose sum is (1 - decay^t) / (1 - decay): what
    Kingma & Ba, Adam, 2015, section 3, divide by, in every step in place of once at the end.
    """
    keep = h.decay * (1 - h.decay ** (h.t - 1)) / (1 - h.decay**h.t)
    return p, keep * a + (1 - h.decay) / (1 - h.decay**h.t) * p


def equal(p, a, h):
    """a <- a + (p - a) / n, with n the number of models averaged ;  a <- p up to the first

    Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, Averaging Weights Leads to Wider Optima and
    Better Generalization, 2018, algorithm 1.
    """
    n = averaged_models(h.t, h.start, h.every)
    mean = where(n == 1, p, a + (p - a) / maximum(n, 1))
    return p, where(n == 0, a, mean)


def lookahead(p, a, h):
    """every so many updates: a <- a + alpha (p - a) ;  p <- a

    Zhang, Lucas, Hinton & Ba, Lookahead Optimizer: k steps forward, 1 step back, 2019,
    algorithm 1; a are the slow weights.
    """
    due = is_due(h.t, h.every)
    a = where(due == 1, a + h.alpha * (p - a), a)
    return where(due == 1, a, p), a


EXPONENTIAL = average(exponential, misses_steps=True)
CORRECTED = average(corrected_exponential, constant=("decay",))
EQUAL = average(equal, prepare=(averaged_models,), constant=("start", "every"))
LOOKAHEAD = average(lookahead, prepare=(is_due,), constant=("every",))


@rule
def rounded(p, g, h):
    """p <- g, rounded to the format of p"""
    return g
