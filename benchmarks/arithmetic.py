"""The operations of a rule alone, over arrays that stay in the first cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpuadapt.kernels.cpu import calling, compile, multi_tensor
from gpuadapt.kernels.formats import uniform
from gpuadapt.kernels.language.rule import Rule


def roof(rule: Rule, dtype: np.dtype, size: int) -> Callable[[], Any]:
    """The CPU kernel's inner loop for as many elements, over arrays that stay in the first cache.

    What is left of a step's time where memory costs nothing: mostly division and square
    roots, which are rounded correctly.
    """
    names = [f"{name}_" for name in rule.program.arguments]
    arguments = ", ".join([*names, *rule.coefficients])
    arrays_of_block = ", ".join(f"{name}[at:at + {BLOCK}]" for name in names)
    scalars = "".join(f"{name}, " for name in rule.coefficients)
    module = compile.load(rule.name, multi_tensor.source(rule, uniform(rule, dtype)))
    found: dict[str, Any] = {"update_span": module.update_span}
    text = _ARITHMETIC.format(
        arguments=arguments, arrays=arrays_of_block, scalars=scalars, block=BLOCK
    )
    exec(text, found)  # noqa: S102
    repeat, threads = found["repeat"], calling.share(size, threads="numba")
    # Each thread has a block of its own: `prange` gives every thread one run of numbers.
    # From the beginning of a cache line, and not all at the same place in a page.
    line, each = compile.LINE // dtype.itemsize, threads * BLOCK
    memory = np.ones(len(names) * (each + 5 * line) + line, dtype)
    memory = memory[-(memory.ctypes.data // dtype.itemsize) % line :]
    arrays = [memory[k * (each + 5 * line) :][:each] for k in range(len(names))]
    numbers = [dtype.type(0.5)] * len(rule.coefficients)
    count = max(1, size // BLOCK)
    return lambda: repeat(count, threads, *arrays, *numbers)


BLOCK = 1024
"""Elements whose arrays, up to four, fit in a first cache with 32 KB."""

_ARITHMETIC = """
import numpy as np
from numba import njit, prange

@njit(parallel=True, error_model="numpy")
def repeat(count, threads, {arguments}):
    if threads == 1:
        for k in range(count):
            at = 0
            update_span(({arrays}), ({scalars}), 0, (), ())
    else:
        for k in prange(count):
            at = np.intp(k) * threads // count * {block}
            update_span(({arrays}), ({scalars}), 0, (), ())
"""
