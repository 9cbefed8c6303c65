"""The runtime of `made_up_runtime` by itself, without CuPy: what it does late, what it refuses."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent / "made_up_runtime"

OUT = ctypes.c_void_p()
"""Where functions write a handle that nobody reads."""

HOST, TO, FROM, WITHIN = range(4)
"""Kinds of copies, by CUDA's numbers."""


def _library(folder):
    made = folder / "runtime.so"
    flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    # Other libraries of this process may export the same names.
    flags.append("-Wl,-Bsymbolic")
    subprocess.run(["g++", *flags, HERE / "runtime.cpp", "-o", made, "-ldl"], check=True)
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return _library(tmp_path_factory.mktemp("made_up"))


class Cuda:
    """Functions of a freshly loaded runtime."""

    def __init__(self, path, folder):
        # A copy of the file is a library of its own, with its own memory and streams.
        copied = folder / "copy.so"
        copied.write_bytes(path.read_bytes())
        self.library = ctypes.CDLL(str(copied))

    def __getattr__(self, name):
        function = getattr(self.library, name)

        def call(*arguments):
            return function(*(ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments))

        return call

    def new(self, name, *arguments):
        handle = ctypes.c_void_p()
        assert getattr(self, name)(ctypes.byref(handle), *arguments) == 0
        return handle.value

    def stream(self, blocking=True):
        return self.new("cudaStreamCreateWithFlags", 0 if blocking else 1)

    def event(self):
        return self.new("cudaEventCreate")

    def memory(self, values=None, size=4):
        address = self.new("cudaMalloc", 8 * size)
        if values is not None:
            np.frombuffer(self.view(address, 8 * size), np.int64)[:] = values
        return address

    @staticmethod
    def view(address, size):
        return (ctypes.c_char * size).from_address(address)

    def now(self, address):
        """What memory holds at this moment, as no program can see it on a GPU."""
        return list(np.frombuffer(self.view(address, 32), np.int64))


