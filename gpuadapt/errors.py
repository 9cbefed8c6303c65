"""The exceptions of gpuadapt; the base class is in `gpuadapt.kernels.errors`."""

from gpuadapt.kernels.errors import BackendError, Error, RowIndexError, RuleError


class ParameterError(Error, ValueError):
    """An array that cannot be a parameter, or a name that is not one."""


class InPlaceError(ParameterError, RuntimeError):
    """A tensor that no operation may change in place."""


class GradientError(Error, ValueError):
    """A gradient that does not fit its parameter, or gradients that do not match the parameters."""


class HyperparameterError(Error, ValueError):
    """A hyperparameter that is unknown, missing or out of range."""


class KeywordError(HyperparameterError, TypeError):
    """A keyword that a constructor does not have, or a setting that its rule does not read."""


class CaptureError(Error, RuntimeError):
    """A step that cannot be captured in a CUDA graph."""


class ConcurrencyError(Error, RuntimeError):
    """A call of an optimizer from within another call of the same optimizer."""


class StateError(Error, ValueError):
    """A saved state that does not fit the optimizer."""


__all__ = [
    "BackendError",
    "CaptureError",
    "ConcurrencyError",
    "Error",
    "GradientError",
    "HyperparameterError",
    "InPlaceError",
    "KeywordError",
    "ParameterError",
    "RowIndexError",
    "RuleError",
    "StateError",
]
