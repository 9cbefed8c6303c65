"""Check gradients, row indices and values against the parameter that they are for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray

from .addition import plain_backend
from .arrays import DTYPES, backend_of, describe, dtype_name, namespace, plain
from .errors import GradientError, ParameterError
from .parameter import Parameter
from .row_indices import advice, listed
from .rowgrad import RowGrad
from .state_formats import decoded, parts_of


def check_gradient(parameter: Parameter, grad: Any) -> None:
    """Check type, dtype, shape and device of a gradient.

    Parameters
    ----------
    parameter : Parameter
    grad : array or RowGrad

    Raises
    ------
    GradientError
    """
    if isinstance(grad, RowGrad):
        _check_rows(parameter, grad)
        return
    kind = type(grad)
    if (
        (kind is parameter.array_type or _is_kind(parameter, grad))
        and dtype_name(grad) is not None
        and grad.shape == parameter.shape
        and (parameter.backend == "cpu" or grad.device == parameter.array.device)
    ):
        return
    raise GradientError(
        f"gradient of {parameter.name!r}: got {describe(grad)}, expected "
        f"{describe(parameter.array)}{advice(grad)}"
    )


def _check_rows(parameter: Parameter, grad: RowGrad) -> None:
    """Check a gradient by rows."""
    fits = (
        backend_of(grad.values) == parameter.backend
        and parameter.shape != ()
        and grad.row_shape == parameter.shape[1:]
        and (
            parameter.backend == "cpu"
            or grad.rows.device == grad.values.device == parameter.array.device
        )
    )
    if not fits:
        raise GradientError(
            f"gradient of {parameter.name!r}: got {grad!r}, expected rows of a "
            f"{describe(parameter.array)}"
        )


def row_numbers(parameter: Parameter, rows: Any) -> Array:
    """Check the row indices that `Optimizer.read` is called with; an array of integers.

    Raises
    ------
    GradientError
        If they are no integers on the table's device.
    ParameterError
        If the parameter has no rows.
    """
    if parameter.shape == ():
        raise ParameterError(f"parameter {parameter.name!r} has no rows: its shape is ()")
    rows = plain(listed(rows) if parameter.backend == "cpu" else rows)
    if backend_of(rows) != parameter.backend or rows.dtype.kind not in "iu":
        raise GradientError(
            f"rows of {parameter.name!r}: got {describe(rows)}, expected an array of integers on "
            "the table's device"
        )
    return rows


def numbers_of(parameter: Parameter, values: Any) -> HostArray:
    """Check the values that `Optimizer.write` is called with, and copy them to the host.

    Raises
    ------
    ParameterError
    """
    values = plain(values) if plain_backend(values) else values
    kind = dtype_name(values) if plain_backend(values) else None
    if kind is None or values.shape != parameter.shape:
        raise ParameterError(
            f"values of {parameter.name!r}: got {describe(values)}, expected {', '.join(DTYPES)} "
            f"of shape {parameter.shape}"
        )
    parameter.check_writable()
    return decoded(values)


def _is_kind(parameter: Parameter, grad: Any) -> bool:
    """True for subclasses except masked arrays, and for the scalars of NumPy's reductions."""
    if parameter.backend == "cpu" and isinstance(grad, np.generic):
        return True
    return isinstance(grad, parameter.array_type) and not isinstance(grad, np.ma.MaskedArray)


def check_apart(name: str, grad: Array, parameters: Iterable[Parameter]) -> None:
    """Check that a gradient aliases neither a parameter nor a state.

    Parameters
    ----------
    name : str
        Of the gradient's parameter.
    grad : Array
    parameters : iterable of Parameter

    Raises
    ------
    GradientError
    """
    for parameter in parameters:
        if parameter.array_type is not type(grad):
            continue
        for letter, array in (("", parameter.array), *parameter.saved_states.items()):
            if any(
                namespace(parameter.backend).shares_memory(part, grad) for part in parts_of(array)
            ):
                what = f"state {letter!r} of " if letter else "parameter "
                raise GradientError(
                    f"gradient of {name!r}: shares memory with {what}{parameter.name!r}; "
                    "pass a copy"
                )
