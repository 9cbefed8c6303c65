"""The traversal of many arrays on the GPU: one launch, a block for each span.

What a kernel works on is a table of addresses: of parameters and states, written once, and of
gradients, written again when they are others than in the step before. Spans of arrays that are
16-byte aligned, as CuPy's are, are read and written 16 bytes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..formats import BLOCK as SHARED
from ..formats import Formats, Operand, tables
from ..language.caching import cached_with_rule
from ..language.emit import indented
from ..language.rule import Rule
from ..numerics.chunks import Chunks
from ..numerics.overflow import check_of
from ..numerics.scalar_layout import SKIP
from . import compile, generate
from .generate import TYPES, Run
from .memory import Mirror
from .squares import Squares

ACCESS = 16
"""Bytes that a thread loads or stores at once."""

BLOCK = 256
"""Threads of a block."""

CHUNK = 4096
"""Elements of a block: few enough for a thousand small arrays, enough to share its first loads."""

_MANY = r"""
}  // namespace gpuadapt

extern "C" __global__ void %(name)s(
    const long long *__restrict__ spans, const unsigned long long *__restrict__ addresses,
    const unsigned long long *__restrict__ gradients, const long long *__restrict__ firsts,
    const double *__restrict__ numbers%(tables)s
) {
    using namespace gpuadapt;
    typedef %(type)s F;
    typedef number<F> T;
    const long long a = spans[3 * (long long)blockIdx.x];
    const long long start = spans[3 * (long long)blockIdx.x + 1];
    const long long size = spans[3 * (long long)blockIdx.x + 2];
    if (numbers[%(skip)d] != 0 || gradients[a] == 0) {
        return;
    }
%(pointers)s
%(coefficients)s
%(keys)s%(run)s}
"""

_ELEMENTS = r"""    constexpr int width = %(width)d;
    long long j = 0;
    if (((%(together)s) & %(mask)d) == 0) {
        j = size / width * width;
        for (long long i = (long long)threadIdx.x * width; i < j; i += %(block)d * width) {
%(load)s
#pragma unroll
            for (int k = 0; k < width; ++k) {
                %(random)s
%(numbers)s
                %(call)s
%(put)s
            }
%(store)s
        }
    }
#pragma unroll 1
    for (j += threadIdx.x; j < size; j += %(block)d) {
        %(random_one)s
%(numbers_one)s
        %(call)s
%(put_one)s
    }
"""

_BLOCKS = r"""    // A span is of whole rows, or within one.
    const long long width = widths[a], each = (width + %(shared)d - 1) / %(shared)d;
    const long long row_0 = start / width, column_0 = start - row_0 * width;
    const bool within = size <= width - column_0;
    const long long blocks = within ? (size + %(shared)d - 1) / %(shared)d : size / width * each;
    for (long long q = threadIdx.x / 32; q < blocks; q += %(block)d / 32) {
        const long long row = within ? row_0 : row_0 + q / each;
        const long long column = within ? column_0 + q * %(shared)d : q %% each * %(shared)d;
        const long long left = (within ? column_0 + size : width) - column;
        const int n = left < %(shared)d ? int(left) : %(shared)d;
        const long long begin = row * width + column, block = row * each + column / %(shared)d;
%(update)s
    }
