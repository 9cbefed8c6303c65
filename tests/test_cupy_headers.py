"""What is read in CuPy's own arrays in memory, which lie at addresses that nobody reads here."""

import numpy as np
import pytest

from gpuadapt.kernels.cpu import cupy_headers

cupy = pytest.importorskip("cupy")
from cupy.cuda import MemoryPointer, UnownedMemory  # noqa: E402  (without CuPy there is no test)

FIRST = 0x7F0000000000


def array(shape=(4, 6), dtype=np.float32, at=FIRST, device=1, order="C"):
    """An array of CuPy's over an address, for which there need be no GPU."""
    memory = UnownedMemory(at, 2**16, None, device)
    return cupy.ndarray(shape, dtype, MemoryPointer(memory, 0), None, order)


def unpickled(one):
    """An array whose dtype is an object of its own."""
    dtype = np.dtype(np.float32).newbyteorder("S").newbyteorder("S")
    assert dtype == one.dtype and dtype is not one.dtype
    return array(one.shape, dtype, one.data.ptr)


class Own(cupy.ndarray):
    """A class of the user's."""


READ = {
    "as the parameter": lambda: array(),
    "no dimension": lambda: array(()),
    "five dimensions": lambda: array((2, 1, 3, 1, 4)),
    "from an offset on": lambda: array((9, 6))[5:],
    "a dtype of its own": lambda: unpickled(array()),
    "one row of a transposed one": lambda: array((6, 1)).T,
}
REFUSED = {
    "another shape": lambda: array((6, 4)),
    "fewer dimensions": lambda: array((24,)),
    "another dtype": lambda: array(dtype=np.int32),
    "another device": lambda: array(device=2),
    "another order": lambda: array((6, 4)).T,
    "gaps": lambda: array((4, 12))[:, ::2],
    "backwards": lambda: array()[::-1],
    "broadcast": lambda: cupy.broadcast_to(array((1, 6)), (4, 6)),
    "a class of the user's": lambda: array().view(Own),
    "NumPy's": lambda: np.zeros((4, 6), np.float32),
    "none": lambda: None,
    "a number": lambda: 1.5,
    "memory of the optimizer": lambda: array(at=FIRST + 2**20),
    "its last byte": lambda: array(at=FIRST + 2**20 - 95),
    "nowhere": lambda: array(at=0),
}
RANGES = np.array([FIRST + 2**20]), np.array([FIRST + 2**20 + 96])


def found(grads, parameters, order="C", dtype=np.float32):
    classes, shapes = [type(one) for one in parameters], [one.shape for one in parameters]
    sizes = np.array([one.size for one in parameters])
    kinds, numbers = [(np.dtype(dtype), order)], np.zeros(len(grads), np.int64)
    expected = cupy_headers.Expected(classes, shapes, sizes, kinds, numbers, *RANGES, 1)
    finder = cupy_headers.address_finder(expected)
    addresses = np.full(len(grads), -1)
    missing = finder.find(id(grads), addresses)
    assert missing == np.count_nonzero(addresses == 0)
    return addresses.tolist()


@pytest.fixture(params=["compiled", "by Python"])
def way(request, monkeypatch):
    """What is read by machine code, and what is read by Python where it may not."""
    cupy_headers._fields.cache_clear()
    if request.param == "by Python":
        monkeypatch.setattr(cupy_headers, "_positions", lambda *_: {16, 24})
    yield request.param
    cupy_headers._fields.cache_clear()


def test_fields_are_found_where_they_are_unique(way):
    """This CuPy's arrays are read by machine code: otherwise a step takes 20 times as long."""
    assert (cupy_headers._fields(cupy.ndarray) is not None) == (way == "compiled")


def test_arrays_of_another_library_are_read_by_python():
    class Array:
        """Somebody else's."""

    assert cupy_headers._fields(Array) is None


def test_what_reads_other_values_is_not_used(monkeypatch):
    monkeypatch.setattr(cupy_headers, "_shapes", lambda probes: {64})  # where the strides are
    cupy_headers._fields.cache_clear()
    assert cupy_headers._fields(cupy.ndarray) is None
    cupy_headers._fields.cache_clear()


@pytest.mark.parametrize("name", READ)
@pytest.mark.usefixtures("way")
def test_addresses_are_those_that_cupy_says(name):
    one = READ[name]()
    like = array(one.shape, at=FIRST + 2**20)
    assert found([one, one], [like, like]) == [one.data.ptr] * 2
    if one.ndim == 2:
        turned = array(one.shape, at=FIRST + 2**20, order="F")
        assert found([one], [turned], "F") == [one.data.ptr if 1 in one.shape else 0]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("way")
def test_others_have_no_address(name):
    """Each by itself, and between others, which keep theirs."""
    one, good, like = REFUSED[name](), array(), array(at=FIRST + 2**20)
    assert found([one], [like]) == [0]
    many = [good] * 40 + [one] + [good] * 40
    assert found(many, [like] * 81) == [FIRST] * 40 + [0] + [FIRST] * 40


@pytest.mark.usefixtures("way")
def test_an_array_that_gets_another_shape_is_read_anew():
    one, like = array((6, 4)), array(at=FIRST + 2**20)
    assert found([one], [like]) == [0]
    one.shape = (4, 6)
    assert found([one], [like]) == [FIRST]


@pytest.mark.usefixtures("way")
def test_a_kind_without_an_address_has_none():
    numbers = np.array([1, 0, 1])
    kinds = [(np.dtype(np.float32), "C"), None]
    known = [cupy.ndarray] * 3, [(4, 6)] * 3, np.full(3, 24), kinds, numbers, *RANGES, 1
    finder = cupy_headers.address_finder(cupy_headers.Expected(*known))
    addresses = np.full(3, -1)
    assert finder.find(id([array()] * 3), addresses) == 2
    assert addresses.tolist() == [0, FIRST, 0]
