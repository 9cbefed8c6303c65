"""Functions of one line that rules call where the published forms of a method differ.

``root(x, h)`` is the square root of a second moment, with eps somewhere in it;
``debias(power, h)`` the factor that takes a mean's start at zero out.
"""

from .language.primitives import sqrt, where


def __dir__():
    return sorted(
        name
        for name, value in globals().items()
        if getattr(value, "__module__", "") == __name__ and name != "__dir__"
    )


def inside(x, h):
    """sqrt(x + eps)"""
    return sqrt(x + h.eps)


def outside(x, h):
    """sqrt(x) + eps"""
    return sqrt(x) + h.eps


def both(x, h):
    """sqrt(x + eps_root) + eps"""
    return sqrt(x + h.eps_root) + h.eps


def without(x, h):
    """sqrt(x), and 1 for x = 0, where the gradient is zero as well"""
    return where(x == 0, 1, sqrt(x))


def uncorrected(x, h):
    """sqrt(x) + eps / sqrt(1 - beta2^t): eps beside the moment as it was before correction

    Kingma & Ba 2015, the reordering at the end of section 2 (there eps is called eps-hat).
    """
    return sqrt(x) + h.eps / sqrt(1 - h.beta2**h.t)


def corrected(power, h):
    """1 / (1 - power)"""
    return 1 / (1 - power)


def biased(power, h):
    """1: no correction"""
    return 1