@pytest.fixture
def cuda(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MADE_UP_SCHEDULE", raising=False)
    return Cuda(path, tmp_path)


ONES, TWOS = [1] * 4, [2] * 4


def test_a_stream_keeps_its_work_until_somebody_waits(cuda):
    a, b, stream = cuda.memory(ONES), cuda.memory(TWOS), cuda.stream()
    assert cuda.cudaMemcpyAsync(a, b, 32, WITHIN, stream) == 0
    assert cuda.now(a) == ONES
    assert cuda.cudaStreamSynchronize(stream) == 0
    assert cuda.now(a) == TWOS


@pytest.mark.parametrize(("schedule", "seen"), [("late", ONES), ("soon", TWOS), ("drawn:1", None)])
def test_schedules(path, tmp_path, monkeypatch, schedule, seen):
    monkeypatch.setenv("MADE_UP_SCHEDULE", schedule)
    cuda = Cuda(path, tmp_path)
    found = []
    for _ in range(20):
        a, b = cuda.memory(ONES), cuda.memory(TWOS)
        cuda.cudaMemcpyAsync(a, b, 32, WITHIN, cuda.stream())
        found.append(cuda.now(a))
    assert seen in found if seen else ONES in found and TWOS in found
    assert not seen or found == [seen] * 20


@pytest.mark.parametrize(
    ("blocking", "joined", "seen"), [(True, False, TWOS), (False, False, ONES), (False, True, TWOS)]
)
def test_the_null_stream_orders_blocking_streams_alone(cuda, blocking, joined, seen):
    """Work of a stream reaches another one through the null stream, or an event."""
    a, b, c = cuda.memory(ONES), cuda.memory(TWOS), cuda.memory([3] * 4)
    first, second = cuda.stream(blocking), cuda.stream(blocking)
    cuda.cudaMemcpyAsync(a, b, 32, WITHIN, first)
    if joined:
        event = cuda.event()
        cuda.cudaEventRecord(event, first)
        cuda.cudaStreamWaitEvent(second, event, 0)
    else:
        cuda.cudaMemsetAsync(cuda.memory(), 0, 8, 0)
    cuda.cudaMemcpyAsync(c, a, 32, WITHIN, second)
    cuda.cudaStreamSynchronize(second)
    assert cuda.now(c) == seen


@pytest.mark.parametrize(("pinned", "seen"), [(False, TWOS), (True, [5] * 4)])
def test_pinned_memory_is_read_late(cuda, pinned, seen):
    host = np.array(TWOS)
    address = host.ctypes.data
    if pinned:
        address = cuda.new("cudaHostAlloc", 32, 0)
        host = np.frombuffer(cuda.view(address, 32), np.int64)
        host[:] = TWOS
    a, stream = cuda.memory(ONES), cuda.stream()
    assert cuda.cudaMemcpyAsync(a, address, 32, TO, stream) == 0
    host[:] = 5
    cuda.cudaStreamSynchronize(stream)
    assert cuda.now(a) == seen


def test_a_copy_to_pageable_memory_waits(cuda):
    a, b, stream, host = cuda.memory(ONES), cuda.memory(TWOS), cuda.stream(), np.zeros(4, np.int64)
    cuda.cudaMemcpyAsync(a, b, 32, WITHIN, stream)
    assert cuda.cudaMemcpyAsync(host.ctypes.data, a, 32, FROM, stream) == 0
    assert list(host) == TWOS


def test_a_capture_runs_when_its_graph_does(cuda):
    a, b, stream, graph = cuda.memory(ONES), cuda.memory(TWOS), cuda.stream(), ctypes.c_void_p()
    cuda.cudaStreamBeginCapture(stream, 0)
    cuda.cudaMemcpyAsync(a, b, 32, WITHIN, stream)
    assert cuda.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 0
    cuda.cudaStreamSynchronize(stream)
    assert cuda.now(a) == ONES
    run = cuda.new("cudaGraphInstantiate", graph, 0)
    cuda.cudaGraphLaunch(run, stream)
    assert cuda.now(a) == ONES
    cuda.cudaStreamSynchronize(stream)
    assert cuda.now(a) == TWOS


def named(table):
    return pytest.mark.parametrize(
        ("act", "status"), [row[1:] for row in table], ids=[row[0] for row in table]
    )


def _pageable(cuda, stream):
    return cuda.cudaMemcpyAsync(cuda.memory_before, np.zeros(4).ctypes.data, 32, TO, stream)


IN_A_CAPTURE = [
    ("wait", lambda cuda, stream: cuda.cudaStreamSynchronize(stream), 900),
    ("device", lambda cuda, stream: cuda.cudaDeviceSynchronize(), 900),
    ("query", lambda cuda, stream: cuda.cudaStreamQuery(stream), 900),
    ("memory", lambda cuda, stream: cuda.cudaMalloc(ctypes.byref(OUT), 8), 900),
    ("module", lambda cuda, stream: cuda.cuModuleLoadData(ctypes.byref(OUT), b""), 900),
    ("pageable", _pageable, 900),
    ("earlier event", lambda cuda, stream: cuda.cudaStreamWaitEvent(stream, cuda.before, 0), 905),
    ("null stream", lambda cuda, stream: cuda.cudaMemsetAsync(cuda.memory_before, 0, 8, 0), 906),
]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "status"), [x[1:] for x in IN_A_CAPTURE], ids=[x[0] for x in IN_A_CAPTURE]
)
def test_what_a_capture_refuses(cuda, act, status):
    """And the capture is of no use then."""
    cuda.before, cuda.memory_before, stream = cuda.event(), cuda.memory(ONES), cuda.stream()
    cuda.cudaEventRecord(cuda.before, stream)
    assert act(cuda, stream) == 0
    cuda.cudaStreamSynchronize(stream)
    cuda.cudaStreamBeginCapture(stream, 0)
    assert act(cuda, stream) == status
    assert cuda.cudaStreamEndCapture(stream, ctypes.byref(OUT)) == 901


REFUSED = [
    ("beyond", lambda cuda, a, s: cuda.cudaMemcpyAsync(a + 16, a, 24, WITHIN, s), 1),
    ("kind", lambda cuda, a, s: cuda.cudaMemcpyAsync(a, a, 8, TO, s), 1),
    ("device", lambda cuda, a, s: cuda.cudaSetDevice(2), 101),
    ("free", lambda cuda, a, s: cuda.cudaFree(a + 8), 1),
    ("end", lambda cuda, a, s: cuda.cudaStreamEndCapture(s, ctypes.byref(OUT)), 903),
]


@named(REFUSED)
def test_what_is_refused(cuda, act, status):
    assert act(cuda, cuda.memory(ONES), cuda.stream()) == status


def test_an_event_is_of_its_device(cuda):
    stream = cuda.stream()
    cuda.cudaSetDevice(1)
    assert cuda.cudaEventRecord(cuda.event(), stream) == 400


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint64", "float32", "float64"])
def test_sorts(cuda, dtype):
    values = np.random.default_rng(0).normal(size=(3, 50)).astype(dtype)
    if values.dtype.kind == "f":
        values[:, ::7] = np.nan
    given, places = values.copy(), np.zeros((3, 50), np.int64)
    code = given.dtype.str.encode()
    assert cuda.made_up_sort(code, given.ctypes.data, places.ctypes.data, 3, 50, 0) == 0
    cuda.cudaStreamSynchronize(0)
    assert np.array_equal(given, np.sort(values, kind="stable"), equal_nan=dtype != "bool")
    assert np.array_equal(places, np.argsort(values, kind="stable"))


