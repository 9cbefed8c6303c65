"""The package's exceptions: one base, so that ``except gpuadapt.Error`` catches them all."""


class Error(Exception):
    """Base of every exception that gpuadapt raises on purpose."""


class RuleError(Error):
    """A rule uses something that a rule cannot contain, or its source cannot be read."""


class BackendError(Error, RuntimeError):
    """A backend was asked for that this machine does not have."""


class RowIndexError(Error, IndexError):
    """A row number that is not in its table."""
