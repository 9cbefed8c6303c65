"""What the suites of whole arrays run: tables of cases."""

from __future__ import annotations

from . import roofs as memory
from .peers.ours import FORMATS
from .update import Case

FUSED = ("torch fused",)
FAST = ("torch fused", "torch foreach", "optax jit", "deepspeed")
"""Peers worth waiting for, and with enough memory left, from 50M elements on."""

ON_GPU = ("torch fused", "torch foreach")
"""Peers of `methods`: torch has no fused kernel for each of them."""

LARGEST = {"cpu": 50_000_000, "cuda": 2**28}


def dense(backend: str, quick: bool) -> list[Case]:
    """One array: Adam over sizes and threads, then every method."""
    if quick:
        sizes = [1_000, 1_000_000]
        return [Case("adam", (size,)) for size in sizes] + [
            Case(method, (1_000_000,)) for method in ("adagrad", "rmsprop", "adadelta")
        ]
    cases = [
        Case("adam", (size,), only=() if size <= 10_000_000 else FAST)
        for size in sorted({1_000, 10_000, 100_000, 1_000_000, 10_000_000, LARGEST[backend]})
    ]
    cases.append(Case("adam", (100_000_000,), only=FAST))
    cases += [Case(method, (10_000_000,)) for method in ("adagrad", "rmsprop", "adadelta")]
    if backend == "cpu":
        cases += [
            Case("adam", (size,), threads=count, only=FUSED)
            for size in (1_000_000, 10_000_000)
            for count in _thread_counts()
        ]
    return cases


def many(backend: str, quick: bool) -> list[Case]:
    """Many arrays in one step; the limit is one array with as many elements."""
    cases = [Case("adam", (1_000,) * 1_000, "1,000 x 1,000")]
    if not quick:
        cases.append(Case("adam", (50_000,) * 200, "200 x 50,000"))
        cases.append(Case("adam", transformer(), "a transformer, 50M", only=FAST))
    return cases


def formats(backend: str, quick: bool) -> list[Case]:
    """Types of parameters, gradients and states."""
    size = 1_000_000 if quick else LARGEST[backend]
    cases = [Case("adam", (size,), dtype=dtype, only=FUSED) for dtype in ("float32", "float64")]
    return cases + [Case("adam", (size,), only=FUSED, kept=kept) for kept in FORMATS]


def methods(backend: str, quick: bool) -> list[Case]:
    """Every method in float32 on one long array, Adam also with gradients that are mostly zero."""
    size = 1_000_000 if quick else LARGEST[backend]
    names = ("adam", "sgd", "adagrad", "rmsprop", "adadelta")
    cases = [Case(name, (size,), only=ON_GPU) for name in names]
    return [*cases, *(Case("adam", (size,), only=FUSED, zeros=zeros) for zeros in (90, 100))]


def roofs(backend: str, quick: bool) -> list[memory.Case]:
    """Memory alone: one length, far beyond the caches."""
    return [memory.Case(2**22 if quick else memory.SIZES[backend])]


def transformer() -> tuple[int, ...]:
    """The sizes of a Llama-like model's arrays: norms, attention, gated feed-forward."""
    width, hidden, layers, words = 352, 928, 33, 4_000
    layer = [width, *[width * width] * 4, width, *[width * hidden] * 3]
    return (words * width, *layer * layers, width, words * width)


def _thread_counts() -> list[int]:
    """1, 2, 4, ... and all."""
    import numba

    most = numba.config.NUMBA_NUM_THREADS
    return sorted({2**k for k in range(most.bit_length()) if 2**k <= most} | {most})
