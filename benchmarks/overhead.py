"""What a step costs besides memory traffic: import, compilation, Python, memory, exactness."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gpuadapt as ga
from gpuadapt import launch
from gpuadapt.arrays import namespace
from gpuadapt.benchmark.candidates import HYPER, Make
from gpuadapt.benchmark.failures import Errors, noted
from gpuadapt.benchmark.timing import interleaved, ratio
from gpuadapt.kernels import rules
from gpuadapt.kernels.formats import Operand, uniform
from gpuadapt.kernels.numerics.scalar_layout import FIRST

from . import peers, roofs
from .failures import WHOLE

IMPORT = """
import time; start = time.perf_counter()
import gpuadapt
print(time.perf_counter() - start)
"""

FIRST_STEP = """
import time; start = time.perf_counter()
import gpuadapt, numpy
w = numpy.ones((1000, 4), numpy.float32)
gpuadapt.Adam(w).step({})
print(time.perf_counter() - start)
"""

GRADIENTS = {
    "step": "w.copy()",
    "step by rows": "gpuadapt.RowGrad(numpy.arange(1000), w.copy())",
}

MEMORY = """
import sys
import numpy as np
from benchmarks import peers
from gpuadapt.benchmark.candidates import HYPER

def kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

size = int(sys.argv[2])
make = peers.makers("adam", "cpu", (sys.argv[1],))[sys.argv[1]]
trainer = make([np.ones(size, np.float32)], HYPER["adam"])
trainer.load([np.ones(size, np.float32)])
for _ in range(3):
    trainer.step()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is counted from here
before = kilobytes("VmRSS")
trainer.step()
print(1024 * max(0, kilobytes("VmHWM") - before))
"""

Entry = dict[str, Any]


def entries(backend: str, quick: bool) -> Iterator[Entry]:
    """Each as {"name", "value", "unit"}: "s", "B" (bytes), or "x" (a ratio).

    What could not be measured has "errors" instead: by who failed, what was raised.
    """
    errors: Errors = {}
    for label, part in _parts(backend, quick, errors):
        errors.clear()
        with noted(errors, WHOLE):
            yield from part
        if errors:
            yield {"name": label, "errors": dict(errors)}


def _parts(backend: str, quick: bool, errors: Errors) -> Iterator[tuple[str, Iterator[Entry]]]:
    """What is measured one after the other, and what to call it if it fails."""
    repeats, rounds = (3, 5) if quick else (9, 25)
    yield "import and first step", _startup(repeats)
    for count in (1, 10, 1_000):
        label = f"step of {count:,} parameters with one element"
        yield label, _python(count, backend, repeats, errors)
    for size in (1_000_000,) if quick else (10_000_000, 50_000_000):
        yield f"clipping by norm, {size:,} elements", _clipping(size, backend, rounds)
    yield "memory that a step needs for itself", _memory(backend, 10_000_000, errors)
    for size in (10_000, 1_000_000) if quick else (10_000, 1_000_000, 10_000_000):
        yield f"exact Adam, {size:,} elements", _exactness(size, backend, repeats)


def _startup(repeats: int) -> Iterator[Entry]:
    """Import; import and first Adam step, with an empty cache and with a full one."""
    with tempfile.TemporaryDirectory() as cache:
        _run(IMPORT, cache)  # fills the file cache
        yield _seconds("import", [_run(IMPORT, cache) for _ in range(repeats)])
        for kind, gradient in GRADIENTS.items():
            script = FIRST_STEP.format(gradient)
            folders = [os.path.join(cache, f"{kind}{index}") for index in range(3)]
            yield _seconds(f"import and first {kind} ever", [_run(script, f) for f in folders])
            again = [_run(script, folders[0]) for _ in range(repeats)]
            yield _seconds(f"import and first {kind}, second process", again)


def _python(count: int, backend: str, rounds: int, errors: Errors | None = None) -> Iterator[Entry]:
    """A step of so many parameters of one element each."""
    candidates = small_steps(count, backend, errors)
    for name, times in interleaved(candidates, backend, rounds, errors=errors).items():
        yield {
            "name": f"step of {count:,} parameters with one element, {name}",
            "value": times["median"],
            "unit": "s",
        }


def small_steps(count: int, backend: str, errors: Errors | None) -> dict[str, Callable[[], Any]]:
    """Steps of so many parameters of one element each, by who takes them."""
    candidates, beside = {}, ("torch fused", "optax jit")
    for name, make in peers.makers("adam", backend, beside, errors=errors).items():
        with noted(errors, name):
            trainer = make([np.ones(1, np.float32) for _ in range(count)], HYPER["adam"])
            trainer.load([np.ones(1, np.float32) for _ in range(count)])
            trainer.step()
            candidates[name] = trainer.step
    xp = namespace(backend)
    names = [str(k) for k in range(count)]
    optimizer = ga.Adam({name: xp.ones(1, xp.float32) for name in names})
    same = {name: xp.ones(1, xp.float32) for name in names}
    # Drawn beforehand, as a backward pass would leave them.
    new = itertools.cycle([{k: g.copy() for k, g in same.items()} for _ in range(16)])
    candidates["gpuadapt, a dict"] = lambda: optimizer.step(same)
    candidates["gpuadapt, a dict of new gradients"] = lambda: optimizer.step(next(new))
    return candidates


def _clipping(size: int, backend: str, rounds: int) -> Iterator[Entry]:
    """What clipping by the norm adds to a step, as a multiple of one read of the gradients."""
    xp = namespace(backend)
    gradient = xp.ones(size, xp.float32)
    plain, clipped = (ga.Adam(xp.ones(size, xp.float32)) for _ in range(2))
    times = interleaved(
        {
            "plain": lambda: plain.step(gradient),
            "clipped": lambda: clipped.step(gradient, max_norm=1.0),
            "read": roofs.read(backend, size),
        },
        backend,
        rounds,
    )
    # Within a round: a difference of two medians would be mostly the machine's own drift.
    turns = zip(*(times[name]["turns"] for name in ("clipped", "plain", "read")), strict=True)
    added = statistics.median((clipped - step) / read for clipped, step, read in turns)
    label = f"clipping by norm, {size:,} elements, over one read of them"
    yield {"name": label, "value": added, "unit": "x"}


def _memory(backend: str, size: int, errors: Errors | None = None) -> Iterator[Entry]:
    """What memory grows by during a step of one float32 parameter, at its peak."""
    makers = peers.makers("adam", backend, errors=errors)
    if backend == "cpu" and not Path("/proc/self/clear_refs").exists():
        print("- peak memory: left out, this system does not count it")
        return
    for name in makers:
        if backend == "cuda" and not name.startswith(("gpuadapt", "cupy")):
            continue
        with noted(errors, name):
            if backend == "cpu":
                grown = _run(MEMORY, None, name, str(size))
            else:
                grown = _pool_growth(makers[name], size)
            label = f"memory that a step of {size:,} elements needs for itself, {name}"
            yield {"name": label, "value": grown, "unit": "B"}


def _pool_growth(make: Make, size: int) -> int:
    """What CuPy takes from the device during a step, with nothing spare in its pool."""
    import cupy

    trainer = make([np.ones(size, np.float32)], HYPER["adam"])
    trainer.load([np.ones(size, np.float32)])
    trainer.step()
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before: int = pool.total_bytes()
    trainer.step()
    grown: int = pool.total_bytes() - before
    return grown


def _exactness(size: int, backend: str, rounds: int) -> Iterator[Entry]:
    """The time of the exact kernels over that of the same text without exactness."""
    xp = namespace(backend)
    coefficients = [0.9, 0.1, 0.999, 0.001, 1.0, 1.0, 1e-3, 1e-8]
    steps = {
        name: with_kernel(
            kernel, backend, [xp.ones(size, xp.float32) for _ in range(4)], coefficients
        )
        for name, kernel in kernels(backend).items()
    }
    times = interleaved(steps, backend, rounds)
    for name in list(times)[1:]:
        slower = ratio(times, "exact", name)
        label = f"exact Adam's time over that with {name}, {size:,} elements"
        yield {"name": label, "value": slower, "unit": "x"}


def kernels(backend: str) -> dict[str, Callable[..., Any]]:
    """Adam's kernel as it is, and compiled with what would change its bits."""
    formats = uniform(rules.adam, np.dtype(np.float32))
    if backend == "cuda":
        import cupy

        from gpuadapt.kernels.cuda import multi_tensor as cuda
        from gpuadapt.kernels.cuda import tuning

        tuned = tuning.launch(tuning.family(formats))
        text, name = cuda.source(rules.adam, formats, tuned), "gpuadapt_adam_many"
        return {
            "exact": cuda.kernel(rules.adam, formats, tuned),
            "fmad": cupy.RawKernel(loose(text), name, options=()),
        }
    from gpuadapt.kernels.cpu import multi_tensor

    text = multi_tensor.source(rules.adam, formats)
    made: dict[str, Any] = {}
    for old, new in (('"nogil": True', '"nogil": True, "fastmath": True'), (', "cache": True', "")):
        assert old in text
        text = text.replace(old, new)
    exec(text, made)  # noqa: S102
    return {"exact": multi_tensor.kernel(rules.adam, formats), "fastmath": made["launch"]}


