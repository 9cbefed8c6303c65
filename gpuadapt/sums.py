"""Add several gradients of one parameter, dense or by rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .addition import total
from .arrays import plain
from .gradients import adapted, check_gradient
from .parameter import Parameter
from .rowgrad import RowGrad, joined


def added(parameter: Parameter, gradients: Sequence[Any]) -> Any:
    """Add gradients of one parameter: rows first, then arrays, each in their order.

    Parameters
    ----------
    parameter : Parameter
    gradients : sequence of array, RowGrad or None

    Returns
    -------
    array, RowGrad or None
        RowGrad if one of them is (with all rows if there is an array too); None if all are None.

    Raises
    ------
    GradientError
        One of them does not fit the parameter.
    """
    used = [gradient for gradient in gradients if gradient is not None]
    used = adapted([parameter] * len(used), used)
    for gradient in used:
        check_gradient(parameter, gradient)
    if len(used) <= 1:
        return used[0] if used else None
    rows = [gradient for gradient in used if isinstance(gradient, RowGrad)]
    arrays = [plain(gradient) for gradient in used if not isinstance(gradient, RowGrad)]
    return joined([*rows, *map(parameter.as_rows, arrays)]) if rows else total(arrays)
