"""Which format stands for what a user asks for."""

from . import bfloat16, float16
from .block8 import SIGNED8, UNSIGNED8
from .float import FLOAT32, FLOAT64
from .format import Format
from .kahan import KAHAN
from .master import MASTER
from .split import SPLIT

SHORT = ("bfloat16", "float16")
"""Element types of 16 bits."""

PLAIN = {
    "float64": FLOAT64,
    "float32": FLOAT32,
    "float16": float16.NEAREST,
    "bfloat16": bfloat16.NEAREST,
}
"""By element type: formats of gradients, and of parameters without master and rounding."""

ROUNDINGS: dict[str, dict[str, Format]] = {
    "nearest": {name: PLAIN[name] for name in SHORT},
    "stochastic": {"bfloat16": bfloat16.STOCHASTIC, "float16": float16.STOCHASTIC},
    "kahan": KAHAN,
}
"""By ``rounding`` and element type: formats of 16-bit parameters."""

MASTERS: dict[str, dict[str, Format]] = {"float32": MASTER, "split": SPLIT}
"""By ``master`` and element type: formats of 16-bit parameters."""

STATES = {
    "float64": FLOAT64,
    "float32": FLOAT32,
    "bfloat16": bfloat16.STOCHASTIC,
    "float16": float16.SATURATED,
    "8bit": SIGNED8,
}
"""By ``state_dtype``: formats of states."""

NONNEGATIVE = {"8bit": UNSIGNED8}
"""The same, of states that are never negative."""


def of_state(kind: str, nonnegative: bool) -> Format:
    """Return the format of a state by its ``state_dtype``, and whether it is never negative."""
    return (STATES | NONNEGATIVE if nonnegative else STATES)[kind]
