"""What users see if a GPU, its driver or its compiler fails: CuPy's own errors, on the stand-in."""

import re
import sys
import types

import hostarrays
import hostcupy
import numpy as np
import pytest

import gpuadapt as ga
from gpuadapt import arrays, cli

cupy = pytest.importorskip("cupy")
from cupy.cuda import compiler, memory, nvrtc, runtime  # noqa: E402


def status(number):
    return lambda: runtime.CUDARuntimeError(number)


class DynamicLibNotFoundError(RuntimeError):
    """As CuPy 14 raises it, from a package of its own."""

    __module__ = "cuda.pathfinder"


NVRTC_FAILS = nvrtc.NVRTCError(6)
"""Made while the real CuPy can be imported."""

FAILURES = {
    "no memory": (
        lambda: memory.OutOfMemoryError(2**30, 2**34, 2**34),
        ga.DeviceMemoryError,
        r"memory is full.*changed nothing.*8bit.*Out of memory allocating 1,073,741,824 bytes",
    ),
    "no memory for CUDA": (status(2), MemoryError, "memory is full"),
    "a kernel failed later": (
        status(700),
        ga.DeviceError,
        r"launched earlier.*new process.*CUDA_LAUNCH_BLOCKING=1.*cudaErrorIllegalAddress",
    ),
    "a launch failed later": (status(719), ga.DeviceError, "launched earlier"),
    "another process has the GPU": (status(46), ga.DeviceError, "another process"),
    "a forked child": (status(3), ga.BackendError, r"forked.*get_context\(\"spawn\"\)"),
    "no GPU": (status(100), ga.BackendError, "CUDA_VISIBLE_DEVICES"),
    "a stub": (status(34), ga.BackendError, "LD_LIBRARY_PATH"),
    "another CUDA": (status(222), ga.BackendError, r"do not fit.*gpuadapt info.*never both"),
    "a new GPU": (status(209), ga.BackendError, "do not fit"),
    "a capture": (status(906), ga.CaptureError, r"captured.*non_blocking=True"),
    "no NVRTC": (
        lambda: DynamicLibNotFoundError('Failure finding "libnvrtc.so.12"'),
        ga.BackendError,
        r"cannot compile kernels here.*\[ctk\].*libnvrtc.so.12",
    ),
    "no NVRTC of CuPy 13": (
        lambda: RuntimeError("CuPy failed to load libnvrtc.so.12: OSError: no such file"),
        ga.BackendError,
        r"cannot compile kernels here.*libnvrtc.so.12",
    ),
    "no headers": (
        lambda: compiler.CompileException(
            'x.cu(1): catastrophic error: could not open source file "cuda_fp16.h"', "", "x.cu", ()
        ),
        ga.BackendError,
        r"cannot compile kernels here.*cuda_fp16.h",
    ),
    "NVRTC is older than the GPU": (
        lambda: compiler.CompileException(
            "nvrtc: error: invalid value for --gpu-architecture (-arch)", "", "x.cu", ()
        ),
        ga.BackendError,
        "do not fit",
    ),
    "a kernel does not compile": (
        lambda: compiler.CompileException("x.cu(7): error: expected a ';'", "", "x.cu", ()),
        ga.BackendError,
        r"does not compile.*report.*expected a ';'",
    ),
    "NVRTC fails": (lambda: NVRTC_FAILS, ga.BackendError, "does not compile"),
}


@pytest.fixture(params=FAILURES.values(), ids=FAILURES)
def failure(request):
    """A function that raises one of CuPy's errors; the error of ours, and words of it."""
    made, kind, words = request.param

    def fails(*_, **__):
        raise made()

    return fails, kind, words


def optimizer_of(host, **settings):
    w = host.array(np.ones(5, np.float32))
    return w, ga.SGD({"w": w}, lr=0.5, **settings)


def break_kernels(monkeypatch, method, fails):
    """Let kernels fail to compile, which CuPy does when asked for ``kernel``, or to be launched."""
    broken = property(fails) if method == "kernel" else fails
    monkeypatch.setattr(hostcupy.RawKernel, method, broken)


