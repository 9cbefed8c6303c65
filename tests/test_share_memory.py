"""Have two arrays a byte in common? Of any strides, of NumPy and of CuPy, none of which is read."""

import sys

import hostcupy
import numpy as np
import pytest
from conftest import installed

import gpuadapt as ga
from gpuadapt import arrays, gradients

FIRST = 0x7F0000000000


def of_numpy(offset, shape, strides, kind):
    if not hasattr(of_numpy, "memory"):
        of_numpy.memory = np.zeros(2**30, np.uint8)  # pages that nobody touches
    return np.ndarray(shape, kind, of_numpy.memory, offset, strides)


def of_cupy(offset, shape, strides, kind):
    """CuPy's own, over addresses for which there need be no GPU."""
    cupy = pytest.importorskip("cupy")
    memory = cupy.cuda.UnownedMemory(FIRST, 2**30, None, 0)
    return cupy.ndarray(shape, kind, cupy.cuda.MemoryPointer(memory, offset), strides)


LIBRARIES = {
    "NumPy": of_numpy,
    "CuPy": of_cupy,
    "the stand-in": lambda *given: hostcupy.ndarray(of_numpy(*given)),
}


@pytest.fixture(params=LIBRARIES)
def place(request, monkeypatch):
    if request.param == "the stand-in":
        monkeypatch.setitem(sys.modules, "cupy", hostcupy.module())
    return LIBRARIES[request.param]


def addresses(offset, shape, strides, kind):
    """All bytes of an array."""
    at = np.array([offset])
    for n, stride in zip((*shape, np.dtype(kind).itemsize), (*strides, 1), strict=True):
        at = np.add.outer(at, stride * np.arange(n)).ravel()
    return {*at.tolist()}


def drawn(random):
    kind = random.choice(["f4", "f8", "u2"])
    size = np.dtype(kind).itemsize
    shape = tuple(random.integers(0 if random.random() < 0.1 else 1, 6, random.integers(0, 4)))
    strides = tuple(int(n) * size for n in random.integers(-9, 10, len(shape)))
    return (
        1000 + size * int(random.integers(0, 30)) + int(random.integers(0, 2)),
        shape,
        strides,
        kind,
    )


def test_every_byte_is_compared(place):
    """Arrays of several types and alignments, interleaved, reversed, broadcast and empty ones."""
    random, found = np.random.default_rng(7), []
    for _ in range(300):
        one, other = drawn(random), drawn(random)
        shared = not addresses(*one).isdisjoint(addresses(*other))
        assert arrays.share_memory(place(*one), place(*other)) == shared, (one, other)
        found.append(shared)
    assert 0.2 < np.mean(found) < 0.8


LARGE = {  # offset, shape, strides; of 80 MB to 800 MB of addresses
    "interleaved": (0, (10_000_000,), (8,)),
    "halves of rows": (0, (1_000_000, 10), (80, 4)),
    "other halves": (40, (1_000_000, 10), (80, 4)),
    "backwards": (80_000_000, (10_000_000,), (-8,)),
}


def test_large_arrays_are_compared_at_once(place):
    """By their strides: no memory of the size of an array, and no element is looked at."""
    made = {name: place(*given, "f4") for name, given in LARGE.items()}
    shared = {(a, b): arrays.share_memory(made[a], made[b]) for a in made for b in made if a < b}
    assert shared.pop(("backwards", "interleaved"))
    assert not shared.pop(("halves of rows", "other halves"))
    assert all(shared.values())
    assert not arrays.share_memory(made["interleaved"], place(4, (10_000_000,), (8,), "f4"))


def test_what_takes_too_long_to_find_out_is_taken_for_shared(place):
    """NumPy's own example of a hard problem, of wider elements."""
    a = place(0, (1049, 1049, 1049), (4 * 36674, 4 * 61119, 4 * 85569), "f4")
    b = place(4 * 64023025, (1049, 1049), (4 * 12223, 4 * 12224), "f4")
    with pytest.raises(np.exceptions.TooHardError):
        np.shares_memory(*map(arrays._outline, (a, b)), max_work=arrays.MAX_WORK)
    assert arrays.share_memory(a, b)


@pytest.mark.parametrize("name", ["cpu", "host"])
def test_few_of_many_interleaved_arrays_are_compared(name, monkeypatch):
    """A gradient between the elements of one parameter is compared with that parameter alone."""
    compared = []
    monkeypatch.setattr(
        gradients,
        "share_memory",
        lambda *given: compared.append(given) or arrays.share_memory(*given),
    )
    with installed(name) as backend:
        every = [np.zeros((4, 2), np.float32) for _ in range(50)]
        convert = hostcupy.ndarray if name == "host" else np.asarray
        optimizer = ga.Adam([convert(pair[:, 0]) for pair in every])
        optimizer.step([convert(pair[:, 1]) for pair in every])
        assert 0 < len(compared) <= 50 * 3 * 2  # when it is planned, and when it is matched
        for bad in (every[7][:, 0], every[7][1:, 0]):
            grads = [convert(pair[:, 1]) for pair in every]
            grads[3] = convert(np.lib.stride_tricks.as_strided(bad, (4,), (0,)))
            with pytest.raises(ga.GradientError, match="'3': shares memory with parameter '7'"):
                optimizer.step(grads)
        assert backend.name == name
