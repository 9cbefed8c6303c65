"""The LLVM IR and the assembly of a kernel's loop over elements, as Numba compiles it here."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..errors import BackendError
from . import compile

LOOP = "update_span"
"""The function of `loops` that calls a rule for each element of a span."""


def text_of_loop(text: str, form: str) -> str:
    """Compile a generated module, and return the text of its loop over the elements of a span.

    Parameters
    ----------
    text : str
        A module of a traversal, see `compile.link`.
    form : {"llvm", "asm"}

    Returns
    -------
    str
        A module of LLVM IR or an assembly file, optimized for this processor, for each type of
        arguments that the kernel calls the loop with. The kernel has the loop inlined.

    Raises
    ------
    BackendError
        Compilation is disabled.
    """
    return _texts(text)[form]


@lru_cache(maxsize=4)
def _texts(text: str) -> dict[str, str]:
    """Both texts of a module; most of the time goes into its compilation."""
    module = compile.fresh(text)
    try:
        loop: Any = getattr(module, LOOP)
        if not hasattr(loop, "signatures"):
            raise BackendError("Numba does not compile here: unset NUMBA_DISABLE_JIT")
        forms = {"llvm": loop.inspect_llvm, "asm": loop.inspect_asm}
        return {
            form: "\n".join(read(signature) for signature in loop.signatures)
            for form, read in forms.items()
        }
    finally:
        compile.free(module)
