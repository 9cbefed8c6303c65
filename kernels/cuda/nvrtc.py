"""CUDA C compiled by NVRTC as CuPy compiles it on a user's machine, without GPU and driver."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BackendError, SourceError

MISSING = (
    'there is no NVRTC, which compiles CUDA C: pip install "gpuadapt[cuda12]" '
    "nvidia-cuda-nvrtc-cu12"
)


class Compiled(NamedTuple):
    """What NVRTC makes of one kernel for one architecture."""

    ptx: str
    cubin: bytes
    """Machine code as an ELF file; empty without ``code``."""
    registers: int
    """Registers of a thread; the following numbers are 0 without ``code``, as this one is."""
    spilled: int
    """Bytes that a thread stores in local memory and loads again for want of registers."""
    stack: int
    """Bytes of local memory of a thread."""
    shared: int
    """Bytes of shared memory of a block."""


def compile(
    source: str, architecture: int, options: tuple[str, ...], code: bool = True
) -> Compiled:
    """Compile a kernel with CuPy's headers, and its flags after ours, among them ``-ftz=true``.

    Parameters
    ----------
    source : str
        CUDA C.
    architecture : int
        Compute capability times 10, one of `architectures`.
    options : tuple of str
        Of `gpuadapt.kernels.cuda.compile`.
    code : bool
        Make machine code too, by the assembler in NVRTC, as CuPy does. PTX alone takes half the
        time.

    Raises
    ------
    BackendError
        There is no NVRTC; or the text is not correct, and its log is in the message.
    SourceError
        It does not know the architecture.
    """
    nvrtc = _nvrtc()
    import cupy
    from cupy._core import core

    if architecture not in architectures():
        known = ", ".join(f"sm_{number}" for number in architectures())
        raise SourceError(f"arch: got sm_{architecture}; this NVRTC compiles for {known}")
    # Without the include folder of a CUDA toolkit that may or may not be installed here.
    own = str(Path(cupy.__file__).parent)
    assembled = core.assemble_cupy_compiler_options(options)
    flags = [o for o in assembled if not o.startswith("-I") or o.startswith(f"-I{own}")]
    flags.append("--device-as-default-execution-space")
    flags.append(f"-arch={'sm' if code else 'compute'}_{architecture}")
    flags += ["-ftz=true", *["--ptxas-options=-v"] * code]
    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, tuple(flags))
        ptx = nvrtc.getPTX(program)
        # CuPy leaves out the last byte, which is zero.
        cubin = nvrtc.getCUBIN(program) + b"\0" if code else b""
        log = nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        raise BackendError(f"{error}\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)
    text = (ptx.decode() if isinstance(ptx, bytes) else ptx).rstrip("\0")
    spilled = _said(r"(\d+) bytes spill stores", log) + _said(r"(\d+) bytes spill loads", log)
    return Compiled(
        text,
        cubin,
        _said(r"Used (\d+) registers", log),
        spilled,
        _said(r"(\d+) bytes stack frame", log),
        _said(r"(\d+) bytes smem", log),
    )


def _said(pattern: str, log: str) -> int:
    found = re.search(pattern, log)
    return int(found[1]) if found else 0


def architectures() -> tuple[int, ...]:
    """Return what the installed NVRTC compiles for; nothing without CuPy or without NVRTC."""
    try:
        return tuple(_nvrtc().getSupportedArchs())
    except BackendError:
        return ()


def _nvrtc() -> Any:
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:  # the latter: CuPy is there, and finds no NVRTC
        raise BackendError(MISSING) from error
    return nvrtc


def version(ptx: str) -> str:
    """Return the compiler's version, as a PTX text names it."""
    found = re.search(r"^// Cuda compilation tools, release [\d.]+, V([\d.]+)", ptx, re.MULTILINE)
    assert found, ptx[:300]
    return found[1]
