"""Backends for every test body: the CPU, the CUDA text on the host, a GPU where there is one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hostcupy
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from updates_by_numpy import Many, in_place_of

import gpuadapt
from gpuadapt import arrays, launch
from gpuadapt.kernels.cuda import (
    exact_rows,
    multi_tensor,
    rows,
    scalars,
    squares,
    step_history,
    strided,
    tuning,
)

# On a busy machine any example may take long: that says nothing of a test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

HERE = Path(__file__).parent
NEED_TORCH = [
    "test_torch*.py",
    "test_averages.py",
    "test_examples.py",
    "test_resuming.py",
    "test_signatures.py",
    "test_types.py",
]
collect_ignore = [path.name for path in HERE.glob("*.py") if not path.name.startswith("test_")]
collect_ignore += ["typing"]
collect_ignore_glob = [] if find_spec("torch") else NEED_TORCH
QUICK = [
    "test_documents",
    "test_effects",
    "test_errors",
    "test_formulas",
    "test_golden",
    "test_language",
    "test_packages",
    "test_settings",
    "test_structure",
    "test_tree",
]
"""The quick part, `pytest -m quick`: files that compile few kernels, and need no extra."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: runs in a minute or two, in an empty environment")


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in QUICK:
            item.add_marker("quick")


def pytest_report_header() -> list[str]:
    """Say which copy is tested, and what is left out."""
    lines = [f"gpuadapt: {gpuadapt.__version__}, {Path(gpuadapt.__file__).parent}"]
    if collect_ignore_glob:
        lines.append(f"NOT RUN, as torch is not installed: {', '.join(NEED_TORCH)}")
    return lines


def _gpu() -> Any:
    try:
        import cupy

        return cupy if cupy.cuda.runtime.getDeviceCount() else None
    except Exception:
        return None


GPU = _gpu()
BACKENDS = ["cpu", "host"] + ["gpu"] * (GPU is not None)
HOST = hostcupy.module()


@dataclass
class Backend:
    """Where the arrays of a test live."""

    name: str
    library: Any

    def array(self, values: Any) -> Any:
        """An array of this backend with the values, shape, type and strides of a NumPy array."""
        values = np.asarray(values)
        if self.name == "gpu":
            flat = self.library.empty(_extent(values), values.dtype)
            as_strided = self.library.lib.stride_tricks.as_strided
            placed = as_strided(flat[_first(values) :], values.shape, values.strides)
            placed[...] = self.library.asarray(values)
            return placed
        # From a multiple of 64 bytes on, so that alignment is a choice, not luck.
        raw = np.empty(_extent(values) * values.itemsize + 64, np.uint8)
        flat = raw[-raw.ctypes.data % 64 :][: _extent(values) * values.itemsize].view(values.dtype)
        placed = np.lib.stride_tricks.as_strided(
            flat[_first(values) :], values.shape, values.strides, writeable=True
        )
        placed[...] = values
        return placed if self.name == "cpu" else hostcupy.ndarray(placed)

    def numpy(self, array: Any) -> np.ndarray:
        """A copy of an array of this backend as a NumPy array."""
        return np.array(array) if self.name == "cpu" else array.get()


def _first(values: np.ndarray) -> int:
    """Elements before the first: those reached by negative strides, and its misalignment."""
    negative = sum(
        (n - 1) * -stride
        for n, stride in zip(values.shape, values.strides, strict=True)
        if stride < 0
    )
    misaligned = (values.ctypes.data - negative) % 16 if values.size else 0
    return (negative + misaligned) // values.itemsize


def _extent(values: np.ndarray) -> int:
    """Elements from the aligned start to the last."""
    positive = sum(
        (n - 1) * stride
        for n, stride in zip(values.shape, values.strides, strict=True)
        if stride > 0
    )
    return _first(values) + positive // values.itemsize + 1


def install(library: Any) -> None:
    """Make a library (or the stand-in) the one that gpuadapt imports as cupy."""
    if library is None:
        sys.modules.pop("cupy", None)
    else:
        sys.modules["cupy"] = library
    arrays.check_device.cache_clear()
    for module in (exact_rows, multi_tensor, rows, scalars, squares, step_history, strided):
        for function in vars(module).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()


@contextmanager
def installed(name: str) -> Iterator[Backend]:
    """A backend, with its library in CuPy's place while the context lasts."""
    before = sys.modules.get("cupy")
    library = {"cpu": np, "host": HOST, "gpu": GPU}[name]
    if name != "cpu":
        install(library)
    if name == "host":
        # A tracer's exception, unlike a signal's, may come in place of a context's end.
        hostcupy.Device.current[:] = [0]
    try:
        yield Backend(name, library)
    finally:
        install(before)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with installed(request.param) as result:
        yield result


def crossed(items: Any, kinds: Any, always: set[tuple[str, str]]) -> pytest.MarkDecorator:
    """Items over backends and types: all of them where ``always`` says so, and on a GPU.

    Elsewhere those of ``kinds`` alone: a kernel takes a second to compile.
    """
    triples = [
        pytest.param(item, backend, dtype, id=f"{item.name}-{backend}-{dtype}")
        for item in items
        for backend in BACKENDS
        for dtype in ("float32", "float64")
        if backend == "gpu" or (backend, dtype) in always or item in kinds
    ]
    return pytest.mark.parametrize(("item", "backend", "dtype"), triples, indirect=[
        "backend", "dtype",
    ])  # fmt: skip


@pytest.fixture
def by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense updates on the CPU by NumPy, which compiles nothing: for what asks for a formula.

    That kernels have these bits is what test_bits and test_testing say.
    """
    by_numpy = in_place_of(Many, launch.bind_multi_tensor)
    monkeypatch.setattr(launch, "bind_multi_tensor", by_numpy)


@pytest.fixture
def host() -> Iterator[Backend]:
    with installed("host") as result:
        yield result


DEVICE = "A GPU, 90"
"""The name and the compute capability of the stand-in, as files of launch parameters have them."""


@pytest.fixture
def device(host: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The stand-in with a name, a compute capability, and events that take the host's time."""
    cuda = host.library.cuda
    properties = {"name": DEVICE.split(",")[0].encode(), "l2CacheSize": 0}
    runtime = SimpleNamespace(**vars(cuda.runtime), getDeviceProperties=lambda _: properties)
    monkeypatch.setattr(cuda, "runtime", runtime)
    monkeypatch.setattr(cuda.Device, "compute_capability", "90", raising=False)
    monkeypatch.setattr(cuda, "Event", _Event, raising=False)
    monkeypatch.setattr(
        cuda, "get_elapsed_time", lambda a, b: 1e3 * (b.time - a.time), raising=False
    )
    tuning._kind.cache_clear()
    yield host
    tuning._kind.cache_clear()


class _Event:
    """`cupy.cuda.Event`."""

    def record(self) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what came of PyTorch's own tests, or that they have not run."""
    reports = [one for found in terminalreporter.stats.values() for one in found]
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == "pytorch" and report.when == "call":
                terminalreporter.write_line(value)
    for report in terminalreporter.stats.get("skipped", ()):
        if "test_torch_suites" in report.nodeid:
            terminalreporter.write_sep(
                "!", "PyTorch's own tests of optimizers have NOT run", red=True
            )
            terminalreporter.write_line(str(report.longrepr[-1]))
            break
