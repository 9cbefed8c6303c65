"""Machine code of NVIDIA's GPUs (SASS) as text, by a disassembler that is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ..errors import BackendError

PLACES = (
    ("triton", "backends/nvidia/bin"),
    ("nvidia", "cu13/bin"),
    ("nvidia", "cuda_nvcc/bin"),
    ("nvidia", "cuda_nvdisasm/bin"),
)
"""Packages that may have the disassembler, and where; torch for Linux comes with the first."""


@cache
def disassembler() -> str | None:
    """Return where nvdisasm is: on the PATH, in a CUDA toolkit, or in a package."""
    toolkits = os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"
    places = [f"{toolkit}/bin" for toolkit in toolkits if toolkit]
    for folder in (None, *places):
        if found := shutil.which("nvdisasm", path=folder):
            return found
    for package, folder in PLACES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if found := shutil.which("nvdisasm", path=str(Path(place) / folder)):
                return found
    return None


def disassembled(cubin: bytes) -> str:
    """Return the instructions of an ELF file.

    Raises
    ------
    BackendError
        There is no disassembler, or it fails.
    """
    program = disassembler()
    if program is None:
        raise BackendError(
            "there is no nvdisasm, which shows machine code: pip install nvidia-cuda-nvdisasm, "
            "or install the CUDA toolkit"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        done = subprocess.run([program, "-c", str(file)], capture_output=True, text=True)
    if done.returncode:
        raise BackendError(f"{program}: {done.stderr.strip()}")
    return done.stdout
