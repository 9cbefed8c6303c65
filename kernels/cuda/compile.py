"""Links the CUDA C of a kernel from its files and compiles it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

OPTIONS = ("--fmad=false",)
"""Options of NVRTC: nothing may be contracted, also outside `number` of ``ieee.cuh``."""

INCLUDE = Path(__file__).parent / "include"


def read(name: str) -> str:
    """Return the text of a file of ``include/``."""
    return (INCLUDE / name).read_text(encoding="utf-8")


def link(defines: Mapping[str, object], generated: str, *names: str) -> str:
    """Make one text of a kernel, since NVRTC gets one.

    Parameters
    ----------
    defines : mapping of str to object
        Values of the macros ``GA_<NAME>``.
    generated : str
        Text that depends on a rule and its formats, before the files. It includes what it needs.
    *names : str
        Files of ``include/``. Each file is included once, after the files that it includes.

    Returns
    -------
    str
    """
    included = set[str]()

    def resolve(text: str) -> str:
        return re.sub(r'^#include "(\w+\.cuh)"\n', lambda found: once(found[1]), text, flags=re.M)

    def once(name: str) -> str:
        if name in included:
            return ""
        included.add(name)
        return resolve(read(name))

    macros = [f"#define GA_{name.upper()} {value}\n" for name, value in defines.items()]
    return "".join([*macros, resolve(generated), *map(once, names)])


def built(source: str, name: str, options: tuple[str, ...] = ()) -> Callable[..., None]:
    """Compile the kernel ``name`` of a text for the current device; `OPTIONS` come first."""
    import cupy

    kernel: Callable[..., None] = ready(cupy.RawKernel(source, name, options=(*OPTIONS, *options)))
    return kernel


def ready(kernel: Any) -> Any:
    """Compile a kernel for the current device too, unless it has been, and return it.

    Not at its first launch: then other arrays may have been written already. CuPy compiles a
    kernel for each device.
    """
    _ = kernel.kernel  # `compile` would forget what other devices have
    return kernel
