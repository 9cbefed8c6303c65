"""Describe this machine for `gpuadapt info` and benchmark results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from gpuadapt.kernels.commit import make

from .arrays import check_device
from .device_errors import meaning, version
from .errors import BackendError


def describe_machine() -> dict[str, Any]:
    """Return versions, devices and threads by name; starts Numba's threads to name their layer."""
    import numba
    import numpy as np

    from gpuadapt.kernels.cpu import cache_folder, numba_pool, threading_layer

    numba_pool.entry()
    return {
        "gpuadapt": importlib.metadata.version("gpuadapt"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": numba.get_num_threads(),
        "threading_layer": threading_layer.layer() or "none (compilation is disabled)",
        "cache": str(cache_folder.directory() or "none (kernels stay in memory)"),
        **_cuda(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cuda() -> dict[str, Any]:
    try:
        check_device()
    except BackendError as error:
        return {"backends": ["cpu"], "cuda": str(error)}
    import cupy

    runtime = cupy.cuda.runtime
    numbers = range(runtime.getDeviceCount())
    driver, own = (version(n()) for n in (runtime.driverGetVersion, runtime.runtimeGetVersion))
    return {
        "backends": ["cpu", "cuda"],
        "cuda": f"CuPy for CUDA {own}, driver for CUDA {driver}, {_compiler()}",
        "cupy": cupy.__version__,
        "devices": [_device(number) for number in numbers],
        "device_memory": [_memory(number) for number in numbers],
        "kernels": [_trial(number) for number in numbers],
        "tuned": [_tuned(number) for number in numbers],
    }


def _compiler() -> str:
    import cupy

    try:
        return "NVRTC {}.{}".format(*cupy.cuda.nvrtc.getVersion())
    except Exception as error:
        return f"no NVRTC: {meaning(error) or error}"


def _device(number: int) -> str:
    """Return the name of a GPU and what kernels are compiled for."""
    import cupy

    given = cupy.cuda.runtime.getDeviceProperties(number)
    return f"{given['name'].decode()} (sm_{given['major']}{given['minor']})"


def _memory(number: int) -> str:
    """Return the free memory of a GPU, and whether it takes several processes."""
    import cupy

    try:
        with cupy.cuda.Device(number):
            free, total = cupy.cuda.runtime.memGetInfo()
        mode = cupy.cuda.runtime.deviceGetAttribute(_COMPUTE_MODE, number)
    except Exception as error:
        return str(meaning(error) or error)
    alone = "; one process at a time" * (mode == _EXCLUSIVE)
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free{alone}"


_COMPUTE_MODE, _EXCLUSIVE = 20, 3
"""cudaDevAttrComputeMode, and its value for a GPU that one process at a time may use."""


def _tuned(number: int) -> str:
    """Return the families of kernels whose launch parameters a file has for a GPU."""
    import cupy

    from gpuadapt.kernels.cuda import tuning

    with cupy.cuda.Device(number):
        families = tuning.tuned()
    return f"{'; '.join(families)} (by {tuning.path()})" if families else "no: all have defaults"


def _trial(number: int) -> str:
    """Compile a kernel for a GPU and run it there."""
    import cupy

    from gpuadapt.kernels.cuda import scalars

    try:
        with cupy.cuda.Device(number) as device:
            made = scalars.StepScalars()
            made.select_step(None, (), 1, False)
            make(made.end_step())
            device.synchronize()
    except Exception as error:
        return str(meaning(error) or error)
    return "compile and run"
