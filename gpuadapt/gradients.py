"""Check gradients, row indices and values against the parameter that they are for.

A gradient has one of three kinds: dense, rows, or strided. `classified` checks gradients of which
nothing is known; `launch.address_finder` and `check_single` check those that a plan expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.addresses import same_memory
from gpuadapt.kernels.array_types import Array, HostArray

from . import launch
from .addition import plain_backend
from .arrays import (
    DTYPES,
    backend_of,
    contiguous,
    describe,
    dtype_name,
    numbered,
    plain,
    share_memory,
)
from .device_parameters import Alike, DeviceParameters
from .errors import GradientError, ParameterError
from .foreign import as_array, sparse_rows
from .parameter import Parameter
from .row_indices import advice, listed
from .rowgrad import RowGrad
from .state_formats import decoded, parts_of

OWN_TYPES = frozenset({np.ndarray, RowGrad, type(None), list, tuple})
"""Types of gradients that are no other library's arrays."""


class DenseGradient(NamedTuple):
    """A contiguous gradient, which multi-tensor launches read by its address."""

    dtype: np.dtype
    dtype_name: str
    order: str
    """ "C" or "F": the order of its memory, and of its parameter's."""


class RowGradient(NamedTuple):
    """A gradient that is launched by rows: a `RowGrad`, or a dense one."""

    kind: type[Any]
    dtype: np.dtype
    dtype_name: str


class StridedGradient(NamedTuple):
    """A dense gradient with a launch of its own."""

    kind: type[Any]
    dtype: np.dtype
    dtype_name: str
    order: str
    """The order in which a contiguous gradient would be a `DenseGradient`; "" if in none."""


StepGradient = DenseGradient | RowGradient | StridedGradient | None


class Classified(NamedTuple):
    """The kinds of a device's gradients."""

    kinds: list[tuple[Alike, StepGradient]]
    """Parameters that are alike, and how those with a gradient of this kind are updated."""
    numbers: HostArray
    """int64, shape (parameters,): the index in ``kinds`` of each parameter's gradient."""
    active: HostArray
    """bool, shape (parameters,): True for those with a gradient."""
    finder: Any
    """The check of gradients of these kinds (`launch.address_finder`)."""


def adapted(parameters: Sequence[Parameter], grads: Sequence[Any]) -> list[Any]:
    """Replace other libraries' arrays by NumPy and CuPy arrays of their memory.

    Parameters
    ----------
    parameters : sequence of Parameter
    grads : sequence
        One for each parameter. Sparse torch tensors become `RowGrad`; lists stay as they are.

    Raises
    ------
    GradientError, BackendError
    """
    return [
        grad if type(grad) in OWN_TYPES else as_gradient(parameter, grad)
        for parameter, grad in zip(parameters, grads, strict=True)
    ]


def as_gradient(parameter: Parameter, grad: Any) -> Any:
    """Return what `adapted` puts in place of one gradient."""
    label = f"gradient of {parameter.name!r}"
    sparse = sparse_rows(label, grad)
    if sparse is None:
        return as_array(label, grad)
    if tuple(grad.shape) != parameter.shape:
        raise GradientError(
            f"{label}: got a sparse tensor of shape {tuple(grad.shape)}, expected "
            f"{describe(parameter.array)}"
        )
    return RowGrad(*sparse)


def classified(device: DeviceParameters, grads: list[Any], by_rows: Sequence[bool]) -> Classified:
    """Check the gradients of a step, and find out how each is launched.

    Parameters
    ----------
    device : DeviceParameters
    grads : list of array, RowGrad or None
        One for each parameter of the device.
    by_rows : sequence of bool
        For each group whether dense gradients are launched by rows.

    Raises
    ------
    GradientError
        If a gradient does not fit its parameter, or aliases memory of a parameter or state.
    ParameterError
        If a parameter has been made read-only.
    """
    # Gradients of their parameters' own dtypes and orders need no Python of their own.
    alike, numbers = device.alike, device.alike_numbers
    kinds: list[StepGradient] = [_usual(one, by_rows) for one in alike]
    finder = _address_finder(device, kinds, numbers)
    found = np.zeros(len(grads), np.int64)
    if finder.find(id(grads), found):
        numbers = numbers.copy()
        known = {(number, kind): number for number, kind in enumerate(kinds)}
        for k in np.flatnonzero(found == 0).tolist():
            parameter, grad = device.parameters[k], grads[k]
            number = int(device.alike_numbers[k])
            kind = None
            if grad is not None:
                rows = by_rows[parameter.group] or parameter.history is not None
                kind = _kind(device, parameter, device.alike[number].order, grad, rows)
            numbers[k] = known.setdefault((number, kind), len(known))
        firsts, compact = numbered(numbers.tolist())
        used, numbers = numbers[firsts], compact
        found_kinds = list(known)
        alike = [device.alike[found_kinds[number][0]] for number in used.tolist()]
        kinds = [found_kinds[number][1] for number in used.tolist()]
        finder = _address_finder(device, kinds, numbers)
    active = np.array([kind is not None for kind in kinds], bool)[numbers]
    return Classified([*zip(alike, kinds, strict=True)], numbers, active, finder)


