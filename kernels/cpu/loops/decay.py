"""The decay of states over several steps; a product that float32 does not hold is not rounded."""

from numba import njit

from .interface import OPTIONS, SMALLEST_NORMAL, D, T, _normal


@njit(**OPTIONS)
def decayed(x, product):
    return _normal(x * T(product) if product >= SMALLEST_NORMAL else T(D(x) * product))


@njit(**OPTIONS)
def decay(x, product):
    if product >= SMALLEST_NORMAL:
        for i in range(x.size):
            x[i] = _normal(x[i] * T(product))
    else:
        for i in range(x.size):
            x[i] = _normal(T(D(x[i]) * product))
