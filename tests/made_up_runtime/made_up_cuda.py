"""Loads the made-up runtime into a process that imports CuPy, and compiles kernels for it by g++.

CuPy as `build.py` installs it imports this module first. gpuadapt's kernels become the text that
`tests/hostcupy.py` makes of them; CuPy's own kernels run in the same blocks of threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import subprocess
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = "libcuda.so.1", "libnvrtc.so.12"
FOLDER = "MADE_UP_CUDA"
"""The variable that names the folder of these libraries and of compiled kernels."""

FLAGS = ("-w", "-fsanitize=alignment", "-fsanitize-recover=alignment")
"""An access that an address does not allow calls the library, as a GPU would fail."""

ARGUMENTS = """
#include <type_traits>
#include <utility>
// Bytes of the arguments of a kernel, and which of them are addresses.
template <class... A> static int made_up_count(void (*)(A...), size_t *bytes, int *pointers) {
    const size_t sizes[] = {sizeof(A)..., 0};
    const int kinds[] = {std::is_pointer<A>::value..., 0};
    for (size_t k = 0; bytes && k < sizeof...(A); ++k) {
        bytes[k] = sizes[k]; pointers[k] = kinds[k];
    }
    return (int)sizeof...(A);
}
extern "C" int made_up_arguments(size_t *bytes, int *pointers) {
    return made_up_count(&NAME, bytes, pointers);
}
"""

OWN = """
#include <algorithm>
#include <cassert>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
using namespace std;
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __popc __builtin_popcount
#define __popcll __builtin_popcountll
"""
"""What CuPy's kernels expect of a compiler for GPUs, behind the text of blocks and threads."""

HALF_BITS = """
static unsigned short __float2half_rn(float f) {
    const _Float16 value = (_Float16)f;
    unsigned short bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static float __half2float(unsigned short bits) {
    _Float16 value;
    memcpy(&value, &bits, sizeof value);
    return (float)value;
}
"""
"""What CuPy 13 has its own type of 16 bits made of."""

FLOAT16 = """
class float16 {
    _Float16 value;
  public:
    float16() = default;
    template <class T> float16(T x) : value((_Float16)(float)x) {}
    operator float() const { return (float)value; }
};
"""
"""CuPy 14's own type needs headers of CUDA; so does the next."""

BFLOAT16 = """
class bfloat16 {
    unsigned short bits;
  public:
    bfloat16() = default;
    template <class T> bfloat16(T x) {
        const float f = (float)x;
        unsigned word;
        memcpy(&word, &f, sizeof word);
        bits = f != f ? 0x7fff : (word + 0x7fff + (word >> 16 & 1)) >> 16;
    }
    operator float() const {
        const unsigned word = (unsigned)bits << 16;
        float f;
        memcpy(&f, &word, sizeof f);
        return f;
    }
};
"""

RUN = """
static void **given;
template <class... A, size_t... I>
static void made_up_call(void (*kernel)(A...), index_sequence<I...>) {
    kernel(*(typename remove_reference<A>::type *)given[I]...);
}
template <class... A> static void made_up_call(void (*kernel)(A...)) {
    made_up_call(kernel, index_sequence_for<A...>());
}
static void run_thread() { made_up_call(&NAME); }
extern "C" int run(long long grid, int threads, void **arguments) {
    given = arguments; body = run_thread; blockDim.x = threads; gridDim.x = (int)grid;
    unsigned random = 1;
    for (long long k = 0; k < grid; ++k) {
        blockIdx.x = (int)k;
        if (!block(threads, WAITS, random)) { return 1; }
    }
    return 0;
}
"""

PROPERTIES = {
    "name": b"made-up device",
    "totalGlobalMem": 8 << 30,
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 132,
    "l2CacheSize": 50 << 20,
    "maxThreadsPerBlock": 1024,
    "warpSize": 32,
}
"""Of each device, as CuPy is told."""

COMPILER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char), ctypes.c_int
)

library: Any = None
"""The loaded runtime."""


def folder() -> Path:
    """Return the folder of the libraries and of compiled kernels."""
    return Path(os.environ[FOLDER])


