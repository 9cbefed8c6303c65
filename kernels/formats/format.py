"""`Format`: how the numbers of an update are kept in memory, a load and a store.

Arithmetic is in the *compute type*, ``T`` in the text of kernels: float64 for parameters of
float64, otherwise float32 (``S``). A format has one or more arrays in memory, its parts. A load
computes a number from elements of the parts; a store computes the new element of each part. Their
text is the same on both backends, as that of rules is; see `gpuadapt.kernels.formats.conversion`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..array_types import Array, HostArray
from .conversion import Conversion

BLOCK = 256
"""Elements that share a scale, of 8-bit formats."""

NARROW = 8
"""Elements of a row from which it has scales of its own. Scales of shorter rows would take more
memory than 16 bits an element do, so that there blocks cross rows."""

BITS = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}
"""By its size in bytes: the dtype that kernels have in place of a smaller element type."""


@dataclass(frozen=True)
class Format:
    """A way to keep numbers in one or more arrays. Its name identifies it."""

    name: str
    """The element type as users see it; after a comma, how numbers are rounded or completed."""
    parts: tuple[tuple[str, str], ...] = field(compare=False, repr=False)
    """Name ("" for the first) and dtype in kernels of each array."""
    load: str = field(compare=False, repr=False)
    """An expression; {0}, {1}: elements of the parts."""
    store: tuple[str, ...] = field(compare=False, repr=False)
    """An expression for each part; {x}: the number, {r}: 32 random bits, {r16}: 16 of them."""
    conversions: tuple[Conversion, ...] = field(default=(), compare=False, repr=False)
    """The functions that load and store call."""
    random: bool = field(default=False, compare=False, repr=False)
    """Whether the store takes random bits."""
    narrow: bool = field(default=False, compare=False, repr=False)
    """Whether the exponent has a smaller range than float32's: for states of the gradient's size
    alone."""
    copied: bool = field(default=False, compare=False, repr=False)
    """Whether a new parameter's numbers are written to the other parts; otherwise these are 0."""
    block: str = field(default="", compare=False, repr=False)
    """The prefix of conversions' names if blocks of elements share a scale, otherwise "". Then {0}
    is a code and {1} the bits of the block's base."""
    quick: str = field(default="", compare=False, repr=False)
    """A faster store of a block without elements between zero and the smallest code's number."""

    @property
    def dtype(self) -> str:
        """The element type as users see it: "float32", "bfloat16", "8bit", ..."""
        return self.name.split(",")[0]

    @property
    def bits(self) -> int:
        """Bits of an element of the first array."""
        return 8 * np.dtype(self.parts[0][1]).itemsize

    def array_dtype(self, backend: str) -> np.dtype:
        """Return the dtype of the first array: on "cuda" that of the bits if CuPy has no other."""
        import ml_dtypes

        bits, extended = np.dtype(self.parts[0][1]), getattr(ml_dtypes, self.dtype, None)
        if extended is None:
            return np.dtype(np.sctypeDict.get(self.dtype, bits))
        return bits if backend == "cuda" else np.dtype(extended)

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the shape of each part for numbers of a shape."""
        return [shape] * len(self.parts)

    def view(self, arrays: Sequence[Array]) -> Any:
        """Return what users see of a state: its array."""
        return arrays[0]

    def decode(self, arrays: Sequence[Array]) -> HostArray:
        """Return the numbers that a rule sees, of the arrays' shape.

        Parameters
        ----------
        arrays : sequence of arrays
            The parts. Reading those of a GPU waits for it.

        Returns
        -------
        ndarray of float32 or float64
        """
        names = self._names() | {f"part{k}": part for k, part in enumerate(self._on_host(arrays))}
        text = self.load.format(*(f"part{k}" for k in range(len(arrays))))
        return np.asarray(eval(text, names))  # noqa: S307

    def encode(self, numbers: HostArray) -> list[HostArray]:
        """Return the elements of each part, in its dtype in kernels, rounded to the nearest."""
        names = self._names() | {"x": numbers, "half": np.uint32(0x8000)}
        with np.errstate(over="ignore"):
            return [
                np.asarray(eval(text.format(x="x", r16="half"), names)).astype(dtype)  # noqa: S307
                for text, (_, dtype) in zip(self.store, self.parts, strict=True)
            ]

    def _on_host(self, arrays: Sequence[Array]) -> list[HostArray]:
        """Return the parts as NumPy arrays of their dtypes in kernels."""
        found = [one.get() if hasattr(one, "get") else np.asarray(one) for one in arrays]
        return [a.view(dtype) for a, (_, dtype) in zip(found, self.parts, strict=True)]

    def _names(self) -> dict[str, Any]:
        """Return what the expressions of load and store call."""
        names: dict[str, Any] = {one.name: one for one in self.conversions}
        return names | {"U": lambda x: x.astype(np.uint32), "S": np.float32, "D": np.float64}


def short(
    dtype: str, load: Conversion, store: Conversion, rounding: str = "", narrow: bool = False
) -> Format:
    """Return a format of one array of 16 bits.

    Parameters
    ----------
    dtype : str
        The element type as users see it.
    load, store : Conversion
    rounding : str
        The name of a rounding that takes random bits; "" rounds to the nearest.
    narrow : bool
        See `Format`.
    """
    return Format(
        f"{dtype}, {rounding}" if rounding else dtype,
        (("", "uint16"),),
        f"{load.name}(U({{0}}))",
        (f"{store.name}(S({{x}}){', {r16}' if rounding else ''})",),
        (load, store),
        bool(rounding),
        narrow,
    )


def blocks(width: int) -> int:
    """Return the number of blocks of a row of ``width`` elements."""
    return -(-width // BLOCK)


def block_width(shape: tuple[int, ...]) -> int:
    """Return the elements of a row if rows have scales of their own, otherwise of the array."""
    row = math.prod(shape[1:])
    return row if len(shape) > 1 and row >= NARROW else math.prod(shape)
