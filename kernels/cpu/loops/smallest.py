"""The smallest magnitude of a block that is not zero."""

from numba import njit

from .interface import OPTIONS, S, U, smaller_magnitude


@njit(**OPTIONS)
def smallest_of(numbers, size):
    """The bits of the smallest magnitude other than zero."""
    smallest = U(2**32 - 1)
    for i in range(size):
        smallest = smaller_magnitude(smallest, S(numbers[i]))
    return smallest
