"""A stand-in for CuPy on a machine without a GPU: the same CUDA text, compiled by g++.

It has what gpuadapt uses of CuPy and nothing more: `hostarrays`, and here the kernels.
"""

from __future__ import annotations

import ctypes
import re
import types
from functools import cache

import numpy as np
from hostarrays import (
    Pool,
    UnownedMemory,
    alloc_pinned_memory,
    asarray,
    ascontiguousarray,
    broadcast_to,
    concatenate,
    empty,
    from_dlpack,
    made_by,
    memory_of,
    ndarray,
    unique,
    using_allocator,
    where,
    zeros_like,
)
from hoststreams import (
    Device,
    Event,
    ExternalStream,
    Stream,
    get_current_stream,
    run,
)

from gpuadapt.kernels.cuda import host_check

SCALARS = {"float32": "float", "float64": "double"}
RAW_TYPES = {"float64": "double", "uint64": "unsigned long long"}


class ElementwiseKernel:
    """`cupy.ElementwiseKernel`: a loop over i around the operation, compiled when first run."""

    launches: list[str] = []

    def __init__(self, in_params, out_params, operation, name="kernel", *, preamble="", options=()):
        self.params = [p.split() for p in f"{in_params}, {out_params}".split(",") if p.strip()]
        self.operation, self.name, self.preamble = operation, name, preamble
        assert "--fmad=false" in options
        assert re.fullmatch(r"[a-zA-Z_]\w*", name, re.ASCII)

    def __call__(self, *arguments):
        assert len(arguments) == len(self.params), (self.name, len(arguments), self.params)
        raw = [p[0] == "raw" for p in self.params]
        arrays = [a.host for a in arguments if isinstance(a, ndarray)]
        whole = [a.host for a, r in zip(arguments, raw, strict=True)
                 if isinstance(a, ndarray) and not r]  # fmt: skip
        scalars = [a for a in arguments if not isinstance(a, ndarray)]
        assert all(type(a) is np.int64 for a in scalars)
        dtype, shape = whole[0].dtype, whole[0].shape
        assert all(a.dtype == dtype and a.shape == shape for a in whole)
        assert all(a.device.id == Device.current[-1] for a in arguments if isinstance(a, ndarray))
        self.launches.append(self.name)
        strides = [s for a in arrays for s in (a.strides + (0,) * len(shape))[: len(shape)]]
        function = _compile(self._text(dtype))
        values = (
            ctypes.c_ssize_t(whole[0].size),
            ctypes.c_ssize_t(len(shape)),
            (ctypes.c_ssize_t * max(len(shape), 1))(*shape),
            (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays)),
            (ctypes.c_ssize_t * max(len(strides), 1))(*strides),
            (ctypes.c_double * max(len(scalars), 1))(*scalars),
        )
        run(lambda: function(*values), *memory_of(a for a in arguments if isinstance(a, ndarray)))

    def _text(self, dtype):
        before, inside = [], []
        arrays = scalars = 0
        for *kind, name in self.params:
            if kind == ["int64"]:
                before.append(f"const long long {name} = (long long)integers[{scalars}];")
                scalars += 1
                continue
            if kind[0] == "raw":
                element = RAW_TYPES[kind[1]]
                before.append(f"const {element} *{name} = (const {element} *)pointers[{arrays}];")
            else:
                at = f"offset(i, ndim, shape, strides + {arrays} * ndim)"
                inside.append(f"T &{name} = *(T *)((char *)pointers[{arrays}] + {at});")
            arrays += 1
        return "\n".join(
            [
                "#include <cmath>\n#include <cstddef>\nusing std::ptrdiff_t;",
                "#define __device__",
                self.preamble,
                f"typedef {SCALARS[str(dtype)]} T;",
                "static ptrdiff_t offset(ptrdiff_t i, ptrdiff_t ndim, const ptrdiff_t *shape,",
                "                        const ptrdiff_t *strides) {",
                "    ptrdiff_t bytes = 0;",
                "    for (ptrdiff_t d = ndim - 1; d >= 0; --d) {",
                "        bytes += i % shape[d] * strides[d]; i /= shape[d];",
                "    }",
                "    return bytes;",
                "}",
                'extern "C" void run(ptrdiff_t size, ptrdiff_t ndim, const ptrdiff_t *shape,',
                "    void **pointers, const ptrdiff_t *strides, const double *integers) {",
                *before,
                "    for (ptrdiff_t i = 0; i < size; ++i) {",
                *inside,
                self.operation + ";",
                "    }",
                "}",
            ]
        )


