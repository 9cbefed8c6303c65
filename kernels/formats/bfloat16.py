"""bfloat16: the upper half of a float32. Kernels have it as uint16."""

from .conversion import S, U, bits, conversion, real, where
from .format import short


@conversion
def bfloat16_load(code: U) -> S:
    """Return the number whose upper 16 bits these are."""
    return real(code << 16)


@conversion
def bfloat16_store(x: S) -> U:
    """Round to the nearest, ties to even."""
    code = bits(x)
    code = (code + 0x7FFF + ((code >> 16) & 1)) >> 16
    return where(x != x, 0x7FC0, code)


@conversion
def bfloat16_random(x: S, random: U) -> U:
    """Round stochastically; numbers beyond the largest finite one are cut off there.

    The upper half of a NaN is a NaN, for every NaN that arithmetic makes.
    """
    return (bits(x) + where((bits(x) & 0x7FFFFFFF) < 0x7F7F0000, random, 0)) >> 16


NEAREST = short("bfloat16", bfloat16_load, bfloat16_store)
STOCHASTIC = short("bfloat16", bfloat16_load, bfloat16_random, "stochastic")
