"""Describe this machine for `gpuadapt info` and benchmark results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from .arrays import check_device
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
    names = [
        runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())
    ]
    return {
        "backends": ["cpu", "cuda"],
        "cuda": f"CUDA {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
        "cupy": cupy.__version__,
        "devices": names,
    }
