"""A float32 in two halves: a bfloat16 parameter, and the 16 bits that it leaves out."""

from .conversion import S, U, bits, conversion, real, where
from .format import Format


@conversion
def split_load(high: U, low: U) -> S:
    """A float32 from its nearest bfloat16 and its lower half.

    Where the owner has written a zero or an infinity over another number, the two may make a NaN
    of which no part is one: then the lower half counts as 0.
    """
    x = real((high << 16) + low - ((low & 0x8000) << 1))
    return where(x != x, real(high << 16), x)


@conversion
def split_high(x: S) -> U:
    """The nearest bfloat16, ties away from zero, so that the lower half says which way it went."""
    return (bits(x) + where(x != x, 0, 0x8000)) >> 16


@conversion
def split_low(x: S) -> U:
    """The lower half."""
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
