"""The update of many contiguous arrays in one launch.

One array of n elements is a table of one. Arguments: addresses (arrays, parts) of parameters and
states, gradients (arrays,) addresses or 0 for none, offsets (arrays,) of each array's coefficients
in numbers (see `gpuadapt.kernels.numerics.scalar_layout`), tables, and whether the arrays are
larger than the caches.
"""

from numba import njit, types

from ..intrinsics import keep
from .interface import (
    OPTIONS,
    TABLES,
    block_buffers,
    coefficients_at,
    keys_at,
    update_chunk,
    views_of,
)

ARGUMENTS = types.Tuple(
    [
        types.Array(types.int64, 2, "C"),
        types.Array(types.int64, 1, "C"),
        types.Array(types.int64, 1, "C"),
        types.Array(types.float64, 1, "C"),
        *[types.Array(types.int64, 1, "C")] * TABLES,
        types.boolean,
    ]
)


@njit(**OPTIONS)
def run_chunks(first, last, chunks, arguments):
    addresses, gradients, offsets, numbers = arguments[:4]
    tables, long = arguments[4:-1], arguments[-1]
    storage = block_buffers()
    buffers = views_of(storage)
    for k in range(first, last):
        array, start, size = chunks[k, 0], chunks[k, 1], chunks[k, 2]
        if gradients[array] != 0:
            offset = offsets[array]
            update_chunk(
                array, start, size, addresses, gradients,
                coefficients_at(numbers, offset), keys_at(tables, array, numbers, offset),
                tables, buffers, long,
            )  # fmt: skip
    keep(storage)
