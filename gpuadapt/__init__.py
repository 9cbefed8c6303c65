"""Adaptive-learning-rate optimizers as fused kernels, the same bits on CPU and GPU.

>>> import numpy as np, gpuadapt as ga
>>> w = np.ones((4, 3), np.float32)
>>> optimizer = ga.Adam({"w": w}, lr=1e-3)
>>> optimizer.step({"w": np.full_like(w, 0.5)})
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if not (Path(__file__).parent / "kernels" / "__init__.py").exists():
    # An sdist, or a checkout without symbolic links: kernels/ lies beside this package.
    __path__.append(str(Path(__file__).parent.parent))

from gpuadapt.kernels import pieces, rules
from gpuadapt.kernels import sources as _sources  # noqa: F401  (`Rule.source` needs it)
from gpuadapt.kernels.language.rule import Rule, rule

from . import (
    averages,
    convert,
    hooks,
    language,
    optimizers,
    presets,
    schedules,
    testing,
    typing,
)
from .checkpoint.run import latest, load, save
from .errors import (
    BackendError,
    CacheWarning,
    CaptureError,
    CheckpointError,
    ConcurrencyError,
    DamagedFileError,
    DeviceError,
    DeviceMemoryError,
    Error,
    GradientError,
    HyperparameterError,
    InPlaceError,
    KeywordError,
    NotDurableError,
    NotReadError,
    NotWrittenError,
    PackageError,
    ParameterError,
    RecordWarning,
    RowIndexError,
    RuleError,
    SourceError,
    StateError,
    TuningWarning,
)
from .kernels.formats import Quantized
from .loss_scale import LossScale
from .optimizer import Optimizer
from .optimizers import *  # noqa: F403  (its __all__)
from .record import Record
from .rowgrad import RowGrad
from .stats import Stats
from .suggest import missing

__version__ = "0.1.0"

__all__ = [
    *optimizers.__all__,
    "BackendError",
    "CacheWarning",
    "CaptureError",
    "CheckpointError",
    "ConcurrencyError",
    "DamagedFileError",
    "DeviceError",
    "DeviceMemoryError",
    "Error",
    "GradientError",
    "HyperparameterError",
    "InPlaceError",
    "KeywordError",
    "NotDurableError",
    "NotReadError",
    "NotWrittenError",
    "LossScale",
    "Optimizer",
    "PackageError",
    "ParameterError",
    "Quantized",
    "Record",
    "RecordWarning",
    "RowGrad",
    "RowIndexError",
    "Rule",
    "RuleError",
    "SourceError",
    "StateError",
    "Stats",
    "TuningWarning",
    "averages",
    "convert",
    "hooks",
    "language",
    "latest",
    "load",
    "pieces",
    "presets",
    "rule",
    "rules",
    "save",
    "schedules",
    "testing",
    "typing",
]

__dir__ = partial(sorted, [*__all__, "__version__"])

if not TYPE_CHECKING:
    __getattr__ = missing(__name__, __all__)
