"""8-bit numbers in blocks of up to 256 elements that share a scale, a power of two.

Code 0 is zero. Other codes are (1 + f / 8) 2^e scale, with f and e from the code's bits; the
largest e is 0. "base" has the bits of code 0 as if it were such a number, so that codes and the
bits of float32 differ by a shift and an addition.

There is no code for infinities and NaN, nor for numbers that round to more than 1.875 2^127. Before
a block with such an element is coded, `held` replaces them, so that its other elements keep their
values.
"""

from .conversion import Conversion, S, U, bits, conversion, real, where
from .format import Format


@conversion
def larger(largest: U, x: S) -> U:
    """The bits of the larger magnitude; NaN is the largest."""
    size = bits(x) & 0x7FFFFFFF
    return where(largest < size, size, largest)


@conversion
def all_held(largest: U) -> U:
    """Whether (1) 8 bits hold every element of a block with that largest magnitude."""
    return where(largest < 0x7F700001, 1, 0)


@conversion
def larger_held(largest: U, x: S) -> U:
    """As `larger`, of what 8 bits hold."""
    size = bits(x) & 0x7FFFFFFF
    size = where(size < 0x7F800000, where(size < 0x7F700000, size, 0x7F700000), 0)
    return where(largest < size, size, largest)


@conversion
def held_at_most(largest: U) -> U:
    """The same, but beside zeros alone an infinity may be as large as 8 bits hold."""
    return where(largest == 0, 0x7F700000, largest)


@conversion
def held(x: S, largest: U) -> S:
    """What is kept of x in a block with that largest magnitude: of an infinity the largest code,
    of a NaN zero."""
    size = bits(x) & 0x7FFFFFFF
    most = where(size == 0x7F800000, ((largest + 0xFFFFF) & 0x7F800000) + 0x700000, 0x7F700000)
    kept = where(size < 0x7F700000, size, where(x != x, 0, most))
    return real(kept | (bits(x) & 0x80000000))


@conversion
def scale_from(largest: U, least: U) -> S:
    """From the bits of a block's largest magnitude; what rounds up to 2 needs the next one."""
    power = (largest + 0xFFFFF) & 0x7F800000
    return real(where(power < least, least, power))


@conversion
def signed8_scale(largest: U) -> S:
    """2^-87 or more: code 0 is far from subnormal numbers."""
    return scale_from(largest, 0x14000000)


@conversion
def signed8_base(scale: S) -> U:
    """Sign, 4 bits of exponent. Scales that are NaN are those of snapshots of version 0.1."""
    return where(scale != scale, 0x7F900000, bits(scale) - 0x07800000)


@conversion
def signed8_load(code: U, base: U) -> S:
    """A number from its code; both signs of zero are zero."""
    wide = (code ^ 0x80) - 0x80
    return real(where((code & 0x7F) == 0, 0, ((wide << 20) & 0x87F00000) + base))


@conversion
def signed8_random(x: S, base: U, random: U) -> U:
    """Stochastic, also between zero and the smallest number."""
    size = bits(x) & 0x7FFFFFFF
    least = base + 0x00100000
    few = where(S(random >> 8) * (real(least) * 5.9604644775390625e-08) < real(size), 1, 0)
    code = where(size < least, few, (size - base + (random >> 12)) >> 20)
    return code | ((bits(x) >> 24) & 0x80)


@conversion
def signed8_quick(x: S, base: U, random: U) -> U:
    """As `signed8_random`, if no element of the block is between zero and the smallest number."""
    size = bits(x) & 0x7FFFFFFF
    code = (where(size < base, base, size) - base + (random >> 12)) >> 20
    return code | ((bits(x) >> 24) & 0x80)


@conversion
def unsigned8_scale(largest: U) -> S:
    """2^-71 or more."""
    return scale_from(largest, 0x1C000000)


@conversion
def unsigned8_base(scale: S) -> U:
    """5 bits of exponent."""
    return where(scale != scale, 0x7F900000, bits(scale) - 0x0F800000)


@conversion
def unsigned8_load(code: U, base: U) -> S:
    """A number from its code."""
    return real(where(code == 0, 0, (code << 20) + base))


@conversion
def unsigned8_random(x: S, base: U, random: U) -> U:
    """Stochastic; but what is not zero does not become zero: rules divide by its root."""
    size = bits(x) & 0x7FFFFFFF
    least = base + 0x00100000
    kept = where(size == 0, base, where(size < least, least, size))
    return (kept - base + (random >> 12)) >> 20


@conversion
def smaller(smallest: U, x: S) -> U:
    """The bits, less 1, of the smaller magnitude; zero counts for nothing."""
    size = (bits(x) & 0x7FFFFFFF) - 1
    return where(size < smallest, size, smallest)


@conversion
def all_quick(smallest: U, base: U) -> U:
    """Whether (1) a block with that smallest magnitude may be stored by a quick codec."""
    return where(smallest < base + 0x000FFFFF, 0, 1)


def _block8(
    prefix: str,
    load: Conversion,
    store: Conversion,
    scale: Conversion,
    base: Conversion,
    quick: tuple[Conversion, ...] = (),
) -> Format:
    return Format(
        f"8bit, {prefix.removesuffix('8')}",
        (("", "uint8"), ("scale", "float32")),
        f"{load.name}(U({{0}}), {{1}})",
        (f"{store.name}(S({{x}}), {{1}}, {{r}})",),
        (load, store, scale, base, larger, all_held, larger_held, held_at_most, held, *quick),
        True,
        prefix,
        f"{quick[0].name}(S({{x}}), {{1}}, {{r}})" if quick else "",
    )


SIGNED8 = _block8(
    "signed8",
    signed8_load,
    signed8_random,
    signed8_scale,
    signed8_base,
    (signed8_quick, smaller, all_quick),
)
UNSIGNED8 = _block8("unsigned8", unsigned8_load, unsigned8_random, unsigned8_scale, unsigned8_base)
