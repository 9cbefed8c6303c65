"""Kahan compensation: a 16-bit number, and what rounding left out of it in 16 bits too."""

from .bfloat16 import bfloat16_load, bfloat16_store
from .conversion import Conversion, S, U, bits, conversion, real, where
from .float16 import float16_load, float16_store
from .format import Format


@conversion
def compensation(x: S, rest: S, places: S) -> S:
    """What rounding left out of x, or 0 if that is more than half of the last place of x: then
    the owner of x has written another number since. ``places`` is 2^n, with n bits in x."""
    half = real(bits(x) & 0x7F800000)
    return where(half - real(bits(rest) & 0x7FFFFFFF) * places >= 0.0, rest, 0.0)


@conversion
def bfloat16_rest(x: S) -> U:
    """What `bfloat16_store` leaves out."""
    return bfloat16_store(x - bfloat16_load(bfloat16_store(x)))


@conversion
def bfloat16_kahan(code: U, rest: U) -> S:
    """A number and what rounding left out of it."""
    x = bfloat16_load(code)
    return x + compensation(x, bfloat16_load(rest), 256.0)


@conversion
def float16_rest(x: S) -> U:
    """What `float16_store` leaves out."""
    return float16_store(x - float16_load(float16_store(x)))


@conversion
def float16_kahan(code: U, rest: U) -> S:
    """As `bfloat16_kahan`."""
    x = float16_load(code)
    return x + compensation(x, float16_load(rest), 2048.0)


def _kahan(dtype: str, load: Conversion, store: Conversion, rest: Conversion) -> Format:
    return Format(
        f"{dtype}, kahan",
        (("", "uint16"), ("compensation", "uint16")),
        f"{load.name}(U({{0}}), U({{1}}))",
        (f"{store.name}(S({{x}}))", f"{rest.name}(S({{x}}))"),
        (load, store, rest),
    )


KAHAN = {
    "bfloat16": _kahan("bfloat16", bfloat16_kahan, bfloat16_store, bfloat16_rest),
    "float16": _kahan("float16", float16_kahan, float16_store, float16_rest),
}
