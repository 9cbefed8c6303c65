"""Other libraries doing the same work, a module each; every one of them is optional.

A module has ``NAME``, ``PACKAGES`` (what pip calls its library), ``library()`` (None where that
is not installed), ``DTYPES`` and ``makers(method, backend)``, the candidates it offers for that
method, by name; or, for rows of a table, ``row_makers(method, backend)``.
"""

from __future__ import annotations

from types import ModuleType

from ..candidates import Make, MakeRows
from ..failures import Errors, noted
from . import deepspeed, fbgemm, installed, optax, thinc, torch

DENSE: tuple[ModuleType, ...] = (torch, optax, deepspeed, thinc)
ROWS: tuple[ModuleType, ...] = (torch, fbgemm)
ALL: tuple[ModuleType, ...] = (torch, optax, deepspeed, thinc, fbgemm)


def versions(peers: tuple[ModuleType, ...] = ALL) -> dict[str, str | None]:
    """The version of each; None where it is not installed."""
    return {
        peer.NAME: None if peer.library() is None else installed.version(peer.PACKAGES)
        for peer in peers
    }


def version_of(candidate: str) -> str:
    """The version of the library that offers a candidate; its name begins with the library's."""
    first = candidate.split()[0]
    return next(installed.version(peer.PACKAGES) for peer in ALL if peer.NAME.startswith(first))


def makers(
    method: str,
    backend: str,
    dtype: str = "float32",
    errors: Errors | None = None,
    peers: tuple[ModuleType, ...] = DENSE,
) -> dict[str, Make]:
    """What peers offer that are installed and have this method, backend and type.

    ``errors`` takes what a library raises when it is asked, by its name.
    """
    found: dict[str, Make] = {}
    for peer in peers:
        if peer.library() is not None and dtype in peer.DTYPES:
            with noted(errors, peer.NAME):
                found |= peer.makers(method, backend)
    return found


def rows(
    method: str,
    backend: str,
    errors: Errors | None = None,
    peers: tuple[ModuleType, ...] = ROWS,
) -> dict[str, MakeRows]:
    """What peers offer that update a table by rows, and are installed."""
    found: dict[str, MakeRows] = {}
    for peer in peers:
        if peer.library() is not None:
            with noted(errors, peer.NAME):
                found |= peer.row_makers(method, backend)
    return found
