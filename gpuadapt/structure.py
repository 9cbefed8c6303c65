"""What the gradient of a parameter must be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .addition import plain_backend
from .arrays import KINDS, backend_of, describe, kind_of, namespace, plain
from .errors import GradientError, ParameterError
from .quantized import Quantized
from .rowgrad import RowGrad
from .rownumbers import advice, listed
from .slot import Slot
from .storage import decoded


def check_gradient(slot: Slot, grad: Any) -> None:
    """Raise `GradientError` unless a gradient fits its parameter."""
    if isinstance(grad, RowGrad):
        _check_rows(slot, grad)
        return
    kind = type(grad)
    if (
        (kind is slot.kind or _is_kind(slot, grad))
        and kind_of(grad) is not None
        and grad.shape == slot.shape
        and (slot.backend == "cpu" or grad.device == slot.array.device)
    ):
        return
    raise GradientError(
        f"gradient of {slot.name!r}: got {describe(grad)}, expected {describe(slot.array)}"
        f"{advice(grad)}"
    )


def _check_rows(slot: Slot, grad: RowGrad) -> None:
    fits = (
        backend_of(grad.values) == slot.backend
        and slot.shape != ()
        and grad.row_shape == slot.shape[1:]
        and (slot.backend == "cpu" or grad.rows.device == grad.values.device == slot.array.device)
    )
    if not fits:
        raise GradientError(
            f"gradient of {slot.name!r}: got {grad!r}, expected rows of a {describe(slot.array)}"
        )


def row_numbers(slot: Slot, rows: Any) -> Any:
    """Numbers of a table's rows, as an array.

    Raises
    ------
    GradientError, ParameterError
        They cannot be such; the parameter has no rows.
    """
    if slot.shape == ():
        raise ParameterError(f"parameter {slot.name!r} has no rows: its shape is ()")
    rows = plain(listed(rows) if slot.backend == "cpu" else rows)
    if backend_of(rows) != slot.backend or rows.dtype.kind not in "iu":
        raise GradientError(
            f"rows of {slot.name!r}: got {describe(rows)}, expected an array of integers on the "
            "table's device"
        )
    return rows


def numbers_of(slot: Slot, values: Any) -> np.ndarray:
    """Values that a parameter is to hold, on the host.

    Raises
    ------
    ParameterError
    """
    values = plain(values) if plain_backend(values) else values
    kind = kind_of(values) if plain_backend(values) else None
    if kind is None or values.shape != slot.shape:
        raise ParameterError(
            f"values of {slot.name!r}: got {describe(values)}, expected {', '.join(KINDS)} of "
            f"shape {slot.shape}"
        )
    slot.check_writable()
    return decoded(values)


def _is_kind(slot: Slot, grad: Any) -> bool:
    """Subclasses, but for masked arrays, and NumPy's numbers, which reductions return."""
    if slot.backend == "cpu" and isinstance(grad, np.generic):
        return True
    return isinstance(grad, slot.kind) and not isinstance(grad, np.ma.MaskedArray)


def check_apart(name: str, grad: Any, slots: Iterable[Slot]) -> None:
    """Raise `GradientError` if a gradient shares memory with a parameter or a state."""
    for slot in slots:
        if slot.kind is not type(grad):
            continue
        for letter, array in (("", slot.array), *slot.kept.items()):
            parts = (array.codes, array.scales) if isinstance(array, Quantized) else (array,)
            if any(namespace(slot.backend).shares_memory(part, grad) for part in parts):
                what = f"state {letter!r} of " if letter else "parameter "
                raise GradientError(
                    f"gradient of {name!r}: shares memory with {what}{slot.name!r}; pass a copy"
                )
