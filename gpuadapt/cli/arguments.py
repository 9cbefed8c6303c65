"""What several commands have in common: types of arguments, and the option ``--backend``."""

from __future__ import annotations

import argparse

from ..arrays import check_device
from ..errors import BackendError

BACKENDS = ("auto", "cpu", "cuda")


def positive(text: str) -> int:
    """Read a whole number from 1; argparse calls this."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "positive whole number"  # argparse shows it


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--backend``, which `choose_backend` reads."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="where to run (default: auto, which is a GPU if CuPy finds one, else cpu)",
    )


def choose_backend(backend: str) -> str:
    """Return "cpu" or "cuda" for the value of ``--backend``.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda"}

    Returns
    -------
    {"cpu", "cuda"}

    Raises
    ------
    BackendError
        "cuda" is asked for, and there is no CuPy or no GPU.
    """
    if backend == "cpu":
        return "cpu"
    try:
        check_device()
    except BackendError as error:
        if backend == "cuda":
            raise BackendError(f"--backend cuda: {error}; --backend cpu needs no GPU") from error
        return "cpu"
    return "cuda"
