"""`Format`: how the numbers of an update are kept in memory, a load and a store.

Arithmetic is in the *compute type*, ``T`` in the text of kernels: float64 for parameters of
float64, otherwise float32 (``S``). A format has one or more arrays in memory, its parts. A load
computes a number from elements of the parts; a store computes the new element of each part. Their
text is the same on both backends, as that of rules is; see `gpuadapt.kernels.formats.conversion`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .conversion import Conversion

BLOCK = 256
"""Elements that share a scale, of 8-bit formats."""


@dataclass(frozen=True)
class Format:
    """A way to keep numbers; its name identifies it."""

    name: str
    """The element type as users see it; after a comma, how numbers are rounded or completed."""
    parts: tuple[tuple[str, str], ...] = field(compare=False)
    """Name ("" for the first) and element type in memory of each array."""
    load: str = field(compare=False)
    """An expression; {0}, {1}: elements of the parts."""
    store: tuple[str, ...] = field(compare=False)
    """An expression for each part; {x}: the number, {r}: 32 random bits, {r16}: 16 of them."""
    conversions: tuple[Conversion, ...] = field(default=(), compare=False)
    """The functions that load and store call."""
    random: bool = field(default=False, compare=False)
    """Whether the store takes random bits."""
    block: str = field(default="", compare=False)
    """How the names of conversions begin if blocks of elements share a scale, otherwise "". Then
    {0} is a code and {1} the bits of the block's base."""
    quick: str = field(default="", compare=False)
    """A faster store of a block without elements between zero and the smallest code's number."""

    def part(self, name: str) -> Conversion:
        """Return one of the conversions of a format with blocks, such as "scale"."""
        return next(one for one in self.conversions if one.name == f"{self.block}_{name}")


def short(dtype: str, load: Conversion, store: Conversion, rounding: str = "") -> Format:
    """A format of one array of 16 bits; a store with a name for its rounding takes random bits."""
    return Format(
        f"{dtype}, {rounding}" if rounding else dtype,
        (("", "uint16"),),
        f"{load.name}(U({{0}}))",
        (f"{store.name}(S({{x}}){', {r16}' if rounding else ''})",),
        (load, store),
        bool(rounding),
    )


def blocks(width: int) -> int:
    """How many blocks a row of so many elements has."""
    return -(-width // BLOCK)
