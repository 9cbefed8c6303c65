"""The functions that a rule may call, as Python.

Their source is copied into every generated CPU module, with ``T`` bound to the compute type;
`kernels/cuda/include/ieee.cuh` defines the same names in CUDA C. The results for NaN and signed
zeros are part of a definition: both languages agree bit for bit.
"""

import numpy as np

T = float


def tiny(x):
    """Whether the magnitude of x is below the smallest normal number; kernels have an intrinsic."""
    return np.abs(x) < np.finfo(T).tiny


def sqrt(x):
    """Correctly rounded square root; NaN for x < 0."""
    return np.sqrt(x)


def sq(x):
    """x * x."""
    return x * x


def abs(x):
    """Magnitude; clears the sign of zeros and NaN."""
    return np.abs(x)


def sign(x):
    """1 for x > 0, -1 for x < 0, otherwise x itself (a signed zero or NaN)."""
    return where(x > T(0), T(1), where(x < T(0), T(-1), x))


def maximum(a, b):
    """The larger of two; NaN if either is NaN; b if they compare equal."""
    return where((a > b) | (a != a), a, b)


def minimum(a, b):
    """The smaller of two; NaN if either is NaN; b if they compare equal."""
    return where((a < b) | (a != a), a, b)


def where(condition, a, b):
    """a where the condition holds, else b; both are evaluated."""
    return a if condition else b


def _normal(x):
    """x, or +0 where its magnitude is below the smallest normal number; NaN stays NaN."""
    return where(tiny(x), T(0), x)


ARITY = {"sqrt": 1, "sq": 1, "abs": 1, "sign": 1, "maximum": 2, "minimum": 2, "where": 3}
"""The functions that a rule may call, with their numbers of arguments."""

NORMAL = "_normal"
"""The function around every new state; rules cannot have names like it."""

USES = {
    "sign": ("where",),
    "maximum": ("where",),
    "minimum": ("where",),
    NORMAL: ("where",),
}
"""The functions that others call, by caller."""
