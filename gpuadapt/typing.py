"""Types for annotations: ``groups: list[ga.typing.AdamGroup] = [...]``.

Arrays and what they come in: `Array`, `Params`, `ParamsOrGroups`, `Grads`. Numbers: `Scalar`,
`Hyperparameter`, `Schedule`, `Betas`. Groups by method, and `Group` for what they share. Options
that are chosen by name: `Decay` and so on. Keywords: `CommonOptions`, `AdamOptions`, for
``**options: Unpack[CommonOptions]`` of a function that passes them on.
"""

from __future__ import annotations

from functools import partial

from .choices import (
    Check,
    Decay,
    Duplicates,
    Exactness,
    Master,
    Rounding,
    Sparse,
    StateDtype,
)
from .common_options import (
    AdadeltaGroup,
    AdagradGroup,
    AdamGroup,
    AdamOptions,
    BetasGroup,
    CommonOptions,
    FTRLGroup,
    Group,
    NAdamGroup,
    RAdamGroup,
    RMSpropGroup,
    SGDGroup,
)
from .containers import Array, Params, ParamsOrGroups
from .hyperparameters import Betas, Hyperparameter, Scalar
from .rowgrad import Grads
from .schedules import Function as Schedule

__all__ = [
    "AdadeltaGroup",
    "AdagradGroup",
    "AdamGroup",
    "AdamOptions",
    "Array",
    "Betas",
    "BetasGroup",
    "Check",
    "CommonOptions",
    "Decay",
    "Duplicates",
    "Exactness",
    "FTRLGroup",
    "Grads",
    "Group",
    "Hyperparameter",
    "Master",
    "NAdamGroup",
    "Params",
    "ParamsOrGroups",
    "RAdamGroup",
    "RMSpropGroup",
    "Rounding",
    "SGDGroup",
    "Scalar",
    "Schedule",
    "Sparse",
    "StateDtype",
]

__dir__ = partial(sorted, __all__)
