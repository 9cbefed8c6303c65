"""Several gradients of one parameter, which add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .addition import total
from .arrays import plain
from .gradients import check_gradient
from .parameter import Parameter
from .rowgrad import RowGrad, joined


def added(parameter: Parameter, given: Sequence[Any]) -> Any:
    """The sum of gradients of one parameter.

    Rows come first, in order of occurrence; arrays of the whole parameter, in their order, are
    added to what comes of them. With rows among them the sum is a gradient of rows, all rows if
    there is an array too.

    Returns
    -------
    array, RowGrad or None
        None if there is no gradient among them.

    Raises
    ------
    GradientError
    """
    used = [gradient for gradient in given if gradient is not None]
    for gradient in used:
        check_gradient(parameter, gradient)
    if len(used) <= 1:
        return used[0] if used else None
    rows = [gradient for gradient in used if isinstance(gradient, RowGrad)]
    arrays = [plain(gradient) for gradient in used if not isinstance(gradient, RowGrad)]
    return joined([*rows, *map(parameter.as_rows, arrays)]) if rows else total(arrays)
