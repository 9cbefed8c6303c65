"""The text that CuPy would give to NVRTC for one of our kernels, and NVRTC itself: no GPU needed.

It goes through CuPy's own code generator (private, hence only in tests), its own headers
and the options it adds, among them ``-ftz=true``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpuadapt.kernels.cuda.nvrtc import architectures as known
from gpuadapt.kernels.cuda.nvrtc import compile

HEADERS = "#include <cupy/complex.cuh>\n#include <cupy/carray.cuh>\n#include <cupy/atomics.cuh>\n"
NDARRAY, INDEXER, SCALAR = 1, 2, 3
"""CuPy's numbers for the kinds of kernel arguments."""


def assemble(kernel: Any, dtype: np.dtype, ndim: int) -> str:
    """The whole CUDA source of a `gpuadapt.kernels.cuda.strided.Kernel`."""
    import cupy
    from cupy._core import _carray, _kernel

    built = cupy.ElementwiseKernel(
        kernel.in_params, kernel.out_params, kernel.operation, kernel.name, preamble=kernel.preamble
    )
    arguments = []
    for parameter in f"{kernel.in_params}, {kernel.out_params}".split(","):
        kind = parameter.split()[:-1]
        if kind == ["int64"]:
            arguments.append(_kernel._ArgInfo(SCALAR, int, np.int64, 0, True, False))
        elif kind[0] == "raw":
            element = np.dtype(kind[1]).type
            arguments.append(_kernel._ArgInfo(NDARRAY, cupy.ndarray, element, 1, True, False))
        else:
            arguments.append(
                _kernel._ArgInfo(NDARRAY, cupy.ndarray, dtype.type, ndim, ndim == 0, False)
            )
    inputs = len(kernel.in_params.split(","))
    arguments.append(_kernel._ArgInfo(INDEXER, _carray.Indexer, dtype.type, ndim, True, False))
    types = [np.dtype(a.dtype) if a.dtype is np.int64 else a.dtype for a in arguments[:-1]]
    *_, type_map = built._decide_params_type(tuple(types[:inputs]), tuple(types[inputs:]))
    body = _kernel._get_elementwise_kernel_code(
        tuple(arguments), type_map, built.params, built.operation, built.name, built.preamble
    )
    return HEADERS + str(body)


def architectures() -> list[int]:
    """sm_70, 80, 90, 100, as far as the installed NVRTC knows them."""
    return [architecture for architecture in (70, 80, 90, 100) if architecture in known()]


def compile_ptx(source: str, architecture: int, options: tuple[str, ...]) -> str:
    """PTX for a compute capability, with CuPy's includes, and its flags after ours."""
    return compile(source, architecture, options, code=False).ptx


def inexact(ptx: str) -> list[str]:
    """Instructions of a PTX text that flush, approximate, contract, or that ptxas may contract."""
    return re.findall(
        r"\b\w+(?:\.\w+)*\.(?:ftz|approx|full)\S*|\b(?:fma|mad)\.\w+\.f\d+"
        r"|\b(?:add|sub|mul|div|sqrt|rcp)(?:\.(?!rn\b)\w+)*\.f\d+",
        ptx,
    )