def _usual(alike: Alike, by_rows: Sequence[bool]) -> DenseGradient | None:
    """The contiguous gradient of the parameters' own dtype and order; None if there is none."""
    parameter, order = alike
    if not order or by_rows[parameter.group] or parameter.exact:
        return None
    return DenseGradient(parameter.array.dtype, parameter.dtype_name, order)


def _kind(
    device: DeviceParameters, parameter: Parameter, order: str, grad: Any, by_rows: bool
) -> StepGradient:
    """Check a gradient, and find out how it is launched.

    Parameters
    ----------
    device : DeviceParameters
    parameter : Parameter
    order : str
        The order of the parameter's memory; "" if it is not contiguous.
    grad : array or RowGrad
    by_rows : bool
        Launch a dense gradient by rows.

    Raises
    ------
    GradientError, ParameterError
    """
    check_gradient(parameter, grad)
    parameter.check_writable()
    kind = type(grad)
    if isinstance(grad, RowGrad):
        for array in grad.arrays:
            _check_alias(device, parameter, array)
        return RowGradient(kind, grad.values.dtype, dtype_name(grad.values) or "")
    alias = _check_alias(device, parameter, plain(grad))
    dtype, name = grad.dtype, dtype_name(grad) or ""
    if by_rows:
        return RowGradient(kind, dtype, name)
    simple = kind is parameter.array_type and not alias
    if simple and order and contiguous(grad, order):
        return DenseGradient(dtype, name, order)
    return StridedGradient(kind, dtype, name, order if simple else "")


def _address_finder(
    device: DeviceParameters, kinds: Sequence[StepGradient], numbers: HostArray
) -> Any:
    """The check of gradients of kinds (`launch.address_finder`)."""
    return launch.address_finder(
        device.backend,
        device.parameters,
        device.sizes,
        [(one.dtype, one.order) if isinstance(one, DenseGradient) else None for one in kinds],
        numbers,
        device.range_starts,
        device.range_ends,
    )


def check_single(device: DeviceParameters, parameter: Parameter, grad: Any) -> None:
    """Check a gradient of the type and dtype that a plan launches by itself.

    Raises
    ------
    GradientError, ParameterError
        As by `classified`.
    """
    if type(grad) is RowGrad and device.backend == "cpu":
        rows, values = grad.rows, grad.values
        if (
            type(values) is parameter.array_type
            and parameter.shape
            and values.shape[rows.ndim :] == parameter.shape[1:]
            and parameter.user_array.flags.writeable
            and same_memory(parameter.user_array, parameter.array)
            and device.lie_apart(rows, values)
        ):
            return
    check_gradient(parameter, grad)
    parameter.check_writable()
    for array in grad.arrays if isinstance(grad, RowGrad) else (plain(grad),):
        _check_alias(device, parameter, array)


def _check_alias(device: DeviceParameters, parameter: Parameter, array: Array) -> bool:
    """Check that a gradient shares no memory with a parameter or state.

    Returns
    -------
    bool
        True if it lies between their elements.

    Raises
    ------
    GradientError
    """
    alias = device.may_alias(array)
    if alias:
        check_apart(parameter.name, array, device.beside(array))
    return alias


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
    average = parameter.storage.average
    if average is not None and not (parameter.exact or average.misses_steps):
        raise GradientError(
            f"gradient of {parameter.name!r}: got a gradient of some rows, and the optimizer keeps "
            "an average that counts steps, which rows without a gradient would miss; give "
            "sparse='exact', or another average, such as averages.Exponential"
        )
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
    rows = listed(rows) if parameter.backend == "cpu" else rows
    rows = plain(as_array(f"rows of {parameter.name!r}", rows))
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
    values = as_array(f"values of {parameter.name!r}", values, ParameterError)
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
            if any(share_memory(part, grad) for part in parts_of(array)):
                what = f"state {letter!r} of " if letter else "parameter "
                raise GradientError(
                    f"gradient of {name!r}: shares memory with {what}{parameter.name!r}; "
                    "pass a copy"
                )
