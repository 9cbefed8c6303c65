"""Compiles a rule's CUDA text for the host, to check it where there is no GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..language.rule import Rule
from . import generate

FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared")
"""No contraction, as in `compile.OPTIONS`; otherwise g++ keeps to IEEE arithmetic."""

_LOOP = r"""
}}
extern "C" void run(ptrdiff_t size, double *scalars, {pointers}) {{
    typedef gpuadapt::number<{ctype}> number;
{scalars}
    for (ptrdiff_t i = 0; i < size; ++i) {{
{numbers}
        gpuadapt::{rule}<number>({arguments});
{write}
    }}
}}
"""


def available() -> bool:
    """Return whether there is a compiler."""
    return shutil.which("g++") is not None


def source(rule: Rule, dtype: np.dtype) -> str:
    """Write the device function of `generate.function` in a loop over arrays."""
    ctype = {"float32": "float", "float64": "double"}[str(dtype)]
    names, coefficients = rule.program.arguments, list(rule.coefficients)
    updated = (rule.parameter, *rule.states)
    loop = _LOOP.format(
        ctype=ctype,
        rule=rule.symbol,
        # Rules have no names that begin or end like these.
        pointers=", ".join(f"{ctype} *_{name}" for name in names),
        scalars="\n".join(
            f"    const {ctype} {name} = ({ctype})scalars[{k}];"
            for k, name in enumerate(coefficients)
        ),
        numbers="\n".join(f"        number {name}_ = _{name}[i];" for name in names),
        arguments=", ".join([f"{name}_" for name in names] + coefficients),
        write="\n".join(f"        _{name}[i] = {name}_.value;" for name in updated),
    )
    head = "#include <cmath>\n#include <cstddef>\nusing std::ptrdiff_t;\n#define __device__\n"
    return head + generate.PREAMBLE + generate.function(rule) + loop


def library(content: str) -> ctypes.CDLL:
    """Compile C++ text and load it."""
    with tempfile.TemporaryDirectory() as folder:
        file, made = Path(folder) / "text.cpp", Path(folder) / "text.so"
        file.write_text(content, encoding="utf-8")
        subprocess.run(["g++", *FLAGS, file, "-o", made], check=True)
        return ctypes.CDLL(str(made))


def build(rule: Rule, dtype: np.dtype) -> Callable[[Sequence[np.ndarray], Sequence[float]], None]:
    """Compile a function of (contiguous arrays, coefficients) that updates the arrays in place."""
    function = library(source(rule, dtype)).run

    def run(arrays: Sequence[np.ndarray], coefficients: Sequence[float]) -> None:
        scalars = (ctypes.c_double * max(len(coefficients), 1))(*coefficients)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        function(ctypes.c_ssize_t(arrays[0].size), scalars, *pointers)

    return run
