"""The names of array types in annotations."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

HostArray: TypeAlias = np.ndarray
"""A NumPy array; docstrings give its dtype and shape."""

DeviceArray: TypeAlias = Any
"""A ``cupy.ndarray``: CuPy may be absent, and has no types that mypy could read."""

Array: TypeAlias = Any
"""A `HostArray` or a `DeviceArray`, all of one call on the same device."""