RAW = r"""
#include <cmath>
#include <cstddef>
#include <cstring>
#include <setjmp.h>
#include <ucontext.h>
using std::ptrdiff_t;
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__ static
struct coordinates { int x; };
static coordinates threadIdx, blockIdx, blockDim, gridDim;

static unsigned long long atomicAdd(unsigned long long *at, unsigned long long value) {
    const unsigned long long before = *at; *at += value; return before;
}
static unsigned long long atomicMax(unsigned long long *at, unsigned long long value) {
    const unsigned long long before = *at; if (value > before) *at = value; return before;
}

// Every thread of a block has a stack of its own and runs until it waits for its warp or its block.
// A warp goes on as soon as its own threads wait for each other, so it runs far ahead of the
// others, up to where the block waits. Which warp, and which of its threads, comes first is drawn
// anew each time. Threads stay for the next block.
// Jumps are many times as fast as `swapcontext`, which calls the kernel of the system.
static const int most = 1024, warp = 32;
static jmp_buf host, threads_at[most];
static ucontext_t first;
static char stacks[most][1 << 15], begun[most];
enum { ready, for_warp, for_block, ended };
static char state[most];
static bool undefined;
static double exchanged[most];
static void (*body)();

static void pause(char now) {
    const int x = threadIdx.x;
    state[x] = now;
    if (!_setjmp(threads_at[x])) { _longjmp(host, 1); }
    threadIdx.x = x;
}
static void fiber() {
    for (;;) { body(); pause(ended); }
}
static void resume(int x) {
    threadIdx.x = x;
    state[x] = ready;
    if (_setjmp(host)) { return; }
    if (begun[x]) { _longjmp(threads_at[x], 1); }
    begun[x] = 1;
    getcontext(&first);
    first.uc_stack.ss_sp = stacks[x];
    first.uc_stack.ss_size = sizeof stacks[x];
    makecontext(&first, fiber, 0);
    setcontext(&first);
}
static void __syncwarp() { pause(for_warp); }
static void __syncthreads() { pause(for_block); }
static double exchange(double value, int from) {
    exchanged[threadIdx.x] = value;
    pause(for_warp);
    undefined |= state[from] == ended;  // a lane that has returned has no value
    const double got = exchanged[from];
    pause(for_warp);
    return got;
}
static double __shfl_down_sync(unsigned, double value, int by, int width) {
    const int x = threadIdx.x;
    return exchange(value, x % width + by < width ? x + by : x);
}
static unsigned __shfl_xor_sync(unsigned, unsigned value, int by, int) {
    return (unsigned)exchange(value, threadIdx.x ^ by);
}
static unsigned __ballot_sync(unsigned, bool value) {
    unsigned all = 0;
    for (int k = 0; k < warp; ++k) {
        all |= (unsigned)(exchange(value, threadIdx.x / warp * warp + k) != 0) << k;
    }
    return all;
}
static double __shfl_sync(unsigned, double value, int from, int width) {
    const int x = threadIdx.x;
    return exchange(value, x - x % width + from % width);
}

static void shuffle(int *order, int count, unsigned &random) {
    for (int k = count - 1; k > 0; --k) {
        random = random * 1664525u + 1013904223u;
        const int other = (random >> 8) % (k + 1), before = order[k];
        order[k] = order[other];
        order[other] = before;
    }
}

// Runs a warp until each of its threads has ended or waits for the block.
static bool run_warp(int start, int end, unsigned &random) {
    int order[warp];
    for (int k = start; k < end; ++k) { order[k - start] = k; }
    for (;;) {
        int waiting = 0, apart = 0;
        shuffle(order, end - start, random);
        for (int k = 0; k < end - start; ++k) {
            if (state[order[k]] == ready) { resume(order[k]); }
        }
        for (int k = start; k < end; ++k) {
            waiting += state[k] == for_warp;
            apart += state[k] == for_block;
        }
        if (!waiting) { return true; }
        if (apart) { return false; }  // some wait for the warp, others for the block
        for (int k = start; k < end; ++k) {
            if (state[k] == for_warp) { state[k] = ready; }
        }
    }
}

// Whether all went well: threads that wait in vain never end on a GPU.
static bool block(int threads, bool waits, unsigned &random) {
    if (!waits) {
        for (int k = 0; k < threads; ++k) { threadIdx.x = k; body(); }
        return true;
    }
    static int order[most / warp];
    const int warps = (threads + warp - 1) / warp;
    for (int k = 0; k < warps; ++k) { order[k] = k; }
    memset(state, ready, sizeof state);
    undefined = false;
    for (int left = threads; left;) {
        shuffle(order, warps, random);
        for (int k = 0; k < warps; ++k) {
            const int start = order[k] * warp;
            const int end = start + warp < threads ? start + warp : threads;
            if (!run_warp(start, end, random)) {
                memset(begun, 0, sizeof begun);
                return false;
            }
        }
        left = 0;
        for (int k = 0; k < threads; ++k) {
            left += state[k] != ended;
            state[k] = state[k] == ended ? ended : ready;
        }
    }
    return !undefined;
}
"""
"""Blocks of threads, warps and blocks that wait, on one thread of the host."""

TYPES = {"int": np.int32, "long long": np.int64, "float": np.float32,
         "double": np.float64, "unsigned int": np.uint32, "unsigned long long": np.uint64,
         "unsigned char": np.uint8, "unsigned short": np.uint16}  # fmt: skip


