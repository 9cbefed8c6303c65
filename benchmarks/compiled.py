"""`python -m benchmarks.compiled FILE`: registers and local memory of kernels on the GPU at hand.

With ``--dry`` NVRTC compiles them without a GPU, and says the same of sm_90; FILE is not written.

Kernels of the table of predictions, beside what it says of them for this architecture. The results
go to FILE after each kernel; kernels that are in it with the same text are left out.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from gpuadapt.arrays import check_device
from gpuadapt.benchmark.failures import described
from gpuadapt.errors import BackendError
from gpuadapt.kernels.cuda import nvrtc
from gpuadapt.kernels.cuda.compile import OPTIONS

from .families import families
from .predict import TABLE
from .saved import load, save

DRY_ON = 90
"""The architecture without a GPU."""


def main() -> int:
    """Print a line for each kernel; 1 if one does not compile."""
    dry, file = "--dry" in sys.argv, Path(sys.argv[-1])
    architecture = f"sm_{DRY_ON}" if dry else _architecture()
    attributes = _by_nvrtc if dry else _by_cuda
    predicted = {family["name"]: family for family in load(TABLE).get("families", ())}
    results = {} if dry else load(file)
    for family in families():
        text = hashlib.sha256(family.source.encode()).hexdigest()[:16]
        found = results.get(family.name, {})
        if (
            found.get("text") != text
            or found.get("architecture") != architecture
            or "error" in found
        ):
            found = {"text": text, "architecture": architecture} | attributes(family.source)
            results[family.name] = found
            if not dry:
                save(results, file)
        print(
            line(family.name, found, predicted.get(family.name, {}).get(architecture)), flush=True
        )
    return int(any("error" in found for found in results.values()))


def _architecture() -> str:
    """Of the current device."""
    check_device()
    import cupy

    return f"sm_{cupy.cuda.Device().compute_capability}"


def _by_nvrtc(source: str) -> dict[str, Any]:
    """What the assembler in NVRTC says of a kernel, or why it cannot be compiled."""
    try:
        made = nvrtc.compile(source, DRY_ON, OPTIONS)
    except BackendError as error:
        return {"error": described(error)}
    return {"registers": made.registers, "local": made.stack, "shared": made.shared}


def _by_cuda(source: str) -> dict[str, Any]:
    """What CUDA says of a kernel that it has loaded, or why it has not."""
    import cupy

    try:
        kernel = cupy.RawKernel(source, name_of(source), options=OPTIONS)
        kernel.compile()
        return {
            "registers": kernel.num_regs,
            "local": kernel.local_size_bytes,
            "shared": kernel.shared_size_bytes,
        }
    except Exception as error:
        return {"error": described(error)}


def name_of(source: str) -> str:
    """The name of a text's kernel."""
    found = re.search(r"^#define GA_NAME (\w+)", source, re.MULTILINE)
    found = found or re.search(r'extern "C" __global__ void (\w+)\(', source)
    assert found
    return found[1]


def line(name: str, found: dict[str, Any], predicted: dict[str, Any] | None) -> str:
    """A kernel's line, with what was predicted."""
    if "error" in found:
        return f"{name}: FAILED: {found['error']}"
    said = "not predicted" if predicted is None else f"predicted {predicted['registers']}"
    local = f", {found['local']} bytes of local memory" if found["local"] else ""
    spills = "" if predicted is None or predicted["spilled"] else " (predicted none)" * bool(local)
    return f"{name}: {found['registers']} registers ({said}){local}{spills}"


if __name__ == "__main__":
    sys.exit(main())
