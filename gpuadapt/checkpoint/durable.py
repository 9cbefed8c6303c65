"""Replace a file as a whole: written beside it, flushed to disk, renamed, the folder flushed.

Whatever ends a save, a file of that name is the old one or the new one.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from ..errors import NotDurableError, NotWrittenError

TEMPORARY = re.compile(r"\.gpuadapt-([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{8}\.tmp")
"""The name of a file that is being written: machine, process, a random number."""

UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""Errors of file systems that cannot flush a folder."""


def replace(path: str, write: Callable[[int], None], keep: int = 0) -> None:
    """Write a file beside the one of that name, and let it take the name when it is on disk.

    Files that dead processes have left in the folder are deleted.

    Parameters
    ----------
    path : str
        A symbolic link stays, and the file that it leads to is replaced. A new file has mode 0600
        (less the umask); one that replaces another has that one's.
    write : callable
        Writes into a file descriptor.
    keep : int
        Number of older files to keep, as ``path.1`` (the youngest), ``path.2``, ...

    Raises
    ------
    NotWrittenError
        The file of that name is as it was.
    NotDurableError
        The new file is in place, but may be lost if the machine fails now.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    sweep(folder)
    temporary = _temporary(folder)
    try:
        _fill(temporary, target, write)
        _rotate(target, keep)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, NotWrittenError):
            made = NotWrittenError(f"{path}: not written, the files before are whole: {error}")
            made.errno = error.errno
            raise made from error
        raise
    try:
        _flush_folder(folder)
    except OSError as error:
        late = NotDurableError(
            f"{path}: written, but the folder could not be flushed to disk, so that a failure of "
            f"the machine may bring the file before back: {error}"
        )
        late.errno = error.errno
        raise late from error


def _temporary(folder: str) -> str:
    """Return the path of a new file, which `sweep` deletes if this process dies."""
    name = f".gpuadapt-{machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    return os.path.join(folder, name)


def _fill(temporary: str, target: str, write: Callable[[int], None]) -> None:
    """Make the file beside the target, on disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    fd = os.open(temporary, flags, 0o600)
    try:
        with suppress(FileNotFoundError):
            before = os.stat(target)
            if not stat.S_ISREG(before.st_mode):
                raise NotWrittenError(f"{target}: expected the name of a file; nothing is written")
            os.chmod(temporary, stat.S_IMODE(before.st_mode))
        write(fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def _rotate(target: str, keep: int) -> None:
    """Give older files their new names; the target keeps its name as well, where it can.

    Other processes may do the same at the same time.
    """
    if not keep or not os.path.exists(target):
        return
    first = f"{target}.1"
    with suppress(FileNotFoundError):
        if os.path.samefile(target, first):  # a save that failed after this has done it
            return
    for number in range(keep - 1, 0, -1):
        with suppress(FileNotFoundError):
            os.replace(f"{target}.{number}", f"{target}.{number + 1}")
    second_name = _temporary(os.path.dirname(target))
    try:
        os.link(target, second_name)
    except OSError:  # a file system without hard links
        os.replace(target, first)
        return
    try:
        os.replace(second_name, first)
    finally:
        # It is still there if `first` was a name of the same file: renaming does nothing then.
        with suppress(OSError):
            os.unlink(second_name)


def _flush_folder(folder: str) -> None:
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(fd)


def sweep(folder: str) -> None:
    """Delete what dead processes of this machine were writing in a folder."""
    with suppress(OSError):
        for name in os.listdir(folder):
            found = TEMPORARY.fullmatch(name)
            if found and found[1] == machine() and not _alive(int(found[2])):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def _alive(process: int) -> bool:
    if os.name == "nt":  # where `kill` would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


@cache
def machine() -> str:
    """Return 8 digits for this machine, and for the container that numbers its processes."""
    container = ""
    with suppress(OSError):
        container = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {container}'.encode()):08x}"
