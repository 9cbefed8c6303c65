"""Kahan compensation: a 16-bit number, and its rounding error in 16 bits too."""

from .bfloat16 import bfloat16_load, bfloat16_store
from .conversion import Conversion, S, U, bits, conversion, real, where
from .float16 import float16_load, float16_store
from .format import Format


@conversion
def compensation(x: S, residual: S, steps: S) -> S:
    """Return the residual of x, or 0 if it exceeds half of the last place of x.

    It does where the owner of x has written another number. ``steps`` is 2^n, with n bits in x.
    """
    power = real(bits(x) & 0x7F800000)
    return where(power - real(bits(residual) & 0x7FFFFFFF) * steps >= 0.0, residual, 0.0)


@conversion
def bfloat16_residual(x: S) -> U:
    """Return the rounding error of `bfloat16_store`, as a bfloat16."""
    return bfloat16_store(x - bfloat16_load(bfloat16_store(x)))


@conversion
def bfloat16_kahan(code: U, residual: U) -> S:
    """Return the sum of a number and its residual."""
    x = bfloat16_load(code)
    return x + compensation(x, bfloat16_load(residual), 256.0)


@conversion
def float16_residual(x: S) -> U:
    """Return the rounding error of `float16_store`, as a float16."""
    return float16_store(x - float16_load(float16_store(x)))


@conversion
def float16_kahan(code: U, residual: U) -> S:
    """Return the sum of a number and its residual."""
    x = float16_load(code)
    return x + compensation(x, float16_load(residual), 2048.0)


def _kahan(dtype: str, load: Conversion, store: Conversion, residual: Conversion) -> Format:
    return Format(
        f"{dtype}, kahan",
        (("", "uint16"), ("compensation", "uint16")),
        f"{load.name}(U({{0}}), U({{1}}))",
        (f"{store.name}(S({{x}}))", f"{residual.name}(S({{x}}))"),
        (load, store, residual),
    )


KAHAN = {
    "bfloat16": _kahan("bfloat16", bfloat16_kahan, bfloat16_store, bfloat16_residual),
    "float16": _kahan("float16", float16_kahan, float16_store, float16_residual),
}
