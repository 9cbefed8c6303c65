"""The update of a row that occurs in a batch."""

from numba import njit

from ..intrinsics import part
from .interface import INLINE, SUMS, update_row
from .merged_gradient import merged_gradient


@njit(**INLINE)
def process_row(arguments, batch, i, end, row, k):
    gradient = merged_gradient(batch, i, end, k)
    update_row(arguments, row, gradient, part(batch[-1], k, 0, SUMS))