class RawKernel:
    """`cupy.RawKernel`."""

    launches: list[str] = []

    def __init__(self, code, name, options=()):
        assert "--fmad=false" in options
        self.code, self.name, self.compiled = code, name, {}
        declared = re.search(
            rf'extern "C" __global__ void (?:GA_BOUNDS )?(?:{name}|GA_NAME)\((.*?)\) {{',
            code,
            re.DOTALL,
        )
        arguments = declared[1]
        for _ in range(2):  # macros within macros
            for macro, value in re.findall(r"^#define (GA_\w+) (.*)$", code, re.MULTILINE):
                arguments = re.sub(rf"\b{macro}\b", value, arguments)
        arguments = arguments.replace("__restrict__ ", "").replace("const ", "")
        self.arguments = [
            re.fullmatch(r"\s*([\w: ]+?) (\*?)\w+\s*", a) for a in arguments.split(",")
        ]

    def compile(self):
        """As CuPy's, it forgets what has been compiled for other devices."""
        self.compiled = {}
        assert self.kernel

    @property
    def kernel(self):
        """The function on the current device, compiled when it is first asked for."""
        if Device.current[-1] not in self.compiled:
            self.compiled[Device.current[-1]] = _compile(self._text())
        return self.compiled[Device.current[-1]]

    def __call__(self, grid, block, given):
        assert Device.current[-1] in self.compiled, f"{self.name} is compiled at its first launch"
        assert 0 < grid[0] < 2**31 and len(given) == len(self.arguments)
        values, addresses = [], []
        for argument, value in zip(self.arguments, given, strict=True):
            kind = TYPES.get(argument[1])
            if kind is None:  # a struct
                assert type(value) is np.ndarray and value.size == 1 and value.dtype.fields
                assert value.nbytes <= 4096
                values.append(value.copy())
            elif argument[2]:
                assert isinstance(value, ndarray) and value.dtype == kind, argument[0]
                assert value.device.id == Device.current[-1]
                values.append(np.array(value.host.ctypes.data, np.uint64))
                addresses.append(len(values) - 1)
            else:
                assert type(value) is kind, (argument[0], type(value))
                values.append(np.array(value))
        self.launches.append(self.name)
        function, name = self.kernel, self.name

        def launch(moved=int):
            own = [*values]
            for k in addresses:
                own[k] = np.array(moved(int(values[k])), np.uint64)
            pointers = (ctypes.c_void_p * len(own))(*(value.ctypes.data for value in own))
            wrong = function(ctypes.c_longlong(*grid), ctypes.c_int(*block), pointers)
            assert not wrong, f"{name}: threads wait for others that never come"

        run(launch, *memory_of(a for a in given if isinstance(a, ndarray)), kernel=True)

    def _text(self):
        given = ", ".join(f"*({a[1]} {a[2]}*)given[{k}]" for k, a in enumerate(self.arguments))
        waits = "true" if re.search("__sync|__shfl|__ballot|__shared__", self.code) else "false"
        return (
            RAW
            + self.code
            + "static void **given;\n"
            + f"static void run_thread() {{ {self.name}({given}); }}\n"
            + 'extern "C" int run(long long grid, int threads, void **arguments) {\n'
            + "    given = arguments; body = run_thread; blockDim.x = threads;\n"
            + "    gridDim.x = (int)grid;\n"
            + "    unsigned random = 1;\n"
            + "    static bool backward; backward = !backward;\n"
            + "    for (long long k = 0; k < grid; ++k) {\n"
            + "        blockIdx.x = (int)(backward ? grid - 1 - k : k);\n"
            + f"        if (!block(threads, {waits}, random)) {{ return 1; }}\n"
            + "    }\n    return 0;\n}\n"
        )


@cache
def _compile(text):
    return host_check.library(text).run


def module():
    """Something to put in `sys.modules` as "cupy"."""
    cupy = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    names = {
        "__version__": "14.0.0",
        "ndarray": ndarray,
        "full": made_by(np.full),
        "array": asarray,
        "asarray": asarray,
        "arange": made_by(np.arange),
        "ascontiguousarray": ascontiguousarray,
        "broadcast_to": broadcast_to,
        "concatenate": concatenate,
        "empty": empty,
        "from_dlpack": from_dlpack,
        "zeros": made_by(np.zeros),
        "zeros_like": zeros_like,
        "unique": unique,
        "where": where,
        "ElementwiseKernel": ElementwiseKernel,
        "RawKernel": RawKernel,
        "cuda": types.SimpleNamespace(
            runtime=runtime,
            Device=Device,
            Event=Event,
            ExternalStream=ExternalStream,
            MemoryPool=Pool,
            Stream=Stream,
            UnownedMemory=UnownedMemory,
            alloc_pinned_memory=alloc_pinned_memory,
            get_current_stream=get_current_stream,
            using_allocator=using_allocator,
        ),
    }
    vars(cupy).update(names)
    return cupy
