"""The exceptions of gpuadapt; the base class is in `gpuadapt.kernels.errors`."""

from gpuadapt.kernels.errors import (
    BackendError,
    CacheWarning,
    Error,
    RowIndexError,
    RuleError,
    SourceError,
    TuningWarning,
)


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


class DeviceError(Error, RuntimeError):
    """A GPU has failed, or refuses to work for this process."""


class DeviceMemoryError(DeviceError, MemoryError):
    """The memory of a GPU is full."""


class CaptureError(Error, RuntimeError):
    """A step that cannot be captured in a CUDA graph."""


class ConcurrencyError(Error, RuntimeError):
    """A call of an optimizer from within another call of the same optimizer."""


class StateError(Error, ValueError):
    """A saved state that does not fit the optimizer."""


class CheckpointError(Error):
    """A file of an optimizer that cannot be written or read; the base of the following."""


class NotWrittenError(CheckpointError, OSError):
    """The system has refused to write a file; the file before is whole."""


class NotDurableError(CheckpointError, OSError):
    """A file is in place, but may be lost if the machine fails now."""


class NotReadError(CheckpointError, OSError):
    """There is no such file, or the system has refused to read it."""


class DamagedFileError(CheckpointError, ValueError):
    """A file that `save` has not written, or that has been changed since."""


class PackageError(Error, ImportError):
    """A package that a call needs, and that is not installed."""


class RecordWarning(UserWarning):
    """A function that a `Record` calls has raised; training goes on."""


__all__ = [
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
    "PackageError",
    "ParameterError",
    "RecordWarning",
    "RowIndexError",
    "RuleError",
    "SourceError",
    "StateError",
    "TuningWarning",
]
