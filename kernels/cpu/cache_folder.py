"""The folder in which generated modules and machine code are kept, and whether it is trusted.

What is read from it runs in the user's process. So it is used only if nobody but the user and root
can have written there: the folder and its files belong to one of the two, neither their group nor
others may write, and nobody else can put another folder in its place. Systems without user numbers
(Windows) have no such modes to look at.

Where the folder is missing, full, read-only or not trusted, kernels stay in memory: nothing here
raises an exception for it. The first such event of a process issues a `CacheWarning`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

from ..errors import CacheWarning
from ..user_folder import chosen

FORMAT = 1
"""The number of this layout of the folder, for a later one that differs."""

_warned = False
"""Whether this process has issued its warning."""


@cache
def directory() -> Path | None:
    """Return the folder of this combination of versions and processor; make it if need be.

    It is below the folder that `chosen` returns.

    Returns
    -------
    Path or None
        None, with a warning, if it cannot be made or is not trusted.
    """
    try:
        base = chosen()
        _make(base)
        if fault := _link_fault(os.lstat(base)) or _fault(os.stat(base), may_be_sticky=True):
            warn(f"{base} {fault}")
            return None
        path = base / versions()
        _make(path)
        if fault := _folder_fault(path):
            warn(f"{path} {fault}")
            return None
    except (OSError, RuntimeError, ValueError) as error:
        warn(f"there is no folder for them: {error}")
        return None
    return path


def versions() -> str:
    """Return the folder's name: all that decides whether machine code can be loaded and run."""
    import llvmlite
    import llvmlite.binding
    import numba

    try:
        features = llvmlite.binding.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM does not know them for every processor
        features = ""
    parts = (
        f"{FORMAT}-numba-{numba.__version__}-llvmlite-{llvmlite.__version__}",
        f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}",
        llvmlite.binding.get_host_cpu_name(),
        hashlib.sha256(features.encode()).hexdigest()[:8],
    )
    return re.sub(r"[^\w.-]", "_", "-".join(parts))


def read(path: Path) -> bytes | None:
    """Return a file's content; None if it is missing, cannot be read or is not trusted."""
    try:
        if fault := _folder_fault(path.parent):
            warn(f"{path.parent} {fault}")
            return None
        with open(path, "rb", opener=_open) as file:
            # The open file is looked at: nobody can exchange it between this and reading.
            if fault := _fault(os.fstat(file.fileno())):
                warn(f"{path} {fault}")
                return None
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(f"{path} cannot be read: {error}")
        return None


def write(path: Path, content: bytes) -> bool:
    """Write a file that its owner alone may read and write; return whether that was possible.

    Processes that do the same write files of their own and rename them: a reader sees the old
    content or the new one, whole.
    """
    try:
        _make(path.parent)
        if fault := _folder_fault(path.parent):
            warn(f"{path.parent} {fault}")
            return False
        _replace(path, content)
    except OSError as error:
        # Windows replaces no file that another process has open; that one is as good.
        if not (os.name == "nt" and isinstance(error, PermissionError) and path.exists()):
            warn(f"{path} cannot be written: {error}")
            return False
    return True


def _open(path: str, flags: int) -> int:
    """Open a file, but no link, behind which may be what another user has chosen."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _replace(path: Path, content: bytes) -> None:
    number, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with open(number, "wb") as file:
            file.write(content)
        os.chmod(name, 0o600)  # of these bits the umask may have removed some
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _make(path: Path) -> None:
    """Make a folder and those above it that are missing, for the user alone."""
    if path.is_dir():
        return
    if path.parent != path:
        _make(path.parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:  # another process has made it, or it is a file
        if not path.is_dir():
            raise
    else:
        os.chmod(path, 0o700)  # of these bits the umask may have removed some


def _folder_fault(path: Path) -> str | None:
    """Say why the folder of the files is not trusted, if it is not.

    Each time: below /tmp it may have been removed, and made again by another user.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link, which may lead to a folder of another user"
    return _fault(status)


def _link_fault(status: os.stat_result) -> str | None:
    """Say why the chosen folder is not trusted, if it is a link that another user can move."""
    if not (stat.S_ISLNK(status.st_mode) and hasattr(os, "geteuid")):
        return None
    if status.st_uid not in (os.geteuid(), 0):
        return f"is a symbolic link of user {status.st_uid}, whose code would run here"
    return None


def _fault(status: os.stat_result, may_be_sticky: bool = False) -> str | None:
    """Say why a file or folder is not trusted, if it is not.

    A folder with the sticky bit, such as /tmp, may be one in which others write, for what is in it
    can be renamed and replaced by its owner alone.
    """
    if not hasattr(os, "geteuid"):
        return None
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {status.st_uid}, whose code would run here"
    if status.st_mode & 0o022 and not (may_be_sticky and status.st_mode & stat.S_ISVTX):
        return "can be written by other users, whose code would run here (chmod go-w forbids it)"
    return None


def warn(reason: str) -> None:
    """Issue the warning of this process that kernels are not kept, unless it was issued before."""
    global _warned
    if _warned:
        return
    _warned = True
    warnings.warn(
        f"compiled kernels are not kept for later processes, or those that are kept are not used: "
        f"{reason}. Set GPUADAPT_CACHE_DIR to a folder that you own and that nobody else can "
        f"write to; training goes on with kernels in memory",
        CacheWarning,
        stacklevel=2,
    )
