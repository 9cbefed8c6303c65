"""Folders and files for results, checked before the work that fills them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import Error


def prepared_folder(path: Path, option: str) -> Path:
    """Make a folder if there is none, and check that files can be written to it.

    Parameters
    ----------
    path : Path
    option : str
        The option that gives another folder, for the message: "--output".

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    Error
        The folder cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Error(
            f"no files can be written to the folder {path}: {_reason(error, path)}; give another "
            f"by {option}"
        ) from error
    return path


def prepared_file(path: Path, option: str) -> Path:
    """Check that a file can be written; makes its folder, and leaves a file that is there.

    Parameters
    ----------
    path : Path
    option : str
        The option that gives another file, for the message: "--json".

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    Error
        The file cannot be written, or there is a folder of that name.
    """
    prepared_folder(path.parent, option)
    if os.path.isdir(path) or (os.path.exists(path) and not os.access(path, os.W_OK)):
        what = "it is a folder" if os.path.isdir(path) else "it may not be changed"
        raise Error(f"the file {path} cannot be written: {what}; give another by {option}")
    return path


def _reason(error: OSError, path: Path) -> str:
    """Return why: what is in the way, and what the system says."""
    said = error.strerror or str(error)
    there = next((each for each in (path, *path.absolute().parents) if os.path.exists(each)), path)
    if not os.path.isdir(there):
        return f"{there} is a file"
    return said if there == path else f"{there} takes no new folder ({said})"
