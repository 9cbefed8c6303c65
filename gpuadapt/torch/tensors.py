"""Tensors as kernels see them: element types, memory order, and views without a copy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

REAL = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
"""By a tensor's dtype: the element type of parameters and gradients."""

COMPLEX = {torch.complex64: "float32", torch.complex128: "float64"}
"""By a complex dtype: the element type of its real and imaginary parts."""

ELEMENTS = REAL | COMPLEX

DTYPES = {name: dtype for dtype, name in REAL.items()}


def element_type(tensor: Tensor) -> str | None:
    """Return the element type of a tensor, of the parts of complex numbers; None if none fits."""
    return ELEMENTS.get(tensor.dtype)


def local(tensor: Tensor) -> Tensor:
    """Return the part of a DTensor that this process holds; another tensor itself."""
    part: Tensor = getattr(tensor, "_local_tensor", tensor)
    return part


def is_dense(tensor: Tensor) -> bool:
    """Return whether the elements fill one piece of memory, in any order of the axes."""
    return tensor.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))


def same_order(first: Tensor, second: Tensor) -> bool:
    """Return whether two dense tensors of one shape have their elements in the same order."""
    if first.shape != second.shape or not (is_dense(first) and is_dense(second)):
        return False
    strides = zip(first.shape, first.stride(), second.stride(), strict=True)
    return first.numel() == 0 or all(n == 1 or one == other for n, one, other in strides)


def real_view(tensor: Tensor) -> Tensor:
    """Return a view of complex numbers as pairs of real ones; a real tensor itself, detached."""
    plain = tensor.detach()
    return torch.view_as_real(plain) if plain.is_complex() else plain


def as_tensor(array: np.ndarray, dtype: torch.dtype, like: Tensor) -> Tensor:
    """Return the bits of a NumPy array as a new tensor on another tensor's device.

    Parameters
    ----------
    array : ndarray
        As `Format.encode` returns it.
    dtype : torch.dtype
        Of elements as many bits long.
    like : Tensor
    """
    raw = array.view(np.int16) if array.dtype == np.uint16 else array
    return torch.from_numpy(np.array(raw)).view(dtype).to(like.device)


def resolved(gradient: Tensor) -> Tensor:
    """Return a gradient whose memory holds its numbers: no negative or conjugate bit is set."""
    return gradient.resolve_conj().resolve_neg()
