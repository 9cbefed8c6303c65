"""Other libraries doing the same work, a module each; every one of them is optional.

A module has ``NAME``, ``PACKAGES`` (what pip calls its library), ``library()`` (None where that
is not installed), ``DTYPES`` and ``makers(method, backend)``, the candidates it offers for that
method, by name; or, for rows of a table, ``row_makers(method, backend)``.
"""

from __future__ import annotations

from ..failures import Errors, noted
from ..training import Make, MakeRows
from . import deepspeed, fbgemm, installed, numpy, optax, ours, thinc, torch

DENSE = (torch, optax, deepspeed, thinc, numpy)
ROWS = (torch, fbgemm, numpy)
ALL = (torch, optax, deepspeed, thinc, fbgemm, numpy)


def versions() -> dict[str, str | None]:
    """The version of each; None where it is not installed."""
    return {
        peer.NAME: None if peer.library() is None else installed.version(peer.PACKAGES)
        for peer in ALL
    }


def makers(
    method: str,
    backend: str,
    only: tuple[str, ...] = (),
    dtype: str = "float32",
    kept: str = "",
    errors: Errors | None = None,
) -> dict[str, Make]:
    """gpuadapt first, then whoever is installed and has this method, backend and type.

    ``kept`` is how gpuadapt keeps its numbers, if not in ``dtype``; torch's bfloat16 is then
    beside its float32. ``errors`` takes what a library raises when it is asked, by its name.
    """
    found = ours.makers(method, backend, kept)
    if kept and torch.library() is not None:
        with noted(errors, torch.NAME):
            found |= torch.makers_of_few_bits(method, backend)
    for peer in DENSE:
        if peer.library() is not None and dtype in peer.DTYPES:
            with noted(errors, peer.NAME):
                offered = peer.makers(method, backend)
                found |= {k: v for k, v in offered.items() if not only or k in only}
    return found


def rows(method: str, backend: str, errors: Errors | None = None) -> dict[str, MakeRows]:
    """gpuadapt first, then whoever updates a table by rows, and is installed."""
    found = ours.row_makers(method, backend)
    for peer in ROWS:
        if peer.library() is not None:
            with noted(errors, peer.NAME):
                found |= peer.row_makers(method, backend)
    return found
