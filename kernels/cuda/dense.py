"""One array on the GPU, of any strides; one without gaps is a table of one for `many`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..formats import Formats, Operand
from ..numbers import SKIP
from ..rule import Rule
from ..summation import SPAN
from . import many, text
from .memory import layouts
from .squares import Squares


class Kernel(NamedTuple):
    """The arguments of a `cupy.ElementwiseKernel`."""

    in_params: str
    out_params: str
    operation: str
    name: str
    preamble: str

    def build(self) -> Callable[..., Any]:
        import cupy

        built: Callable[..., Any] = cupy.ElementwiseKernel(
            self.in_params,
            self.out_params,
            self.operation,
            self.name,
            preamble=self.preamble,
            options=text.OPTIONS,
        )
        return built


def strided(rule: Rule) -> Kernel:
    """For any strides and alignment: one element a thread, CuPy finds it."""
    updated = [f"{name}_" for name in (rule.parameter, *rule.states)]
    every = [f"{name}_" for name in rule.program.arguments]
    gradient, coefficients = f"{rule.gradient}_", list(rule.coefficients)
    lines = [text.coefficients(rule, "first", "T")]
    lines += [f"    gpuadapt::number<T> {n}n = {n};" for n in every]
    lines.append(
        f"    gpuadapt::{rule.symbol}<gpuadapt::number<T>>"
        f"({', '.join([f'{n}n' for n in every] + coefficients)});"
    )
    lines += [f"    {n} = {n}n.value;" for n in updated]
    return Kernel(
        f"T {gradient}, int64 first, raw float64 numbers",
        ", ".join(f"T {n}" for n in updated),
        "\n".join([f"if (numbers[{SKIP}] == 0) {{", *lines, "}"]),
        f"gpuadapt_{rule.name}_strided",
        text.PREAMBLE + text.function(rule) + "\n\n}  // namespace gpuadapt\n",
    )


def source(rule: Rule, formats: Formats) -> str:
    """The kernel as CuPy receives it; the type T is bound when CuPy compiles it."""
    if not formats.uniform:
        return many.source(rule, formats)  # of copies
    kernel = strided(rule)
    return (
        f"// cupy.ElementwiseKernel {kernel.name}, T = {formats.compute}\n"
        f"// in:  {kernel.in_params}\n// out: {kernel.out_params}\n"
        f"// for each i:\n//   {kernel.operation.replace(chr(10), chr(10) + '//   ')}\n"
        + kernel.preamble
    )


@cache
def kernel(rule: Rule) -> Callable[..., Any]:
    """The strided kernel; CuPy compiles it when it is first launched."""
    return strided(rule).build()


class Dense:
    """Updates one CuPy array in place, on the current stream."""

    def __init__(self, rule: Rule, formats: Formats, operand: Operand) -> None:
        self._arrays, self._rule, self._formats = operand.arrays, rule, formats
        self._copies: list[tuple[Any, Any]] = []
        self._gradient: Any = None
        """Memory for a gradient with gaps."""
        whole = all(array.flags.c_contiguous for array in self._arrays)
        if not formats.uniform and not whole:
            # Blocks and random bits go by C's order: arrays are copied, and written back.
            operand = operand._replace(arrays=[self._without_gaps(a) for a in self._arrays])
            whole = True
        self._many = None
        if whole and self._arrays[0].size:
            self._many = many.Many(rule, formats, [operand])
        self._measured: Any = (None,)
        """A gradient's place and strides, and what sums its squares."""

    def _without_gaps(self, array: Any) -> Any:
        import cupy

        if array.flags.c_contiguous:
            return array
        self._copies.append((array, cupy.empty(array.shape, array.dtype)))
        return self._copies[-1][1]

    def __call__(self, gradient: Any, first: int, numbers: Any) -> None:
        """Update; ``numbers[first]`` is the first coefficient."""
        import cupy

        if gradient.size == 0:
            return
        if not self._formats.uniform and not gradient.flags.c_contiguous:
            if self._gradient is None:
                self._gradient = cupy.empty(gradient.shape, gradient.dtype)
            self._gradient[...] = gradient
            gradient = self._gradient
        if self._many and gradient.flags.c_contiguous:
            for array, copy in self._copies:
                copy[...] = array
            self._many(np.array([gradient.data.ptr]), np.array([first]), numbers)
            for array, copy in self._copies:
                array[...] = copy
        else:
            kernel(self._rule)(gradient, np.int64(first), numbers, *self._arrays)

    def partials(self, gradient: Any) -> int:
        """How many numbers `squares` writes."""
        return -(-int(gradient.size) // SPAN)

    def squares(self, gradient: Any, numbers: Any, partial: Any) -> None:
        """Write sums of squares of the gradient, divided by the scale, in C order."""
        import cupy

        if gradient.size == 0:
            return
        key = gradient.data.ptr, gradient.strides
        if key != self._measured[0]:
            row = cupy.asarray(layouts([gradient.reshape(1, *gradient.shape)])[1:])
            address = cupy.asarray(np.array([gradient.data.ptr], np.uint64))
            kind = self._formats.compute, self._formats.gradient
            self._measured = key, address, Squares(*kind, [gradient.size], row)
        _, address, squares = self._measured
        squares(address, numbers, partial)
