"""The folder in which gpuadapt keeps files of a user."""

from __future__ import annotations

import os
from pathlib import Path


def chosen() -> Path:
    """Return ``GPUADAPT_CACHE_DIR`` if set, else ``gpuadapt`` in the user's cache directory.

    Raises
    ------
    RuntimeError
        The path begins with "~", and there is no home directory.
    """
    return Path(os.environ.get("GPUADAPT_CACHE_DIR") or _users()).expanduser().absolute()


def _users() -> str:
    """``gpuadapt`` in the user's cache directory, as the system has it.

    On a machine where platformdirs is not installed: in ``$XDG_CACHE_HOME``, else in ``~/.cache``.
    """
    try:
        import platformdirs
    except ImportError:
        return os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "gpuadapt")
    return platformdirs.user_cache_dir("gpuadapt")
