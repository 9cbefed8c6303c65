"""What the errors of CuPy and CUDA mean, and what to do about them.

CUDA's numbers are those of ``cudaError_t`` (CUDA Runtime API, "Data types used by CUDA Runtime");
the driver's are the same for all that are named here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from .errors import BackendError, CaptureError, DeviceError, DeviceMemoryError, Error

_MEMORY = (
    "the GPU's memory is full, and a call that has raised this has changed nothing. Other "
    "processes on the same GPU take memory as well (nvidia-smi lists them). States in fewer "
    'bytes help (state_dtype="bfloat16" or "8bit"), and so does memory that CuPy keeps for later: '
    "cupy.get_default_memory_pool().free_all_blocks() gives it back"
)

_LATER = (
    "a kernel failed that this process had launched earlier. CUDA reports that at a later call, "
    "which need not be to blame, and refuses all further work in this process: start a new process "
    "from the last file that was saved. To find the kernel, run once with CUDA_LAUNCH_BLOCKING=1, "
    "or under compute-sanitizer"
)

_CAPTURED = (
    "a stream is being captured in a CUDA graph, and this call is not allowed meanwhile. Steps of "
    "other optimizers belong before or after the capture, or on a stream of "
    "cupy.cuda.Stream(non_blocking=True)"
)

_OTHER_CUDA = (
    "this GPU, its driver and the CUDA that CuPy compiles with do not fit each other: "
    "`gpuadapt info` shows the three. Update the driver, or install the CuPy for the driver's CUDA "
    '("gpuadapt[cuda12]" or "gpuadapt[cuda13]", never both)'
)

_NO_COMPILER = (
    "CuPy cannot compile kernels here, since it does not find NVRTC or CUDA's headers. Install "
    'them with CuPy 14: pip install "cupy-cuda12x[ctk]" or "cupy-cuda13x[ctk]", as your CuPy is '
    "called; or install the CUDA Toolkit"
)

_MEANINGS: dict[int, tuple[type[Error], str]] = {
    2: (DeviceMemoryError, _MEMORY),
    3: (
        BackendError,
        "CUDA does not work in this process. Most often the process was forked from one that had "
        'used CUDA: start it by multiprocessing.get_context("spawn")',
    ),
    34: (
        BackendError,
        "the CUDA driver that was found is the toolkit's stub, which has no GPU: take the folder "
        '"stubs" out of LD_LIBRARY_PATH',
    ),
    46: (
        DeviceError,
        "the GPU is in use by another process and takes no second one (its compute mode is "
        "exclusive: nvidia-smi -q -d COMPUTE), or it is in maintenance",
    ),
    100: (BackendError, "the driver shows no GPU to this process: see CUDA_VISIBLE_DEVICES"),
    101: (BackendError, "there is no GPU of this number"),
    214: (DeviceError, "the GPU's memory has an error that cannot be corrected. " + _LATER),
    802: (DeviceError, "the GPUs of this machine are not ready yet (nvidia-fabricmanager)"),
    803: (BackendError, "parts of the driver have different versions: restart the machine"),
    804: (BackendError, _OTHER_CUDA),
}
_MEANINGS |= dict.fromkeys((200, 209, 218, 222, 223), (BackendError, _OTHER_CUDA))
_MEANINGS |= dict.fromkeys((700, 702, *range(710, 720), 999), (DeviceError, _LATER))
_MEANINGS |= dict.fromkeys(range(900, 909), (CaptureError, _CAPTURED))

_INSUFFICIENT_DRIVER = 35
_LIBRARIES = ("cupy", "cupy_backends", "cuda")
"""Packages whose errors come from CUDA: CuPy, and what it uses to find CUDA's libraries."""


def meaning(error: BaseException) -> Error | None:
    """Return an error of ours for one of CuPy's.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    Error or None
        None for errors of others, and where nothing is to be said beside what CuPy says.
    """
    if type(error).__module__.partition(".")[0] not in _LIBRARIES and not _unloaded(error):
        return None
    found = _found(error)
    if found is None:
        return None
    kind, text = found
    return kind(f"{text} ({type(error).__name__}: {first_line(error)})")


def explain(error: BaseException) -> None:
    """Raise an error of ours that says what one of CuPy's means; return if there is none."""
    ours = meaning(error)
    if ours is not None:
        raise ours from error


Function = TypeVar("Function", bound=Callable[..., Any])


def explained(function: Function) -> Function:
    """The function, which raises errors of ours where CuPy's say too little; see `meaning`."""

    @wraps(function)
    def run(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except Exception as error:
            explain(error)
            raise

    return cast(Function, run)


def _found(error: BaseException) -> tuple[type[Error], str] | None:
    status = getattr(error, "status", None)
    if type(error).__name__ == "OutOfMemoryError":
        return _MEANINGS[2]
    if type(error).__name__ in ("CompileException", "NVRTCError"):
        return BackendError, _uncompiled(str(error))
    if _unloaded(error) or type(error).__name__ == "DynamicLibNotFoundError":
        return BackendError, _driver() if "libcuda.so" in str(error) else _NO_COMPILER
    if status == _INSUFFICIENT_DRIVER:
        return BackendError, _driver()
    return _MEANINGS.get(status) if isinstance(status, int) else None


def _unloaded(error: BaseException) -> bool:
    """Return whether CuPy has not found one of CUDA's libraries: it raises a RuntimeError then."""
    return type(error) is RuntimeError and str(error).startswith("CuPy failed to load")


def _driver() -> str:
    """Say whether there is no driver, or an old one."""
    runtime = sys.modules["cupy"].cuda.runtime
    try:
        driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except Exception:
        driver = needed = 0
    if not driver:
        return (
            "this machine has no NVIDIA driver that works. Install it, or, in a container, start "
            "that one with its GPUs (docker run --gpus all)"
        )
    return (
        f"the NVIDIA driver is for CUDA {version(driver)} and CuPy is for CUDA {version(needed)}: "
        "update the driver, or install a CuPy for an older CUDA"
    )


def _uncompiled(text: str) -> str:
    if "gpu-architecture" in text:
        return _OTHER_CUDA
    if "could not open source file" in text or "cannot open source file" in text:
        return _NO_COMPILER
    return (
        "a kernel does not compile here. If `gpuadapt info` says that kernels work, please report "
        "this with your rule"
    )


def version(number: int) -> str:
    """Return "12.9" for CUDA's 12090."""
    return f"{number // 1000}.{number % 1000 // 10}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something."""
    lines = (line.strip(" \t-") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
