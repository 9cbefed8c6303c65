"""Files by their paths: read, written, and the newest of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from gpuadapt.kernels.array_types import Array

from ..errors import CheckpointError, NotReadError
from ..hyperparameters import whole
from .contents import Contents, contents
from .durable import replace
from .safetensors_file import Progress, opened, write

FilePath = str | os.PathLike[str]


def path_of(path: FilePath) -> str:
    """Return a path as a string.

    Raises
    ------
    CheckpointError
    """
    try:
        name = os.fsdecode(path)
    except TypeError:
        name = ""
    if not name or "\0" in name:
        raise CheckpointError(f"path: got {path!r}, expected the name of a file")
    return name


@contextmanager
def open_file(path: FilePath) -> Iterator[Contents]:
    """Open a file and parse it; its tensors are read while it is open.

    Raises
    ------
    NotReadError, DamagedFileError, CheckpointError
    """
    with opened(path_of(path)) as file:
        yield contents(file)


def write_file(
    path: FilePath,
    tensors: Mapping[str, tuple[Array, np.dtype]],
    metadata: Mapping[str, str],
    keep: int,
    progress: Progress | None,
) -> None:
    """Write a file in place of the one of that name.

    Raises
    ------
    NotWrittenError, NotDurableError, CheckpointError
    """
    count = whole(keep)
    if count is None or not 0 <= count < 10_000:
        raise CheckpointError(f"keep: got {keep!r}, expected the number of older files, from 0")
    if progress is not None and not callable(progress):
        raise CheckpointError(f"progress: got {progress!r}, expected a function of two numbers")
    writer = partial(write, tensors=tensors, metadata=metadata, progress=progress)
    replace(path_of(path), writer, count)


def latest(folder: FilePath) -> Path | None:
    """Return the newest file of `save` in a folder that is whole.

    Parameters
    ----------
    folder : str or path-like

    Returns
    -------
    pathlib.Path or None
        None if there is none. Files are read and their checksums compared, the last written
        first; damaged ones, and those that are not gpuadapt's, are passed over.

    Raises
    ------
    NotReadError
        There is no such folder.
    """
    name = path_of(folder)
    try:
        with os.scandir(name) as entries:
            files = [one for one in entries if not one.name.startswith(".") and one.is_file()]
            names = {one.name for one in files}
            files.sort(key=lambda one: _order(one, names), reverse=True)
    except OSError as error:
        raise NotReadError(f"{name}: the folder cannot be read: {error}") from error
    for one in files:
        try:
            with opened(one.path) as file:
                file.verify()
            return Path(one.path)
        except CheckpointError:
            continue
    return None


def _order(entry: os.DirEntry[str], names: set[str]) -> tuple[int, int, str]:
    """Return what orders the files of a folder, the newest last.

    A save that has been killed may leave one file with two names, such as "a" and "a.1".
    """
    before, _, number = entry.name.rpartition(".")
    older = int(number) if before in names and number.isdecimal() else 0
    return entry.stat().st_mtime_ns, -older, entry.name
