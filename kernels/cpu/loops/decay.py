"""The decay of states over several steps; a product that float32 does not hold is not rounded."""

from numba import njit

from ..intrinsics import bits
from .interface import OPTIONS, SMALLEST_NORMAL, D, T, U, _normal


@njit(**OPTIONS)
def decayed(x, product):
    return _normal(x * T(product) if product >= SMALLEST_NORMAL else T(D(x) * product))


@njit(**OPTIONS)
def decay(x, product):
    """Multiply a row; zeros are not written, since they may not have taken memory yet."""
    some = U(0)
    for i in range(x.size):
        some |= bits(x[i])
    if some == U(0):
        return
    if product >= SMALLEST_NORMAL:
        for i in range(x.size):
            x[i] = _normal(x[i] * T(product))
    else:
        for i in range(x.size):
            x[i] = _normal(T(D(x[i]) * product))
