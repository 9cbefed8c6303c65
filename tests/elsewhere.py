"""Arrays that take of NumPy's functions what CuPy's arrays take, and refuse what they refuse."""

from __future__ import annotations

import types

import numpy as np

FUNCTIONS = {np.where, np.zeros_like}
"""What is asked for on arrays, beside ufuncs: CuPy has these."""

KEYWORDS = {"out", "dtype", "casting"}
"""Of CuPy's ufuncs: there is no ``where``, ``order``, ``subok``."""


class Elsewhere(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in memory that NumPy cannot read."""

    def __init__(self, host):
        self.host = np.array(host)

    def get(self):
        return self.host.copy()

    def copy(self):
        return Elsewhere(self.host)

    def view(self, dtype):
        return Elsewhere(self.host.view(dtype))

    def astype(self, dtype):
        return Elsewhere(self.host.astype(dtype))

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        unknown = keywords.keys() - KEYWORDS
        if method != "__call__" or unknown:
            raise TypeError(f"{ufunc.__name__}.{method}: wrong arguments {unknown}")
        return Elsewhere(ufunc(*map(host, inputs), **keywords))

    def __array_function__(self, function, types, arguments, keywords):
        if function not in FUNCTIONS:
            return NotImplemented
        return Elsewhere(function(*map(host, arguments), **keywords))

    def __array__(self, *_, **__):
        raise TypeError("use .get()")


def host(value):
    """What to compute with; NumPy's arrays are not mixed with those of a GPU."""
    if isinstance(value, Elsewhere):
        return value.host
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"unsupported type {type(value)}")
    return value


def module():
    """In CuPy's place where arrays are made and updated by expressions."""
    made = {name: lambda values: Elsewhere(getattr(values, "host", values))
            for name in ("array", "asarray")}  # fmt: skip
    return types.SimpleNamespace(__name__="cupy", **made)