VAIN = """extern "C" __global__ void vain(int *a) {
    if (threadIdx.x % 2) { __syncwarp(); } else { __syncthreads(); }
}
"""

KERNEL = """extern "C" __global__ void add(const float *a, float *b, const int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) { b[i] += a[i]; }
}
"""


@pytest.fixture(scope="module")
def loaded(path, tmp_path_factory):
    """A runtime that compiled kernels find, and a kernel of its device 0."""
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "kernels").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv("MADE_UP_CUDA", str(folder))
        patch.delenv("MADE_UP_SCHEDULE", raising=False)
        import made_up_cuda

        cuda = Cuda(path, folder)
        ctypes.CDLL(str(folder / "copy.so"), mode=ctypes.RTLD_GLOBAL)
        cuda.made_up_compiler(made_up_cuda.compiler)
        yield cuda, _function(cuda, KERNEL, b"add")
    sys.modules.pop("made_up_cuda")


def _function(cuda, text, name):
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.cuModuleLoadData(ctypes.byref(module), text.encode()) == 0
    assert cuda.cuModuleGetFunction(ctypes.byref(function), module, name) == 0
    return function


def _launch(cuda, function, stream, a, b, blocks=2, threads=2):
    values = ctypes.c_void_p(a), ctypes.c_void_p(b), ctypes.c_int(3)
    given = (ctypes.c_void_p * 3)(*(ctypes.addressof(v) for v in values))
    return cuda.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, given, None)


def test_a_kernel_runs_late_with_the_arguments_of_its_launch(loaded):
    cuda, add = loaded
    a, b, stream = cuda.memory(), cuda.memory(), cuda.stream()
    for address, start in ((a, 1), (b, 10)):
        np.frombuffer(cuda.view(address, 16), np.float32)[:] = start + np.arange(4)
    assert _launch(cuda, add, stream, a, b) == 0
    found = np.frombuffer(cuda.view(b, 16), np.float32)
    assert list(found) == [10, 11, 12, 13]
    assert cuda.cudaStreamSynchronize(stream) == 0
    assert list(found) == [11, 13, 15, 13]


def test_launches_that_are_refused(loaded):
    cuda, add = loaded
    a, stream = cuda.memory(), cuda.stream()
    assert _launch(cuda, add, stream, a, a, blocks=0) == 1
    assert _launch(cuda, add, stream, a, a, threads=1025) == 1
    cuda.cudaSetDevice(1)
    assert _launch(cuda, add, stream, a, a) == 400
    elsewhere = cuda.memory()
    cuda.cudaSetDevice(0)
    assert _launch(cuda, add, stream, a, elsewhere) == 700


def test_threads_that_wait_in_vain_are_an_error_of_the_next_wait(loaded):
    cuda, _ = loaded
    function, stream = _function(cuda, VAIN, b"vain"), cuda.stream()
    address = ctypes.c_void_p(cuda.memory())
    given = (ctypes.c_void_p * 1)(ctypes.addressof(address))
    assert cuda.cuLaunchKernel(function, 1, 1, 1, 4, 1, 1, 0, stream, given, None) == 0
    assert cuda.cudaStreamSynchronize(stream) == 719


def test_a_misaligned_address_is_an_error_of_the_next_wait(loaded):
    cuda, add = loaded
    a, stream = cuda.memory(), cuda.stream()
    assert _launch(cuda, add, stream, a + 2, a) == 0
    assert cuda.cudaStreamSynchronize(stream) == 716
    assert cuda.cudaStreamSynchronize(stream) == 0


STUBS = """
bool hip_environment = false;
const char* cudaGetErrorName(...) {
    return NULL;
}
cudaError_t cudaDriverGetVersion(int* driverVersion) {
    *driverVersion = 0;  // no driver
    return cudaSuccess;
}
int cudaFree(...) {
    return cudaSuccess;
}
cudaPos make_cudaPos(...) {
    struct cudaPos pos = {0};
    return pos;
}
"""


def test_calls_of_cupy_are_opened(monkeypatch):
    """Functions of the runtime lose their bodies; all else stays."""
    monkeypatch.syspath_prepend(str(HERE))
    import build

    text, names = build.open_calls(STUBS)
    sys.modules.pop("build")
    assert names == ["cudaGetErrorName", "cudaDriverGetVersion", "cudaFree"]
    assert text.count("{") == text.count("}") == 2 and "bool hip_environment" in text
    for declared in ("cudaGetErrorName(...);", "cudaDriverGetVersion(int* driverVersion);"):
        assert declared in text
