"""float16: 5 bits of exponent and 10 of mantissa. Kernels have it as uint16."""

from .conversion import S, U, bits, conversion, real, truncated, where
from .format import short


@conversion
def float16_load(code: U) -> S:
    """Widen the exponent from 5 bits to 8; subnormal numbers are multiples of 2^-24."""
    code = code & 0xFFFF
    shifted = (code & 0x7FFF) << 13
    x = where(
        shifted < 0x00800000, S(code & 0x3FF) * 5.9604644775390625e-08, real(shifted + 0x38000000)
    )
    x = where(shifted < 0x0F800000, x, real(shifted + 0x70000000))
    return real(bits(x) | ((code & 0x8000) << 16))


@conversion
def float16_store(x: S) -> U:
    """Round to the nearest, ties to even; the last place of 0.5 as a float32 is 2^-24."""
    sign = (bits(x) >> 16) & 0x8000
    size = bits(x) & 0x7FFFFFFF
    code = where(
        size < 0x38800000,
        bits(real(size) + 0.5) - 0x3F000000,
        (size + 0xFFF + ((size >> 13) & 1) - 0x38000000) >> 13,
    )
    code = where(size < 0x47800000, code, 0x7C00)
    return where(x != x, 0x7E00, code) | sign


@conversion
def float16_random(x: S, random: U) -> U:
    """Round stochastically."""
    sign = (bits(x) >> 16) & 0x8000
    size = bits(x) & 0x7FFFFFFF
    small = where(size < 0x38800000, real(size), 0.0) * 16777216.0
    whole = truncated(small)
    up = where(S(random) * 1.52587890625e-05 < small - S(whole), 1, 0)
    code = where(size < 0x38800000, whole + up, (size - 0x38000000 + (random >> 3)) >> 13)
    code = where(size < 0x47800000, code, 0x7C00)
    return where(x != x, 0x7E00, code) | sign


@conversion
def float16_saturated(x: S, random: U) -> U:
    """Round stochastically; larger magnitudes than 65504, infinities too, become 65504."""
    code = float16_random(x, random)
    return where((code & 0x7FFF) == 0x7C00, (code & 0x8000) | 0x7BFF, code)


NEAREST = short("float16", float16_load, float16_store, narrow=True)
STOCHASTIC = short("float16", float16_load, float16_random, "stochastic", True)
SATURATED = short("float16", float16_load, float16_saturated, "saturated", True)
"""For states: they do not become infinite."""