def load() -> None:
    """Load the runtime for all modules of CuPy to find, before any of them is imported."""
    global library
    driver, nvrtc = (
        ctypes.CDLL(str(folder() / name), mode=ctypes.RTLD_GLOBAL) for name in LIBRARIES
    )
    library = driver
    library.made_up_compiler(compiler)
    sys.modules["cupy.cuda.thrust"] = _thrust()
    with contextlib.suppress(ImportError):  # CuPy 13 does without
        from cuda import pathfinder

        found = types.SimpleNamespace(
            _handle_uint=nvrtc._handle, abs_path=str(folder() / LIBRARIES[1]), found_via="CUDA_PATH"
        )
        others = pathfinder.load_nvidia_dynamic_lib
        pathfinder.load_nvidia_dynamic_lib = lambda name: found if name == "nvrtc" else others(name)
        pathfinder.find_nvidia_header_directory = lambda name: str(folder())


def _thrust() -> types.ModuleType:
    """Write CuPy's sorts again: they are compiled by CUDA's compiler."""
    thrust: Any = types.ModuleType("cupy.cuda.thrust")

    def sort(dtype: Any, start: int, keys: int, shape: Any, positions: int = 0) -> None:
        import cupy

        dtype, count = np.dtype(dtype), int(np.prod(shape))
        stream = cupy.cuda.get_current_stream()
        # Sorting needs memory as long as it runs, of the allocator that is current.
        scratch = cupy.cuda.alloc(count * dtype.itemsize + 1024)
        rows = count // shape[-1] if count else 0
        status = library.made_up_sort(
            dtype.str.encode(), ctypes.c_void_p(start), ctypes.c_void_p(positions),
            ctypes.c_longlong(rows), ctypes.c_longlong(shape[-1]), ctypes.c_void_p(stream.ptr),
        )  # fmt: skip
        cupy.cuda.runtime.check_status(status)
        if int(cupy.__version__.split(".")[0]) < 14:  # as its Thrust does
            stream.synchronize()
        del scratch

    def argsort(dtype: Any, positions: int, start: int, keys: int, shape: Any) -> None:
        sort(dtype, start, keys, shape, positions)

    thrust.available, thrust.sort, thrust.argsort = True, sort, argsort
    thrust.get_build_version = lambda: 0
    return thrust


@COMPILER
def compiler(source: bytes, name: bytes, path: Any, size: int) -> int:
    """Compile a kernel and write the path of its library; return 0 if that could be done."""
    try:
        made = str(_library(source.decode(), name.decode())).encode() + b"\0"
        assert len(made) <= size
        ctypes.memmove(path, made, len(made))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _library(source: str, name: str) -> Path:
    from gpuadapt.kernels.cuda import host_check

    text = _text(source, name)
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    made = folder() / "kernels" / f"{digest}.so"
    if not made.exists():
        written = made.with_suffix(f".{os.getpid()}.cpp")
        written.write_text(text, encoding="utf-8")
        beside = written.with_suffix(".so")
        command = ["g++", *host_check.FLAGS, *FLAGS, str(written), "-o", str(beside)]
        subprocess.run(command, check=True)
        beside.replace(made)
        written.unlink()
    return made


def _text(source: str, name: str) -> str:
    import hostcupy

    if "cupy/carray.cuh" not in source:
        kernel = hostcupy.RawKernel(source, name, ("--fmad=false",))
        return kernel._text() + ARGUMENTS.replace("NAME", name)
    import cupy

    headers = Path(cupy.__file__).parent / "_core" / "include"
    own = re.sub(r"^[ \t]*#[ \t]*include.*$", "", source, flags=re.MULTILINE)
    waits = "true" if "__sync" in own else "false"
    return "\n".join(
        (
            hostcupy.RAW,
            OWN,
            HALF_BITS,
            "#define __CUDACC_RTC__",  # for this header alone
            f'#include "{headers}/cupy/carray.cuh"',
            "#undef __CUDACC_RTC__",
            "" if cupy.__version__ < "14" else FLOAT16 + BFLOAT16,
            own,
            RUN.replace("NAME", name).replace("WAITS", waits),
            ARGUMENTS.replace("NAME", name),
        )
    )


def report() -> str:
    """Return what was refused or noted, a line each, and how often functions were called."""
    text = ctypes.create_string_buffer(1 << 20)
    library.made_up_report(text, len(text))
    return text.value.decode()