"""


def source(rule: Rule, formats: Formats) -> str:
    """The kernel as CuPy receives it."""
    run = Run(rule, formats)
    types = run.types(run.arguments)
    updated, gradient = [n for one in run.updated for n in one.arrays], f"{rule.gradient}_"
    where = {name: f"addresses[{len(updated)} * a + {k}]" for k, name in enumerate(updated)}
    where[gradient] = "gradients[a]"
    kinds = {name: f"{'const ' * (name == gradient)}{kind} *" for name, kind in types.items()}
    key = f"numbers[firsts[a] + {len(rule.coefficients)}]"
    return generate.PREAMBLE + run.head + "\n" + _MANY % {
        "name": f"gpuadapt_{rule.name}_many",
        "tables": "".join(f", const long long *__restrict__ {name}s" for name in formats.tables),
        "type": TYPES[formats.compute],
        "skip": SKIP,
        "pointers": indented(
            (f"{k}{n} = in_global(reinterpret_cast<{k}>({where[n]}));" for n, k in kinds.items()), 4
        ),
        "coefficients": generate.coefficients(rule, "firsts[a]", "F", run.wide),
        "keys": run.keys("keys[a]", key),
        "run": _blocks(run) if formats.block else _elements(run, types, gradient),
    }  # fmt: skip


def _elements(run: Run, types: dict[str, str], gradient: str) -> str:
    def at(name: str) -> str:
        return f"{name}p.at[k]"

    def place(name: str) -> str:
        return f"{name}[start + j]"

    def packs(name: str) -> str:
        constant = "const " * (name == gradient)
        kind = f"{constant}pack<{types[name]}, width>"
        return f"*reinterpret_cast<{kind} *>({name} + start + i)"

    updated = [name for name in types if name != gradient]
    load = (
        f"pack<{types[n]}, width> {n}p" + (f" = {packs(n)};" if n in run.read() else ";")
        for n in types
    )
    return _ELEMENTS % {
        "width": ACCESS // run.formats.itemsize,
        "mask": ACCESS - 1,
        "block": BLOCK,
        "together": " | ".join(f"reinterpret_cast<size_t>({n} + start)" for n in types),
        "load": indented(load, 12),
        "random": run.random("start + i + k"),
        "numbers": indented(generate.loads(run.arguments, run.compute, at), 16),
        "call": run.call(),
        "put": indented(generate.stores(run.updated, run.compute, at), 16),
        "store": indented((f"{packs(n)} = {n}p;" for n in updated), 12),
        "random_one": run.random("start + j"),
        "numbers_one": indented(generate.loads(run.arguments, run.compute, place), 8),
        "put_one": indented(generate.stores(run.updated, run.compute, place), 8),
    }


def _blocks(run: Run) -> str:
    return _BLOCKS % {"shared": SHARED, "block": BLOCK, "update": run.block()}


@cached_with_rule
def kernel(rule: Rule, formats: Formats) -> Callable[..., None]:
    """The compiled kernel; see the text for its arguments."""
    return compile.built(source(rule, formats), f"gpuadapt_{rule.name}_many")


class MultiTensor:
    """Updates arrays of the same formats in place, all in one launch on the current stream.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    operands : sequence of Operand
        With contiguous arrays, not empty, on one device.
    """

    def __init__(self, rule: Rule, formats: Formats, operands: Sequence[Operand]) -> None:
        import cupy

        self._kernel = kernel(rule, formats)
        self.overflow_check = check_of(rule, formats)
        self._operands = operands  # whose arrays' addresses these are
        sizes, widths = [of.arrays[0].size for of in operands], [of.width for of in operands]
        table = Chunks(sizes, CHUNK, widths=widths if formats.block else ()).table
        self._blocks = len(table)
        self._spans = cupy.asarray(table)
        self._addresses = cupy.asarray(
            np.array([[array.data.ptr for array in of.arrays] for of in operands], np.uint64)
        )
        self._tables = [cupy.asarray(table) for table in tables(formats, operands)]
        self._gradients = Mirror(np.uint64)
        self._firsts = Mirror(np.int64)
        self._squares = Squares(formats.wide, formats.gradient, sizes)

    def __call__(self, gradients: np.ndarray, firsts: np.ndarray, numbers: Any) -> None:
        """Update.

        Parameters
        ----------
        gradients : ndarray of int64, shape (arrays,)
            Addresses of contiguous gradients; 0 where there is none.
        firsts : ndarray of int64, shape (arrays,)
            Where in ``numbers`` the coefficients of each array begin.
        numbers : CuPy array of float64
            See `gpuadapt.kernels.numerics.scalar_layout`.
        """
        self._kernel(
            (self._blocks,),
            (BLOCK,),
            (self._spans, self._addresses, self._gradients.of(gradients), self._firsts.of(firsts),
             numbers, *self._tables),
        )  # fmt: skip

    def partials(self, gradients: np.ndarray) -> int:
        """How many numbers `squares` writes."""
        return self._squares.partials

    def squares(self, gradients: np.ndarray, numbers: Any, partial: Any, peaks: Any) -> None:
        """Write sums of squares and largest magnitudes of the gradients, divided by the scale.

        See `squares.Squares`.
        """
        self._squares(self._gradients.of(gradients), numbers, partial, peaks)
