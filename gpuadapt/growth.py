"""Tables that grow: states of the first rows go into the states of a larger table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.commit import Call, make
from gpuadapt.kernels.formats import BLOCK, Quantized

from .arrays import SmallArrayArena, check_parameter, copy_calls, describe, dtype_name, to_host
from .errors import ParameterError
from .foreign import as_array
from .parameter import Parameter
from .state_formats import arrays_of


def grown(
    parameter: Parameter,
    array: Any,
    settings: Mapping[str, Any],
    initial: Mapping[str, Any],
) -> Parameter:
    """Return a parameter of a larger table; its first rows have the states of ``parameter``.

    Parameters
    ----------
    parameter : Parameter
    array : array, shape (rows or more, ...)
        The larger table, on the same device.
    settings : mapping
        The settings of the group.
    initial : mapping of str to float or Start
        Values of states of new rows.

    Raises
    ------
    ParameterError, BackendError
        The array is no such table, or rows have skipped steps.
    """
    name, old = parameter.name, parameter.array
    if parameter.shape == ():
        raise ParameterError(f"grow: parameter {name!r} has no rows: its shape is ()")
    given, label = array, f"grow: parameter {name!r}"
    array = as_array(label, given, ParameterError, writable=True)
    backend = check_parameter(name, array)
    same = backend == parameter.backend and dtype_name(array) == parameter.dtype_name
    same = same and (backend == "cpu" or array.device == old.device)
    if not (same and array.shape[1:] == parameter.shape[1:] and len(array) >= len(old)):
        raise ParameterError(
            f"{label}: got {describe(array)}, expected {describe(old)} with as many rows or more"
        )
    if not parameter.is_current:
        raise ParameterError(
            f"grow: rows of {name!r} have missed steps: call flush({name!r}) first, and copy the "
            "weights after that"
        )
    common = parameter.storage, settings, initial, SmallArrayArena()
    new = Parameter(name, array, backend, parameter.group, *common, owner=given)
    make(first_rows_calls(new, parameter.saved_arrays, len(old)))
    new.take_counts_from(parameter)
    return new


def kept_shapes(parameter: Parameter, rows: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a table's saved arrays by name, if it had so many rows."""
    shape = (rows, *parameter.shape[1:])
    shapes: dict[str, tuple[int, ...]] = {}
    for name, one in parameter.saved_states.items():
        if isinstance(one, Quantized):
            shapes |= dict(zip(arrays_of({name: one}), one.format.shapes(shape), strict=True))
        else:
            shapes[name] = (rows, *one.shape[1:])
    return shapes


def rows_of(parameter: Parameter, arrays: Mapping[str, Any]) -> int | None:
    """Return the number of rows of the table that these arrays were saved of.

    None if the table has other columns or formats than the parameter.
    """
    if not parameter.shape or arrays.keys() != parameter.saved_arrays.keys():
        return None
    lengths = {len(a) for name, a in arrays.items() if a.shape and not name.endswith(".scales")}
    if len(lengths) != 1:
        return None
    (rows,) = lengths
    same = {name: array.shape for name, array in arrays.items()} == kept_shapes(parameter, rows)
    return rows if same else None


def first_rows_calls(parameter: Parameter, arrays: Mapping[str, Any], rows: int) -> list[Call]:
    """The calls that write saved arrays of a table of so many rows into a parameter's first."""
    calls: list[Call] = []
    for name, one in parameter.saved_states.items():
        if not isinstance(one, Quantized):
            calls += copy_calls(one[:rows], arrays[name])
            continue
        codes, scales = arrays[f"{name}.codes"], arrays[f"{name}.scales"]
        if len(one.scales) == len(one.codes) or one.codes.ndim == 0:
            calls += copy_calls(one.codes[:rows], codes)
            calls += copy_calls(one.scales[:rows], scales)
        elif codes.size:
            calls += _run_calls(one, codes, scales)
    return calls


def _run_calls(one: Quantized, codes: Any, scales: Any) -> list[Call]:
    """As `first_rows_calls`, for blocks that cross rows: the last one has old and new rows."""
    count, blocks = codes.size, scales.shape[1]
    last = (blocks - 1) * BLOCK
    flat = one.codes.reshape(-1)
    stop = min(last + BLOCK, flat.size)
    scale, after = to_host(scales)[0, -1], to_host(one.scales)[0, blocks - 1]
    before, new = to_host(codes).reshape(-1)[last:], to_host(flat[count:stop])
    form = one.format
    values = form.decode_codes(new, after)
    common = np.maximum(form.scale(values), scale)
    if common > scale:
        before = form.encode_codes(form.decode_codes(before, scale), common)
    new = form.encode_codes(values, common)
    return [
        *copy_calls(flat[:last], codes.reshape(-1)[:last]),
        *copy_calls(flat[last:stop], np.concatenate([before, new])),
        *copy_calls(one.scales[0, :blocks], scales[0]),
        *copy_calls(one.scales[0, blocks - 1 : blocks], np.array([common], np.float32)),
    ]
