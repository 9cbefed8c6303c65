"""The threads of Numba's layer, entered as those of GNU OpenMP are."""

import numpy as np
from numba import cfunc, prange, types

from ..intrinsics import call_address


@cfunc(types.void(types.intp, types.intp, types.uint32, types.uint32), parallel=True, cache=True)
def enter(function, data, threads, flags):
    """Call ``function(data)`` so many times at once, as ``GOMP_parallel`` does."""
    for _ in prange(np.intp(threads)):
        call_address(function, data)
