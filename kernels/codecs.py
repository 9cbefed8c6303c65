# ruff: noqa: F821
"""How numbers of 16 and 8 bits are read and written, in the language of `codec`.

A stochastic store takes random bits, those of 16-bit types 16 and those of 8 bits 32: 0 rounds
towards zero, one half of what they can be to the nearest (ties away from zero), and over all of
them the mean is the number itself.
"""

from __future__ import annotations

from .codec import codec


@codec
def bfloat16_load(code: U) -> S:
    """The upper half of a float32."""
    return real(code << 16)


@codec
def bfloat16_store(x: S) -> U:
    """To the nearest, ties to even."""
    code = bits(x)
    code = (code + 0x7FFF + ((code >> 16) & 1)) >> 16
    return where(x != x, 0x7FC0, code)


@codec
def bfloat16_random(x: S, random: U) -> U:
    """Stochastic, but a finite number never becomes infinite: what lies beyond the largest number
    is cut off. Of a NaN the upper half, by which every NaN that arithmetic made is one."""
    return (bits(x) + where((bits(x) & 0x7FFFFFFF) < 0x7F7F0000, random, 0)) >> 16


@codec
def bfloat16_rest(x: S) -> U:
    """What `bfloat16_store` leaves out."""
    return bfloat16_store(x - bfloat16_load(bfloat16_store(x)))


@codec
def bfloat16_master(code: U, copy: S) -> S:
    """The copy, or the parameter where its owner has written what the copy does not round to."""
    return where(bfloat16_store(copy) == code, copy, bfloat16_load(code))


@codec
def compensation(x: S, rest: S, places: S) -> S:
    """What rounding left out of x, or 0 if that is more than half of the last place of x: then
    the owner of x has written another number since. ``places`` is 2^n, with n bits in x."""
    half = real(bits(x) & 0x7F800000)
    return where(half - real(bits(rest) & 0x7FFFFFFF) * places >= 0.0, rest, 0.0)


@codec
def bfloat16_kahan(code: U, rest: U) -> S:
    """A number and what rounding left out of it."""
    x = bfloat16_load(code)
    return x + compensation(x, bfloat16_load(rest), 256.0)


@codec
def split_load(high: U, low: U) -> S:
    """A float32 from its nearest bfloat16 and its lower half.

    Where the owner has written a zero or an infinity over another number, the two may make a NaN
    of which no part is one: then the lower half counts as 0.
    """
    x = real((high << 16) + low - ((low & 0x8000) << 1))
    return where(x != x, real(high << 16), x)


@codec
def split_high(x: S) -> U:
    """The nearest bfloat16, ties away from zero, so that the lower half says which way it went."""
    return (bits(x) + where(x != x, 0, 0x8000)) >> 16


@codec
def split_low(x: S) -> U:
    """The lower half."""
    return where(x != x, 0, bits(x) & 0xFFFF)


@codec
def float16_load(code: U) -> S:
    """Exponents from 5 bits to 8; subnormal ones are multiples of 2^-24."""
    code = code & 0xFFFF
    shifted = (code & 0x7FFF) << 13
    x = where(
        shifted < 0x00800000, S(code & 0x3FF) * 5.9604644775390625e-08, real(shifted + 0x38000000)
    )
    x = where(shifted < 0x0F800000, x, real(shifted + 0x70000000))
    return real(bits(x) | ((code & 0x8000) << 16))


@codec
def float16_store(x: S) -> U:
    """To the nearest, ties to even; beside 0.5 a float32's last place is 2^-24."""
    sign = (bits(x) >> 16) & 0x8000
    size = bits(x) & 0x7FFFFFFF
    code = where(
        size < 0x38800000,
        bits(real(size) + 0.5) - 0x3F000000,
        (size + 0xFFF + ((size >> 13) & 1) - 0x38000000) >> 13,
    )
    code = where(size < 0x47800000, code, 0x7C00)
    return where(x != x, 0x7E00, code) | sign


@codec
def float16_random(x: S, random: U) -> U:
    """Stochastic."""
    sign = (bits(x) >> 16) & 0x8000
    size = bits(x) & 0x7FFFFFFF
    small = where(size < 0x38800000, real(size), 0.0) * 16777216.0
    whole = truncated(small)
    more = where(S(random) * 1.52587890625e-05 < small - S(whole), 1, 0)
    code = where(size < 0x38800000, whole + more, (size - 0x38000000 + (random >> 3)) >> 13)
    code = where(size < 0x47800000, code, 0x7C00)
    return where(x != x, 0x7E00, code) | sign


@codec
def float16_saturated(x: S, random: U) -> U:
    """Stochastic, of states: what is larger than 65504 is kept as 65504, infinities too."""
    code = float16_random(x, random)
    return where((code & 0x7FFF) == 0x7C00, (code & 0x8000) | 0x7BFF, code)


@codec
def float16_rest(x: S) -> U:
    """What `float16_store` leaves out."""
    return float16_store(x - float16_load(float16_store(x)))


@codec
def float16_master(code: U, copy: S) -> S:
    """As `bfloat16_master`."""
    return where(float16_store(copy) == code, copy, float16_load(code))


@codec
def float16_kahan(code: U, rest: U) -> S:
    """As `bfloat16_kahan`."""
    x = float16_load(code)
    return x + compensation(x, float16_load(rest), 2048.0)


