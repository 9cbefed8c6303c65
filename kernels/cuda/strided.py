"""Updates one array of any strides on the GPU; a contiguous one by `multi_tensor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..commit import Call
from ..copies import ContiguousCopies
from ..formats import Formats, Operand
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.overflow import check_of
from ..numerics.scalar_layout import STEP
from ..numerics.summation import CHUNK
from . import compile, generate, multi_tensor
from .memory import layouts
from .scalars import ROWS, StepNumbers
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
            options=compile.OPTIONS,
        )
        return built


_STEP = (
    "const unsigned long long step = steps[0] >> 32;",
    f"const double *numbers = &scalars[(long long)(step % {ROWS}) * scalars_width];",
    f"if (numbers[{STEP}] == double(step)) {{",
)
"""As ``scalars.cuh`` does for other kernels."""


def strided(rule: Rule) -> Kernel:
    """Write the kernel for any strides and alignment: CuPy gives each thread an element."""
    updated = [f"{name}_" for name in (rule.parameter, *rule.states)]
    every = [f"{name}_" for name in rule.program.arguments]
    gradient, coefficients = f"{rule.gradient}_", list(rule.coefficients)
    lines = [generate.coefficients(rule, "first", "T")]
    lines += [f"    gpuadapt::number<T> {n}n = {n};" for n in every]
    lines.append(
        f"    gpuadapt::{rule.symbol}<gpuadapt::number<T>>"
        f"({', '.join([f'{n}n' for n in every] + coefficients)});"
    )
    lines += [f"    {n} = {n}n.value;" for n in updated]
    return Kernel(
        f"T {gradient}, int64 first, raw float64 scalars, int64 scalars_width, raw uint64 steps",
        ", ".join(f"T {n}" for n in updated),
        "\n".join([*_STEP, *lines, "}"]),
        f"gpuadapt_{rule.name}_strided",
        generate.PREAMBLE + generate.function(rule) + "\n\n}  // namespace gpuadapt\n",
    )


def source(rule: Rule, formats: Formats) -> str:
    """Write the kernel as CuPy receives it; CuPy replaces the type T when it compiles."""
    if not formats.uniform:
        return multi_tensor.source(rule, formats)  # for contiguous copies
    kernel = strided(rule)
    return (
        f"// cupy.ElementwiseKernel {kernel.name}, T = {formats.compute}\n"
        f"// in:  {kernel.in_params}\n// out: {kernel.out_params}\n"
        f"// for each i:\n//   {kernel.operation.replace(chr(10), chr(10) + '//   ')}\n"
        + kernel.preamble
    )


@cached_with_rule
def kernel(rule: Rule) -> Callable[..., Any]:
    """Return the strided kernel; CuPy compiles it at its first launch."""
    return strided(rule).build()


class Strided:
    """Updates one CuPy array in place, on the current stream."""

    def __init__(self, rule: Rule, formats: Formats, operand: Operand) -> None:
        import cupy

        self._arrays, self._rule, self._formats = operand.arrays, rule, formats
        self.overflow_check = check_of(rule, formats)
        self._copies = ContiguousCopies(() if formats.uniform else self._arrays, _whole, cupy.empty)
        arrays = self._arrays if formats.uniform else self._copies.arrays
        self._many = None
        if all(map(_whole, arrays)) and arrays[0].size:
            self._many = multi_tensor.MultiTensor(rule, formats, [operand._replace(arrays=arrays)])
        self._gradient: Any = None
        """The contiguous copy of a gradient."""
        self._compiled: set[tuple[int, ...]] = set()
        """Strides of gradients for which CuPy has compiled the kernel."""
        self._measured: Any = (None,)
        """(Address and strides of a gradient), the address on the GPU, its `Squares`."""

    def calls(self, gradient: Any, first: int, numbers: Any) -> list[Call]:
        """The calls that update; ``numbers[first]`` is the first coefficient."""
        import cupy

        if gradient.size == 0:
            return []
        if not self._formats.uniform and not _whole(gradient):
            if self._gradient is None:
                self._gradient = cupy.empty(gradient.shape, gradient.dtype)
            self._gradient[...] = gradient
            gradient = self._gradient
        if self._many and _whole(gradient):
            self._copies.read()
            own = np.array([gradient.data.ptr]), np.array([first])
            return [*self._many.calls(*own, numbers), *self._copies.writes()]
        self._compile(gradient)
        given = gradient, np.int64(first), *numbers.of_step(), *self._arrays
        return [(kernel(self._rule), *given)]

    def _compile(self, gradient: Any) -> None:
        """Let CuPy compile the kernel, by a launch for no step, which writes nothing.

        CuPy compiles it at its first launch for each layout of arrays. That is not left to the
        update, by which other arrays may have been written.
        """
        if gradient.strides not in self._compiled:
            none = StepNumbers.of_no_step().of_step()
            kernel(self._rule)(gradient, np.int64(0), *none, *self._arrays)
            self._compiled.add(gradient.strides)

    def partials(self, gradient: Any) -> int:
        """Return how many sums `squares` writes."""
        return -(-int(gradient.size) // CHUNK)

    def squares(self, gradient: Any, numbers: Any, partial: Any, peaks: Any) -> None:
        """Write sums of squares of the gradient, divided by the scale, in C order.

        And largest magnitudes, to ``peaks``.
        """
        import cupy

        if gradient.size == 0:
            return
        key = gradient.data.ptr, gradient.strides
        if key != self._measured[0]:
            row = cupy.asarray(layouts([gradient.reshape(1, *gradient.shape)])[1:])
            address = cupy.asarray(np.array([gradient.data.ptr], np.uint64))
            kind = self._formats.wide, self._formats.gradient
            self._measured = key, address, Squares(*kind, [gradient.size], row)
        _, address, squares = self._measured
        squares(address, numbers, partial, peaks)


def _whole(array: Any) -> bool:
    return bool(array.flags.c_contiguous)