@pytest.mark.parametrize("method", ["kernel", "__call__"])
def test_a_step(host, monkeypatch, failure, method):
    """Says what to do, keeps CuPy's words and error, and has changed nothing."""
    fails, kind, words = failure
    w, optimizer = optimizer_of(host)
    grad = host.array(np.ones(5, np.float32))
    with monkeypatch.context() as patched:
        break_kernels(patched, method, fails)
        host.library.RawKernel = hostcupy.RawKernel
        with pytest.raises(kind, match=words) as raised:
            optimizer.step({"w": grad})
    assert isinstance(raised.value, ga.Error)
    assert hostarrays.Device.current == [0]
    assert type(raised.value.__cause__).__module__ != type(raised.value).__module__
    assert np.array_equal(host.numpy(w), np.ones(5)) and optimizer.step_count == 0
    optimizer.step({"w": grad})
    assert np.array_equal(host.numpy(w), np.full(5, 0.5, np.float32)) and optimizer.step_count == 1


def fails_later(*_, **__):
    raise runtime.CUDARuntimeError(700)


READERS = {
    "last": lambda optimizer, scale: optimizer.last,
    "step_count": lambda optimizer, scale: optimizer.step_count,
    "skipped_rows": lambda optimizer, scale: optimizer.skipped_rows,
    "state_dict": lambda optimizer, scale: optimizer.state_dict(),
    "LossScale.skipped": lambda optimizer, scale: scale.skipped,
    "LossScale.state_dict": lambda optimizer, scale: scale.state_dict(),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_waits_for_the_gpu(host, monkeypatch, read):
    """There a kernel that has failed is seen first."""
    table = host.array(np.ones((5, 2), np.float32))
    scale = ga.LossScale(4.0)
    optimizer = ga.Adam({"w": table}, check="skip")
    rows = ga.RowGrad(host.array(np.array([0, 9])), host.array(np.ones((2, 2), np.float32)))
    optimizer.step({"w": rows}, grad_scale=scale)
    monkeypatch.setattr(hostarrays.ndarray, "get", fails_later)
    monkeypatch.setattr(hostarrays.Device, "synchronize", fails_later)
    with pytest.raises(ga.DeviceError, match="launched earlier"):
        read(optimizer, scale)


def test_memory_for_states(host, monkeypatch):
    def full(*_, **__):
        raise memory.OutOfMemoryError(10, 20, 30)

    w = host.array(np.ones(5, np.float32))
    monkeypatch.setattr(host.library, "zeros_like", full)
    with pytest.raises(ga.DeviceMemoryError, match="memory is full"):
        ga.Adam({"w": w})


def test_errors_of_others_stay(host, monkeypatch):
    """A RuntimeError of somebody else, and what CuPy says well itself."""
    _, optimizer = optimizer_of(host)
    for error in (RuntimeError("the disk is full"), runtime.CUDARuntimeError(1), KeyError("x")):

        def fails(*_, error=error, **__):
            raise error

        break_kernels(monkeypatch, "kernel", fails)
        with pytest.raises(type(error)) as raised:
            optimizer.step({"w": host.array(np.ones(5, np.float32))})
        assert raised.value is error


# What the machine has


class Broken:
    """Imports a package that cannot be imported."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            raise self.error


DEVICES = [
    (lambda: 0, "^CuPy has no CUDA device here$"),
    (status(100), "no CUDA device here: the driver shows no GPU.*CUDA_VISIBLE_DEVICES"),
    (status(35), r"no NVIDIA driver that works.*--gpus all.*InsufficientDriver"),
    (status(803), "restart the machine"),
]


@pytest.fixture
def fresh():
    """`check_device` as in a new process."""
    arrays.check_device.cache_clear()
    yield
    arrays.check_device.cache_clear()


@pytest.mark.parametrize(("count", "words"), DEVICES)
def test_no_device(host, monkeypatch, fresh, count, words):
    def counted():
        result = count()
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(host.library.cuda.runtime, "getDeviceCount", counted)
    with pytest.raises(ga.BackendError, match=words):
        arrays.check_device()


@pytest.mark.parametrize(
    ("driver", "words"),
    [(11040, "driver is for CUDA 11.4 and CuPy is for CUDA 12.9: update"), (0, "no NVIDIA driver")],
)
def test_an_old_driver(host, monkeypatch, fresh, driver, words):
    def fails():
        raise runtime.CUDARuntimeError(35)

    there = host.library.cuda.runtime
    monkeypatch.setattr(there, "getDeviceCount", fails)
    monkeypatch.setattr(there, "driverGetVersion", lambda: driver, raising=False)
    monkeypatch.setattr(there, "runtimeGetVersion", lambda: 12090, raising=False)
    with pytest.raises(ga.BackendError, match=words):
        arrays.check_device()


def test_no_cupy(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        ga.BackendError, match=r"^CuPy is not installed: .*pip install .gpuadapt\[cuda12\]"
    ):
        arrays.check_device()


def test_info_without_cupy(monkeypatch, fresh, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (said,) = (line for line in lines if line.startswith("cuda "))
    assert said.split(maxsplit=1)[1].startswith("CuPy is not installed: to use a GPU, pip install ")
    assert any(line.split() == ["backends", "cpu"] for line in lines)


def test_a_cupy_whose_own_package_is_missing(monkeypatch, fresh):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    missing = ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock")
    monkeypatch.setattr(sys, "meta_path", [Broken(missing), *sys.meta_path])
    with pytest.raises(ga.BackendError, match=r"^CuPy cannot be imported .*'fastrlock'"):
        arrays.check_device()


def test_a_cupy_that_cannot_be_imported(monkeypatch, fresh):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    missing = ImportError("libcublas.so.12: cannot open shared object file")
    monkeypatch.setattr(sys, "meta_path", [Broken(missing), *sys.meta_path])
    with pytest.raises(ga.BackendError, match=r"cannot be imported .libcublas.so.12.*only one"):
        arrays.check_device()


@pytest.fixture
def described(host, monkeypatch):
    """A machine with a GPU as far as `gpuadapt info` asks."""
    given = {"name": b"a GPU", "major": 9, "minor": 0}
    answers = {
        "getDeviceProperties": lambda number: given,
        "deviceGetAttribute": lambda attribute, number: 3,
        "memGetInfo": lambda: (2**33, 2**36),
        "driverGetVersion": lambda: 12040,
        "runtimeGetVersion": lambda: 12090,
    }
    compiler_of = types.SimpleNamespace(getVersion=lambda: (12, 9))
    monkeypatch.setattr(host.library.cuda, "nvrtc", compiler_of, raising=False)
    for name, answer in answers.items():
        monkeypatch.setattr(host.library.cuda.runtime, name, answer, raising=False)
    return host


def shown(capsys):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:16].strip(): line[17:] for line in lines}


def test_info(described, capsys):
    lines = shown(capsys)
    assert lines["backends"] == "cpu, cuda"
    assert lines["cuda"] == ("CuPy for CUDA 12.9, driver for CUDA 12.4, NVRTC 12.9")
    assert lines["devices"] == "a GPU (sm_90)"
    assert lines["device memory"] == "8.0 of 64.0 GiB free; one process at a time"
    assert lines["kernels"] == "compile and run"
    assert lines["tuned"] == "no: all have defaults"


@pytest.mark.parametrize("method", ["kernel", "__call__"])
def test_info_where_kernels_do_not_work(described, monkeypatch, capsys, failure, method):
    fails, _, words = failure
    break_kernels(monkeypatch, method, fails)
    monkeypatch.setattr(described.library.cuda.runtime, "memGetInfo", fails)
    lines = shown(capsys)
    for key in ("kernels", "device memory"):
        assert re.search(words, lines[key]), lines[key]
