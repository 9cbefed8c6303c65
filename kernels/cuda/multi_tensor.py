"""Updates many arrays on the GPU in one launch, with a block of threads for each chunk.

The kernel, ``multi_tensor.cuh``, reads tables of addresses. Those of parameters and states are
uploaded once, those of gradients when they change, unless they are few: then the launch takes them
by value, and often the scalars of the step too, so that nothing is uploaded. Chunks that are
aligned to 16 bytes, as CuPy's arrays are, are read and written 16 bytes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..commit import Call
from ..formats import Formats, Operand, tables
from ..language.caching import cached_with_rule
from ..language.rule import Rule
from ..numerics.chunks import Chunks
from ..numerics.overflow import check_of
from . import compile, generate, scalars, tuning
from .generate import Run
from .memory import Mirror
from .squares import Squares
from .tuning import Launch

ACCESS = 16
"""Bytes: arrays that begin on a multiple are read and written several elements at a time."""


VALUES = np.dtype(
    [("has_scalars", "i8"), ("has_gradients", "i8"),
     ("scalars", "f8", scalars.BY_VALUE), ("gradients", "u8", scalars.BY_VALUE)]
)  # fmt: skip
"""``ByValue`` of ``multi_tensor.cuh``; CuPy passes an array of one as it stands."""

RESIDENT = 768
"""Threads that an SM has at once of kernels of 8-bit blocks: 80 registers for each. Without a bound
the compiler takes up to 90 for float32 where it needs 80; for float64 it would spill some."""


def _bounds(formats: Formats, launch: Launch) -> str:
    if not formats.block or formats.compute != "float32":
        return ""
    return f"__launch_bounds__({launch.threads}, {max(RESIDENT // launch.threads, 1)})"


def source(rule: Rule, formats: Formats, launch: Launch | None = None) -> str:
    """Write the kernel of ``multi_tensor.cuh``; ``launch`` is the family's default if None."""
    launch = launch or tuning.default(tuning.family(formats))
    run = Run(rule, formats)
    update = generate.ArrayUpdate(run)
    macros = {
        "name": f"gpuadapt_{rule.name}_many",
        "arrays": len(update.names),
        "tables": "".join(f", const long long *__restrict__ {name}s" for name in formats.tables),
        **scalars.UPDATE_MACROS,
        "by_value": scalars.BY_VALUE,
        "coefficients": len(rule.coefficients),
        **tuning.macros(launch, formats),
        "bounds": _bounds(formats, launch),
        "random": int(formats.random),
        **run.macros(),
    }
    generated = run.head + update.struct()
    return compile.link(macros, generated, "multi_tensor.cuh")


@cached_with_rule
def kernel(rule: Rule, formats: Formats, launch: Launch) -> Callable[..., None]:
    """Compile the kernel of `source`."""
    text, options = source(rule, formats, launch), tuning.options(launch)
    return compile.built(text, f"gpuadapt_{rule.name}_many", options)


def _views(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the fields of ``ByValue``: which there are, scalars, addresses of gradients."""
    has = values.view(np.int64)[:2]
    return has, values["scalars"][0], values["gradients"][0]


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

        self._launch = tuning.launch(tuning.family(formats))
        self._kernel = compile.ready(kernel(rule, formats, self._launch))
        self.overflow_check = check_of(rule, formats)
        self._operands = operands  # whose arrays' addresses these are
        sizes, widths = [of.arrays[0].size for of in operands], [of.width for of in operands]
        chunk = tuning.chunk(self._launch, formats, sum(sizes))
        table = Chunks(sizes, chunk, widths=widths if formats.block else ()).table
        self._blocks = len(table)
        self._spans = cupy.asarray(table)
        self._addresses = cupy.asarray(
            np.array([[array.data.ptr for array in of.arrays] for of in operands], np.uint64)
        )
        self._tables = [cupy.asarray(table) for table in tables(formats.tables, operands)]
        self._gradients = Mirror(np.uint64)
        self._firsts = Mirror(np.int64)
        self._values = np.zeros(1, VALUES)
        self._has, self._scalars, self._given = _views(self._values)
        self._few = len(sizes) <= scalars.BY_VALUE
        self._squares = Squares(formats.wide, formats.gradient, sizes)

    def calls(self, gradients: np.ndarray, firsts: np.ndarray, numbers: Any) -> list[Call]:
        """The launch that updates, as a call.

        Parameters
        ----------
        gradients : ndarray of int64, shape (arrays,)
            Addresses of contiguous gradients; 0 where there is none.
        firsts : ndarray of int64, shape (arrays,)
            Where in ``numbers`` the coefficients of each array begin.
        numbers : StepNumbers
            See `gpuadapt.kernels.numerics.scalar_layout`.
        """
        given, values = numbers.given, self._values
        self._has[:] = given is not None, self._few
        if given is not None:
            self._scalars[: given.size] = given
        if self._few:
            self._given[: gradients.size] = gradients
        addresses = self._addresses if self._few else self._gradients.of(gradients)
        arguments = (
            self._spans, self._addresses, addresses, self._firsts.of(firsts), values,
            *numbers.of_update(), *self._tables,
        )  # fmt: skip
        return [(self._kernel, (self._blocks,), (self._launch.threads,), arguments)]

    def partials(self, gradients: np.ndarray) -> int:
        """Return how many sums `squares` writes."""
        return self._squares.partials

    def squares(self, gradients: np.ndarray, numbers: Any, partial: Any, peaks: Any) -> None:
        """Write sums of squares and largest magnitudes of the gradients, divided by the scale.

        See `squares.Squares`.
        """
        self._squares(self._gradients.of(gradients), numbers, partial, peaks)
