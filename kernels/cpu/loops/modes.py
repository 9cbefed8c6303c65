"""The modes of floating-point arithmetic, set and restored for the host."""

from numba import njit, types

from ..intrinsics import default_modes, restore_modes
from .interface import ENTRY


@njit([types.uint64()], **ENTRY)
def enter():
    """Set the default modes; returns those of before."""
    return default_modes()


@njit([types.void(types.uint64)], **ENTRY)
def leave(modes):
    """Set the modes that ``enter`` returned."""
    restore_modes(modes)