# Numbers of 8 bits have 3 of a mantissa and share a scale, a power of two. Code 0 is zero; the
# others are (1 + f / 8) 2^e scale, with f and e from the code's bits, the largest e being 0.
# "base" has the bits of code 0 as if it were such a number, so that codes and the bits of
# float32 differ by a shift and an addition. There is no code for infinities and NaN, nor for what
# rounds to more than 1.875 2^127: before a block with such an element is coded, `held` puts numbers
# in their place, so that its neighbours do not feel them.


@codec
def larger(largest: U, x: S) -> U:
    """The bits of the larger magnitude; NaN is the largest."""
    size = bits(x) & 0x7FFFFFFF
    return where(largest < size, size, largest)


@codec
def all_held(largest: U) -> U:
    """Whether (1) 8 bits hold every element of a block with that largest magnitude."""
    return where(largest < 0x7F700001, 1, 0)


@codec
def larger_held(largest: U, x: S) -> U:
    """As `larger`, of what 8 bits hold."""
    size = bits(x) & 0x7FFFFFFF
    size = where(size < 0x7F800000, where(size < 0x7F700000, size, 0x7F700000), 0)
    return where(largest < size, size, largest)


@codec
def held_at_most(largest: U) -> U:
    """The same, but beside zeros alone an infinity may be as large as 8 bits hold."""
    return where(largest == 0, 0x7F700000, largest)


@codec
def held(x: S, largest: U) -> S:
    """What is kept of x in a block with that largest magnitude: of an infinity the largest code,
    of a NaN zero."""
    size = bits(x) & 0x7FFFFFFF
    most = where(size == 0x7F800000, ((largest + 0xFFFFF) & 0x7F800000) + 0x700000, 0x7F700000)
    kept = where(size < 0x7F700000, size, where(x != x, 0, most))
    return real(kept | (bits(x) & 0x80000000))


@codec
def scale_from(largest: U, least: U) -> S:
    """From the bits of a block's largest magnitude; what rounds up to 2 needs the next one."""
    power = (largest + 0xFFFFF) & 0x7F800000
    return real(where(power < least, least, power))


@codec
def signed8_scale(largest: U) -> S:
    """2^-87 or more: code 0 is far from subnormal numbers."""
    return scale_from(largest, 0x14000000)


@codec
def signed8_base(scale: S) -> U:
    """Sign, 4 bits of exponent. Scales that are NaN are those of snapshots of version 0.1."""
    return where(scale != scale, 0x7F900000, bits(scale) - 0x07800000)


@codec
def signed8_load(code: U, base: U) -> S:
    """A number from its code; both signs of zero are zero."""
    wide = (code ^ 0x80) - 0x80
    return real(where((code & 0x7F) == 0, 0, ((wide << 20) & 0x87F00000) + base))


@codec
def signed8_random(x: S, base: U, random: U) -> U:
    """Stochastic, also between zero and the smallest number."""
    size = bits(x) & 0x7FFFFFFF
    least = base + 0x00100000
    few = where(S(random >> 8) * (real(least) * 5.9604644775390625e-08) < real(size), 1, 0)
    code = where(size < least, few, (size - base + (random >> 12)) >> 20)
    return code | ((bits(x) >> 24) & 0x80)


@codec
def signed8_quick(x: S, base: U, random: U) -> U:
    """As `signed8_random`, if no element of the block is between zero and the smallest number."""
    size = bits(x) & 0x7FFFFFFF
    code = (where(size < base, base, size) - base + (random >> 12)) >> 20
    return code | ((bits(x) >> 24) & 0x80)


@codec
def unsigned8_scale(largest: U) -> S:
    """2^-71 or more."""
    return scale_from(largest, 0x1C000000)


@codec
def unsigned8_base(scale: S) -> U:
    """5 bits of exponent."""
    return where(scale != scale, 0x7F900000, bits(scale) - 0x0F800000)


@codec
def unsigned8_load(code: U, base: U) -> S:
    """A number from its code."""
    return real(where(code == 0, 0, (code << 20) + base))


@codec
def unsigned8_random(x: S, base: U, random: U) -> U:
    """Stochastic; but what is not zero does not become zero: rules divide by its root."""
    size = bits(x) & 0x7FFFFFFF
    least = base + 0x00100000
    kept = where(size == 0, base, where(size < least, least, size))
    return (kept - base + (random >> 12)) >> 20


@codec
def smaller(smallest: U, x: S) -> U:
    """The bits, less 1, of the smaller magnitude; zero counts for nothing."""
    size = (bits(x) & 0x7FFFFFFF) - 1
    return where(size < smallest, size, smallest)


@codec
def all_quick(smallest: U, base: U) -> U:
    """Whether (1) a block with that smallest magnitude may be stored by a quick codec."""
    return where(smallest < base + 0x000FFFFF, 0, 1)


# Random bits: a hash of the element's number with two keys, which are hashes of the
# parameter's seed and the step, with the multipliers and shifts that Wellons'
# hash-prospector found to have the least bias of all 32-bit hashes of two rounds ("lowbias32").


@codec
def scrambled(x: U) -> U:
    """A hash of 32 bits."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@codec
def key_of(seed: U, step: U) -> U:
    """One of the two keys of a parameter in a step."""
    return scrambled(scrambled(seed) + step)


@codec
def key_on(key: U, page: U) -> U:
    """A key, where the numbers of elements have more than 32 bits: the upper ones are the page."""
    return where(page == 0, key, scrambled(key + page * 0x9E3779B9))


@codec
def random_bits(element: U, first: U, second: U) -> U:
    """The bits of an element, by its number's lower half and the keys; upper ones are best."""
    x = element + first
    x = (x ^ (x >> 16)) * 0x7FEB352D ^ second
    return (x ^ (x >> 15)) * 0x846CA68B
