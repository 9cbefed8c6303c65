"""The modes of a thread's floating-point arithmetic, around what the host computes.

Libraries change them, for the whole thread: ``torch.set_flush_denormal(True)``, or C code that was
linked with ``-ffast-math``. Kernels set the default modes in each thread that they use
(`default_modes` of `gpuadapt.kernels.cpu.intrinsics`); this is for the Python around them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import TypeVar, TypeVarTuple

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

LITTLE = 2.0**-60
"""What neither changes 1 when it is added nor when it is subtracted, if rounding is to nearest."""

SMALLEST = 2.0**-1022
"""The smallest normal number: a half of it is zero if subnormal numbers are not kept."""


def in_default_modes(function: Callable[[*Given], Result]) -> Callable[[*Given], Result]:
    """The function, in the default modes (round to nearest, subnormal numbers kept).

    Arithmetic itself shows whether the modes are others, which takes 0.1 us; only then are they
    set, and restored at the end.
    """

    @wraps(function)
    def run(*given: *Given) -> Result:
        if 1.0 + LITTLE == 1.0 == 1.0 - LITTLE and SMALLEST * 0.5 > 0.0:
            return function(*given)
        switch = switches()
        before = switch.enter()
        try:
            return function(*given)
        finally:
            switch.leave(before)

    return run


@cache
def switches() -> ModuleType:
    """Compiled: ``enter()`` sets the default modes, ``leave(modes)`` what it returned."""
    from . import compile  # and Numba, which `import gpuadapt` does without

    return compile.load("modes", compile.link("modes", "", "modes"))
