"""`Quantized`: a state of 8 bits for each element."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuadapt.kernels.formats import BLOCK, SIGNED8, UNSIGNED8

from .arrays import to_host


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

    def __init__(self, codes: Any, scales: Any, signed: bool) -> None:
        self.codes, self.scales, self.signed = codes, scales, signed

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's."""
        shape: tuple[int, ...] = self.codes.shape
        return shape

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return int(self.codes.nbytes + self.scales.nbytes)

    def decoded(self) -> np.ndarray:
        """The numbers: a new NumPy array of float32."""
        codes, scales = to_host(self.codes), to_host(self.scales)
        form = SIGNED8 if self.signed else UNSIGNED8
        rows = codes.reshape(len(scales), -1) if codes.size else codes.reshape(0, 1)
        base = form.part("base")(scales)
        base = np.repeat(base, BLOCK, axis=1)[:, : rows.shape[1]]
        numbers: np.ndarray = form.part("load")(rows.astype(np.uint32), base)
        return numbers.reshape(codes.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decoded().astype(dtype or np.float32)

    def __repr__(self) -> str:
        sign = "signed" if self.signed else "unsigned"
        return f"Quantized({sign}, shape {self.shape}, {self.scales.size:,} scales)"
