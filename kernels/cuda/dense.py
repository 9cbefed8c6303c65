"""The dense traversal on the GPU: one array, one launch, 16-byte accesses where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..rule import Rule
from . import text

ACCESS = 16
"""Bytes that a thread loads or stores at once."""

_PACKED = r"""
template <typename F>
__device__ inline void dense(%(pointers)s, ptrdiff_t i, ptrdiff_t count%(coefficients)s) {
    constexpr int width = %(access)d / sizeof(F);
    const ptrdiff_t first = i * width;
    if (first + width <= count) {
%(load)s
#pragma unroll
        for (int k = 0; k < width; ++k) {
            %(rule)s<number<F>>(%(at)s);
        }
%(store)s
    } else {
#pragma unroll 1
        for (ptrdiff_t j = first; j < count; ++j) {
%(numbers)s
            %(rule)s<number<F>>(%(names)s);
%(write)s
        }
    }
}

}  // namespace gpuadapt
"""


class Kernel(NamedTuple):
    """The arguments of a `cupy.ElementwiseKernel`."""

    in_params: str
    out_params: str
    operation: str
    name: str
    preamble: str

    def build(self, options: tuple[str, ...] = text.OPTIONS) -> Callable[..., Any]:
        import cupy

        built: Callable[..., Any] = cupy.ElementwiseKernel(
            self.in_params,
            self.out_params,
            self.operation,
            self.name,
            preamble=self.preamble,
            options=options,
        )
        return built


def packed(rule: Rule) -> Kernel:
    """For contiguous, 16-byte aligned arrays: thread i has the i-th 16 bytes of each."""
    updated, coefficients = _names(rule)
    every = [f"{name}_" for name in rule.program.arguments]
    gradient = f"{rule.gradient}_"
    body = _PACKED % {
        "access": ACCESS,
        "rule": rule.symbol,
        "pointers": ", ".join(f"{'const ' * (n == gradient)}F *{n}" for n in every),
        "coefficients": "".join(f", F {name}" for name in coefficients),
        "load": "\n".join(
            f"        pack<F, width> {n}p = *reinterpret_cast<const pack<F, width> *>({n} + first);"
            for n in every
        ),
        "at": ", ".join([f"{n}p.at[k]" for n in every] + coefficients),
        "store": "\n".join(
            f"        *reinterpret_cast<pack<F, width> *>({n} + first) = {n}p;" for n in updated
        ),
        "numbers": "\n".join(f"            number<F> {n}n = {n}[j];" for n in every),
        "names": ", ".join([f"{n}n" for n in every] + coefficients),
        "write": "\n".join(f"            {n}[j] = {n}n.value;" for n in updated),
    }
    pointers = [f"&{n}[0]" for n in every]
    return Kernel(
        ", ".join([f"raw T {gradient}", "int64 count", *(f"T {c}" for c in coefficients)]),
        ", ".join(f"raw T {n}" for n in updated),
        f"gpuadapt::dense<T>({', '.join([*pointers, 'i', 'count', *coefficients])})",
        f"gpuadapt_{rule.name}_packed",
        text.PREAMBLE + text.function(rule) + "\n" + body,
    )


def strided(rule: Rule) -> Kernel:
    """For any strides and alignment: one element a thread, CuPy finds it."""
    updated, coefficients = _names(rule)
    every = [f"{name}_" for name in rule.program.arguments]
    gradient = f"{rule.gradient}_"
    lines = [f"gpuadapt::number<T> {n}n = {n};" for n in every]
    lines.append(
        f"gpuadapt::{rule.symbol}<gpuadapt::number<T>>"
        f"({', '.join([f'{n}n' for n in every] + coefficients)});"
    )
    lines += [f"{n} = {n}n.value;" for n in updated]
    return Kernel(
        ", ".join([f"T {gradient}", *(f"T {c}" for c in coefficients)]),
        ", ".join(f"T {n}" for n in updated),
        "\n".join(lines),
        f"gpuadapt_{rule.name}_strided",
        text.PREAMBLE + text.function(rule) + "\n\n}  // namespace gpuadapt\n",
    )


def _names(rule: Rule) -> tuple[list[str], list[str]]:
    """The arrays that are written, the coefficients; both as the kernels name them."""
    return [f"{name}_" for name in (rule.parameter, *rule.states)], list(rule.coefficients)


def source(rule: Rule, dtype: np.dtype) -> str:
    """Both kernels as CuPy receives them; the type T is bound when CuPy compiles them."""
    parts = []
    for kernel in (packed(rule), strided(rule)):
        parts.append(
            f"// cupy.ElementwiseKernel {kernel.name}, T = {dtype}\n"
            f"// in:  {kernel.in_params}\n// out: {kernel.out_params}\n"
            f"// for each i:\n//   {kernel.operation.replace(chr(10), chr(10) + '//   ')}\n"
        )
    return "\n".join(parts) + packed(rule).preamble


@cache
def kernels(rule: Rule) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The packed and the strided kernel; CuPy compiles each when it is first launched."""
    return packed(rule).build(), strided(rule).build()


def bind(
    rule: Rule, parameter: Any, states: Sequence[Any]
) -> Callable[[Any, Sequence[float]], None]:
    """A function of (gradient, coefficients) that updates these CuPy arrays in place.

    It launches one kernel on the current stream of the parameter's device and does not
    synchronise.
    """
    run_packed, run_strided = kernels(rule)
    count = parameter.size
    packs = -(-count * parameter.dtype.itemsize // ACCESS)
    written = (parameter, *states)
    # CuPy compiles a kernel for each number of dimensions; one dimension does for all.
    flat = [array.reshape(-1) for array in written] if all(map(_aligned, written)) else None

    def update(gradient: Any, coefficients: Sequence[float]) -> None:
        if count == 0:
            return
        with parameter.device:
            if flat is not None and _aligned(gradient):
                run_packed(gradient.reshape(-1), count, *coefficients, *flat, size=packs)
            else:
                run_strided(gradient, *coefficients, *written)

    return update


def _aligned(array: Any) -> bool:
    return bool(array.flags.c_contiguous and array.data.ptr % ACCESS == 0)