def with_kernel(
    kernel: Callable[..., Any], backend: str, arrays: list[Any], coefficients: list[float]
) -> Callable[[], None]:
    """An update of (p, g, m, v) by a kernel that takes what Adam's takes."""
    return adam_alone(backend, [arrays], coefficients, kernel)


def adam_alone(
    backend: str,
    tensors: list[list[Any]],
    coefficients: list[float],
    kernel: Callable[..., Any] | None = None,
) -> Callable[[], None]:
    """A call of Adam's kernel, or of another that takes the same, for many (p, g, m, v)."""
    formats = uniform(rules.adam, np.dtype(np.float32))
    operands = [Operand((p, m, v)) for p, _, m, v in tensors]
    update: Any = launch.bind_multi_tensor(rules.adam, backend, formats, operands)
    if kernel is not None:
        update._kernel = kernel
    gradients = [g for _, g, _, _ in tensors]
    addresses = [g.ctypes.data if backend == "cpu" else g.data.ptr for g in gradients]
    given = np.array(addresses, np.int64), np.full(len(tensors), FIRST, np.int64)
    numbers = launch.scalars(backend, coefficients)

    def run(_gradients: Any = gradients) -> None:  # only this keeps them: the update has addresses
        launch.run(update, *given, numbers)

    return run


def loose(text: str) -> str:
    """CUDA text with the language's operators, which the compiler may contract."""
    guard = "#ifdef __CUDACC_RTC__"
    assert guard in text
    return text.replace(guard, "#if 0").replace("std::", "::")


def _seconds(name: str, values: list[float]) -> Entry:
    return {"name": name, "value": statistics.median(values), "unit": "s"}


def _run(script: str, cache: str | None, *arguments: str) -> float:
    """What a fresh process prints."""
    kept = {} if cache is None else {"GPUADAPT_CACHE_DIR": cache}
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **kept},
        cwd=Path(__file__).parent.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    return float(result.stdout.split()[-1])
