"""8-bit numbers in blocks of up to 256 elements that share a scale, a power of two.

Code 0 is zero. Other codes are (1 + f / 8) 2^e scale, with f and e from the code's bits; the
largest e is 0. "base" has the bits of code 0 as if it were such a number, so that codes and the
bits of float32 differ by a shift and an addition.

There is no code for infinities and NaN, nor for numbers that round to more than 1.875 2^127. Before
a block with such an element is coded, `representable` replaces them, so that its other elements
keep their values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..array_types import Array, HostArray
from .conversion import Conversion, S, U, bits, conversion, real, where
from .format import BLOCK, Format, block_width, blocks


@conversion
def larger_magnitude(largest: U, x: S) -> U:
    """Return the bits of the larger magnitude; NaN is the largest."""
    size = bits(x) & 0x7FFFFFFF
    return where(largest < size, size, largest)


@conversion
def all_representable(largest: U) -> U:
    """Return 1 if a block with this largest magnitude has codes for all elements, else 0."""
    return where(largest < 0x7F700001, 1, 0)


@conversion
def larger_representable(largest: U, x: S) -> U:
    """Return the bits of the larger representable magnitude."""
    size = bits(x) & 0x7FFFFFFF
    size = where(size < 0x7F800000, where(size < 0x7F700000, size, 0x7F700000), 0)
    return where(largest < size, size, largest)


@conversion
def block_limit(largest: U) -> U:
    """Return the largest representable magnitude of a block; for zeros alone that of all codes."""
    return where(largest == 0, 0x7F700000, largest)


@conversion
def representable(x: S, largest: U) -> S:
    """Return a representable number for x in a block with this largest representable magnitude.

    An infinity becomes the number of the largest code, a NaN becomes zero.
    """
    size = bits(x) & 0x7FFFFFFF
    limit = where(size == 0x7F800000, ((largest + 0xFFFFF) & 0x7F800000) + 0x700000, 0x7F700000)
    size = where(size < 0x7F700000, size, where(x != x, 0, limit))
    return real(size | (bits(x) & 0x80000000))


@conversion
def scale_from(largest: U, minimum: U) -> S:
    """Return the power of two below the largest magnitude; above it if that rounds up to 2."""
    power = (largest + 0xFFFFF) & 0x7F800000
    return real(where(power < minimum, minimum, power))


@conversion
def signed8_scale(largest: U) -> S:
    """Return the scale, 2^-87 or more: code 0 is far from subnormal numbers."""
    return scale_from(largest, 0x14000000)


@conversion
def signed8_base(scale: S) -> U:
    """Return the base for 4 bits of exponent. Snapshots of version 0.1 may have NaN as a scale."""
    return where(scale != scale, 0x7F900000, bits(scale) - 0x07800000)


@conversion
def signed8_load(code: U, base: U) -> S:
    """Return the number of a code; both signs of zero are zero."""
    wide = (code ^ 0x80) - 0x80
    return real(where((code & 0x7F) == 0, 0, ((wide << 20) & 0x87F00000) + base))


@conversion
def signed8_random(x: S, base: U, random: U) -> U:
    """Round stochastically, also between zero and the smallest number."""
    size = bits(x) & 0x7FFFFFFF
    smallest = base + 0x00100000
    up = where(S(random >> 8) * (real(smallest) * 5.9604644775390625e-08) < real(size), 1, 0)
    code = where(size < smallest, up, (size - base + (random >> 12)) >> 20)
    return code | ((bits(x) >> 24) & 0x80)


@conversion
def signed8_quick(x: S, base: U, random: U) -> U:
    """Do as `signed8_random` for zero and for numbers from the smallest code's on."""
    size = bits(x) & 0x7FFFFFFF
    code = (where(size < base, base, size) - base + (random >> 12)) >> 20
    return code | ((bits(x) >> 24) & 0x80)


@conversion
def unsigned8_scale(largest: U) -> S:
    """Return the scale, 2^-71 or more."""
    return scale_from(largest, 0x1C000000)


@conversion
def unsigned8_base(scale: S) -> U:
    """Return the base for 5 bits of exponent."""
    return where(scale != scale, 0x7F900000, bits(scale) - 0x0F800000)


@conversion
def unsigned8_load(code: U, base: U) -> S:
    """Return the number of a code."""
    return real(where(code == 0, 0, (code << 20) + base))


@conversion
def unsigned8_random(x: S, base: U, random: U) -> U:
    """Round stochastically; other numbers do not become zero, as rules divide by their roots."""
    size = bits(x) & 0x7FFFFFFF
    smallest = base + 0x00100000
    size = where(size == 0, base, where(size < smallest, smallest, size))
    return (size - base + (random >> 12)) >> 20


@conversion
def smaller_magnitude(smallest: U, x: S) -> U:
    """Return the bits, less 1, of the smaller magnitude above zero."""
    size = (bits(x) & 0x7FFFFFFF) - 1
    return where(size < smallest, size, smallest)


@conversion
def all_quick(smallest: U, base: U) -> U:
    """Return 1 if a block with this smallest magnitude can be stored by `signed8_quick`, else 0."""
    return where(smallest < base + 0x000FFFFF, 0, 1)


