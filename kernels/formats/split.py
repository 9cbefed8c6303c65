"""A float32 in two halves: a bfloat16 parameter, and the 16 bits that it leaves out."""

from .conversion import S, U, bits, conversion, real, where
from .format import Format


@conversion
def split_load(high: U, low: U) -> S:
    """Return the float32 of a nearest bfloat16 and a lower half.

    The two may make a NaN where the owner has written a zero or an infinity over another number.
    There the lower half is taken for 0.
    """
    x = real((high << 16) + low - ((low & 0x8000) << 1))
    return where(x != x, real(high << 16), x)


@conversion
def split_high(x: S) -> U:
    """Round to the nearest, ties away from zero: the lower half then tells the direction."""
    return (bits(x) + where(x != x, 0, 0x8000)) >> 16


@conversion
def split_low(x: S) -> U:
    """Return the lower half; 0 for a NaN."""
    return where(x != x, 0, bits(x) & 0xFFFF)


SPLIT = {
    "bfloat16": Format(
        "bfloat16, split",
        (("", "uint16"), ("low", "uint16")),
        "split_load(U({0}), U({1}))",
        ("split_high(S({x}))", "split_low(S({x}))"),
        (split_load, split_high, split_low),
    )
}
