"""Types for annotations: ``groups: list[ga.typing.AdamGroup] = [...]``.

Arrays and what they come in: `Array`, `Params`, `ParamsOrGroups`, `Grads`. Numbers: `Scalar`,
`Hyperparameter`, `Schedule`, `Betas`. Groups by method, and `Group` for what they share. Options
that are chosen by name: `Decay` and so on. Keywords: `CommonOptions`, `AdamOptions`, for
``**options: Unpack[CommonOptions]`` of a function that passes them on. Results: `StepResult`,
`Left`, `Loaded`.
"""

from __future__ import annotations

from functools import partial

from .averages import Average
from .checkpoint.run import Loaded
from .choices import (
    AdagradEps,
    AdamaxEps,
    AdamEps,
    AMSGrad,
    Backend,
    Check,
    Decay,
    Duplicates,
    Exactness,
    Master,
    MomentumForm,
    ParameterDtype,
    RMSpropEps,
    Rounding,
    Sparse,
    StateDtype,
    TorchSparse,
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
from .launch import Threads
from .rowgrad import Grads
from .schedules import Function as Schedule
from .state import Left
from .step_options import StepResult

__all__ = [
    "AMSGrad",
    "AdadeltaGroup",
    "AdagradEps",
    "AdagradGroup",
    "AdamEps",
    "AdamGroup",
    "AdamOptions",
    "AdamaxEps",
    "Array",
    "Average",
    "Backend",
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
    "Left",
    "Loaded",
    "Master",
    "MomentumForm",
    "NAdamGroup",
    "ParameterDtype",
    "Params",
    "ParamsOrGroups",
    "RAdamGroup",
    "RMSpropEps",
    "RMSpropGroup",
    "Rounding",
    "SGDGroup",
    "Scalar",
    "Schedule",
    "Sparse",
    "StateDtype",
    "StepResult",
    "Threads",
    "TorchSparse",
]

__dir__ = partial(sorted, __all__)