class Block8(Format):
    """A format of codes, of the numbers' shape, and of scales, of shape (rows, blocks of a row).

    Scales have one row if blocks cross rows.
    """

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        width = block_width(shape)
        return [shape, (math.prod(shape) // width if width else 0, blocks(width))]

    def view(self, arrays: Sequence[Array]) -> Quantized:
        """Return what users see of a state."""
        codes, scales = arrays
        return Quantized(codes, scales, self == SIGNED8)

    def decode(self, arrays: Sequence[Array]) -> HostArray:
        """Return the numbers, float32, of codes and scales."""
        codes, scales = self._on_host(arrays)
        rows = codes.reshape(len(scales), -1) if codes.size else codes.reshape(0, 1)
        spread = np.repeat(scales, BLOCK, axis=1)[:, : rows.shape[1]]
        return self.decode_codes(rows, spread).reshape(codes.shape)

    def encode(self, numbers: HostArray) -> list[HostArray]:
        """Return codes and scales of finite numbers, rounded to the nearest."""
        _, (count, each) = self.shapes(numbers.shape)
        with np.errstate(over="ignore"):
            rows = numbers.astype(np.float32).reshape(count, -1 if count else 0)
        padded = np.pad(rows, ((0, 0), (0, each * BLOCK - rows.shape[1])))
        scales = self.scale(padded.reshape(count, each, BLOCK))
        spread = np.repeat(scales, BLOCK, axis=1)[:, : rows.shape[1]]
        return [self.encode_codes(rows, spread).reshape(numbers.shape), scales]

    def scale(self, numbers: HostArray) -> HostArray:
        """Return the scales, float32, of blocks of finite numbers along the last axis."""
        largest = np.abs(numbers.astype(np.float32)).max(axis=-1, initial=0)
        return np.asarray(self.conversion("scale")(largest.view(np.uint32)))

    def decode_codes(self, codes: HostArray, scales: HostArray) -> HostArray:
        """Return the numbers, float32, of codes with a scale for each (or one for all)."""
        base = self.conversion("base")(scales)
        return np.asarray(self.conversion("load")(codes.astype(np.uint32), base))

    def encode_codes(self, numbers: HostArray, scales: HostArray) -> HostArray:
        """Return the nearest codes, uint8, of numbers with a scale for each (or one for all)."""
        base, half = self.conversion("base")(scales), np.uint32(2**31)
        codes = self.conversion("random")(np.asarray(numbers, np.float32), base, half)
        return np.asarray(codes).astype(np.uint8)

    def conversion(self, name: str) -> Conversion:
        """Return the conversion "load", "random", "scale" or "base"."""
        return next(one for one in self.conversions if one.name == f"{self.block}_{name}")


class Quantized:
    """A state of 8 bits for an element: codes, and a scale for each block of up to 256 elements.

    Attributes
    ----------
    codes : array of uint8, of the parameter's shape
    scales : array of float32, shape (rows, blocks of a row)
        Powers of two. One row if blocks cross rows.
    signed : bool
        A code has a sign, 4 bits of exponent and 3 of mantissa, or 5 and 3 without a sign: 0 is
        zero, others are ``(1 + mantissa / 8) 2^(exponent - largest exponent) scale``.
    """

    __slots__ = ("codes", "scales", "signed")

    def __init__(self, codes: Array, scales: Array, signed: bool) -> None:
        self.codes, self.scales, self.signed = codes, scales, signed

    @property
    def format(self) -> Block8:
        """The format of codes and scales."""
        return SIGNED8 if self.signed else UNSIGNED8

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        shape: tuple[int, ...] = self.codes.shape
        return shape

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return int(self.codes.nbytes + self.scales.nbytes)

    def decoded(self) -> HostArray:
        """Return the numbers as a new NumPy array of float32."""
        return self.format.decode([self.codes, self.scales])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> HostArray:
        return self.decoded().astype(dtype or np.float32)

    def __repr__(self) -> str:
        sign = "signed" if self.signed else "unsigned"
        return f"Quantized({sign}, shape {self.shape}, {self.scales.size:,} scales)"


COMMON = (larger_magnitude, all_representable, larger_representable, block_limit, representable)


def _block8(sign: str, *own: Conversion, quick: str = "") -> Block8:
    """Return the format of conversions load, random, scale, base and those of a quick store."""
    return Block8(
        f"8bit, {sign}",
        (("", "uint8"), ("scale", "float32")),
        f"{sign}8_load(U({{0}}), {{1}})",
        (f"{sign}8_random(S({{x}}), {{1}}, {{r}})",),
        (*own[:4], *COMMON, *own[4:]),
        random=True,
        block=f"{sign}8",
        quick=quick,
    )


SIGNED8 = _block8(
    "signed", signed8_load, signed8_random, signed8_scale, signed8_base, signed8_quick,
    smaller_magnitude, all_quick, quick="signed8_quick(S({x}), {1}, {r})",
)  # fmt: skip
UNSIGNED8 = _block8("unsigned", unsigned8_load, unsigned8_random, unsigned8_scale, unsigned8_base)
