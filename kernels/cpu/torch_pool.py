"""The OpenMP threads of PyTorch, where it is loaded.

After an operation of torch its OpenMP threads wait actively for the next one: other threads get
the cores late. Kernels that run in those threads themselves do not wait for a core.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from types import ModuleType

LIBRARY = "libtorch_cpu.so"
"""The file that torch's operations are in."""

FORKED = 0x40
"""The flag of Linux (``PF_FORKNOEXEC``) of a process that was forked and runs the same program."""


_known: ModuleType | None = None
"""The module torch, once it is known to have OpenMP threads."""


def loaded() -> ModuleType | None:
    """Return the module torch if it is loaded and has OpenMP threads, else None."""
    global _known
    torch = sys.modules.get("torch")
    if torch is not _known:
        # While it is being imported it lacks the function, and perhaps the library.
        _known = torch if hasattr(torch, "get_num_threads") and entry() else None
    return _known


def count(torch: ModuleType) -> int:
    """How many threads torch uses; 1 in a forked child, where entering them would hang."""
    return 1 if torch is _at_fork else int(torch.get_num_threads())


@cache
def entry() -> int:
    """Return the address of the ``GOMP_parallel`` that torch calls; 0 if there is none.

    GNU's OpenMP has that function, and so have LLVM's and Intel's on Linux.
    """
    path = _path() if sys.platform.startswith("linux") else None
    if path is None or (linked := _function(path)) is None:
        return 0
    # As the dynamic linker looked for it: what is global in the process comes first.
    return _function(None) or linked


def _function(library: str | None) -> int | None:
    try:
        return ctypes.cast(ctypes.CDLL(library).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError):
        return None


def _path() -> str | None:
    """Where torch's library lies that is mapped into this process."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths = (line.rstrip("\n").split(maxsplit=5)[-1] for line in maps)
        return next((path for path in paths if os.path.basename(path) == LIBRARY), None)


def _was_forked() -> bool:
    """Whether this process is a forked child, by what Linux says of it."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            return bool(int(file.read().rpartition(")")[2].split()[6]) & FORKED)
    except OSError:
        return False


def _after_fork() -> None:
    global _at_fork
    _at_fork = sys.modules.get("torch")


_at_fork = sys.modules.get("torch") if "torch" in sys.modules and _was_forked() else None
"""In a forked child the module torch of the parent, whose threads do not exist here."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
