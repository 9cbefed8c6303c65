"""Machine code of kernels on disk: one file for each function and signature, with a digest.

Numba's own cache has an index and data in two files, believes both, and unpickles what they hold:
a changed bit raises an exception from then on or ends the process. `njit` and `cfunc` of this
module give functions a `MachineCode` in the place of Numba's cache. Its file holds the SHA-256 of
its own name and of the pickle behind it; a file without the right digest is not unpickled, and is
replaced when the function has been compiled. There is no index that several processes would have
to write.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from numba.core import serialize, sigutils
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult

from . import cache_folder

DIGEST = hashlib.sha256().digest_size


def njit(
    signatures: Iterable[Any] = (), *, cache: bool = False, **options: Any
) -> Callable[[Any], Any]:
    """Return `numba.njit` of the same arguments, whose ``cache`` is ours."""

    def decorate(function: FunctionType) -> Any:
        compiled = numba.njit(**options)(function)
        if compiled is function:  # compilation is disabled
            return function
        if cache:
            compiled._cache = MachineCode(function)
        if signatures:
            for signature in signatures:
                compiled.compile(signature)
            compiled.disable_compile()
        return compiled

    return decorate


def cfunc(signature: Any, *, cache: bool = False, **options: Any) -> Callable[[Any], Any]:
    """Return `numba.cfunc` of the same arguments, whose ``cache`` is ours."""

    def decorate(function: FunctionType) -> Any:
        normalize: Any = sigutils.normalize_signature
        arguments = normalize(signature)
        compiled: Any = CFunc(function, arguments, locals={}, options=options)
        if cache:
            compiled._cache = MachineCode(function)
        compiled.compile()
        return compiled

    return decorate


def seal(name: str, content: bytes) -> bytes:
    """Return the bytes of a file of this name: a digest of name and content, then the content."""
    return _digest(name, content) + content


def unseal(name: str, data: bytes | None) -> bytes | None:
    """Return the content of a file; None if it is not what `seal` made for this name."""
    if data is None or data[:DIGEST] != _digest(name, data[DIGEST:]):
        return None
    return data[DIGEST:]


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


class MachineCode:
    """The machine code of a function of a generated module; has what Numba calls of its caches.

    The module's file name has a digest of its text, so the function's name tells which it is.
    """

    def __init__(self, function: FunctionType) -> None:
        self._name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"

    @property
    def cache_path(self) -> str | None:
        """The folder of the files."""
        folder = cache_folder.directory()
        return str(folder) if folder else None

    def flush(self) -> None:
        """Do nothing: no file can be out of date."""

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the compiled function for a signature; None if there is none that is whole."""
        target.refresh()
        path = self._path(signature, target.codegen())
        content = unseal(path.name, cache_folder.read(path)) if path else None
        if content is None:
            return None
        rebuild: Any = CompileResult._rebuild
        try:
            return rebuild(target, *pickle.loads(content))
        except Exception:
            # It is as it was written, and still cannot be loaded here: it is compiled again.
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Write the compiled function for a signature, if it can be used in another process."""
        path = self._path(signature, compiled.codegen)
        if path is None or compiled.lifted or compiled.library.has_dynamic_globals:
            return
        content: bytes = serialize.dumps(compiled._reduce())  # type: ignore[no-untyped-call]
        cache_folder.write(path, seal(path.name, content))

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        folder = cache_folder.directory()
        if folder is None:
            return None
        # Numba may be told to compile for another processor than this one.
        key = repr((signature, codegen.magic_tuple())).encode()
        return folder / f"{self._name}-{hashlib.sha256(key).hexdigest()[:16]}.code"
