"""The text of every kernel: all traversals of all backends by their public names."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np

from .errors import SourceError
from .formats import Formats, uniform
from .language import javascript
from .language.rule import SOURCES, Rule

TYPES = ("float32", "float64")

FORMS = {
    "cpu": ("source", "llvm", "asm"),
    "cuda": ("source", "ptx", "sass"),
    "javascript": ("source",),
}
"""By backend: the forms in which a kernel can be printed."""

ARCHITECTURE = "sm_90"
"""What PTX and machine code are made for, unless another is asked for."""


def source(
    rule: Rule, backend: str, traversal: str | None, dtype: Any, form: str, arch: str | None
) -> str:
    """Write the text of a kernel, or of what it is compiled to; see `Rule.source`."""
    _check_form(backend, form, arch)
    formats = _formats(rule, dtype)
    if backend == "javascript":
        if traversal is not None:
            raise SourceError(f"no traversal {traversal!r}: JavaScript has one element's update")
        if not formats.uniform:
            raise SourceError(f"dtype: JavaScript has no formats, only {' and '.join(TYPES)}")
        return javascript.source(rule, formats.compute)
    module = _module(rule, backend, traversal)
    text: str = module.source(rule, formats)
    if form == "source":
        return text
    if backend == "cuda":
        if module.__name__.endswith(".strided") and formats.uniform:
            raise SourceError(
                f"{form}: CuPy writes the kernel of arrays with gaps when it is launched; "
                "contiguous arrays have traversal 'many'"
            )
        return _cuda_text(text, form, formats, arch or ARCHITECTURE)
    from .cpu.compiled_loop import text_of_loop

    return text_of_loop(text, form)


def _check_form(backend: str, form: str, arch: str | None) -> None:
    if backend not in FORMS:
        raise SourceError(f"no backend {backend!r}; there are {', '.join(FORMS)}")
    if form not in FORMS[backend]:
        of = [name for name, forms in FORMS.items() if form in forms]
        instead = (
            f"it is one of backend {of[0]}"
            if of
            else "there are "
            + ", ".join(dict.fromkeys(each for forms in FORMS.values() for each in forms))
        )
        raise SourceError(f"backend {backend} has no form {form!r}; {instead}")
    if arch is not None and (backend != "cuda" or form == "source"):
        raise SourceError(f"arch: got {arch!r}, which has an effect on ptx and sass alone")


def _cuda_text(text: str, form: str, formats: Formats, arch: str) -> str:
    """Compile CUDA C with the options of a launch without tuning."""
    from .cuda import compile, disassembly, nvrtc, tuning

    number = re.fullmatch(r"(?:sm_)?(\d+)", arch)
    if number is None:
        raise SourceError(
            f"arch: got {arch!r}, expected a compute capability such as {ARCHITECTURE}"
        )
    options = (*compile.OPTIONS, *tuning.options(tuning.default(tuning.family(formats))))
    compiled = nvrtc.compile(text, int(number[1]), options, code=form == "sass")
    return compiled.ptx if form == "ptx" else disassembly.disassembled(compiled.cubin)


def _formats(rule: Rule, dtype: Any) -> Formats:
    if isinstance(dtype, Formats):
        return dtype
    try:
        name = str(np.dtype(dtype))
    except TypeError:
        name = ""
    if name not in TYPES:
        raise SourceError(f"dtype: got {dtype!r}, expected {', '.join(TYPES)} or Formats")
    return uniform(rule, np.dtype(name))


def _module(rule: Rule, backend: str, traversal: str | None) -> ModuleType:
    """Return the module that writes the kernel of a traversal."""
    traversals = BACKENDS[backend]()
    by_rows = bool(rule.row_states)
    traversal = traversal or ("rows" if by_rows else "many")
    if traversal not in traversals:
        there = ", ".join(traversals)
        raise SourceError(f"no traversal {traversal!r} on backend {backend!r}; there are {there}")
    if by_rows and traversal not in ("rows", "exact"):
        raise SourceError(f"{rule.name} works on whole rows: its traversals are rows and exact")
    return traversals[traversal]


# Imported when they are asked for: importing gpuadapt does not import Numba.


def _cpu() -> dict[str, ModuleType]:
    from .cpu import exact_rows, multi_tensor, rows, strided

    return {"many": multi_tensor, "dense": strided, "rows": rows, "exact": exact_rows}


def _cuda() -> dict[str, ModuleType]:
    from .cuda import exact_rows, multi_tensor, rows, strided

    return {"many": multi_tensor, "dense": strided, "rows": rows, "exact": exact_rows}


BACKENDS = {"cpu": _cpu, "cuda": _cuda}
"""By the name of a backend: its traversals."""

SOURCES[:] = [source]
