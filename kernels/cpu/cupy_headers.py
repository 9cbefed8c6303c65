"""What is in the objects of many CuPy arrays, read in one call of `loops/cupy_headers.py`.

In Python the type, shape, flags and address of an array take a microsecond. CuPy does not say where
its objects have them, so arrays over addresses that nobody reads are made, and the places are found
where they have what CuPy says of them. If these are not unique, or what is read there is not what
Python reads, Python goes on reading.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import chain, pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..addresses import HEAD
from ..array_types import HostArray
from . import compile
from .array_headers import BYTE_ORDER, ITEMS, SCALAR_TYPE, SWAPPED, TYPE, AddressFinder

PROBES = (
    ((3, 5, 7), np.float32, 3, "C"),
    ((11,), np.float64, 1, "C"),
    ((2, 13), np.uint16, 2, "C"),
    ((4, 6), np.float32, 0, "F"),
    ((3, 5, 7), np.float32, 0, "C"),
    ((5, 3, 7), np.float32, 3, "F"),
    ((5, 3, 7), np.float32, 5, ""),
    ((2, 3, 4, 5), np.float16, 4, "C"),
    ((), np.float64, 6, "C"),
)
"""Shapes, dtypes, devices and orders of the arrays whose objects are looked at; "" has gaps."""

Fields = dict[str, int]
"""Offsets of fields, in bytes."""

Find = Callable[[int, HostArray], int]
"""As `array_headers.AddressFinder.find`."""


class Expected(NamedTuple):
    """What is known of the gradients of a device."""

    classes: Sequence[Any]
    """The Python type of each."""
    shapes: Sequence[tuple[int, ...]]
    sizes: HostArray
    """int64: the number of elements of each."""
    kinds: Sequence[tuple[np.dtype, str] | None]
    """The dtype and the order of each kind; None for one that has no address to find."""
    numbers: HostArray
    """int64: the kind of each."""
    begins: HostArray
    """First and last address of memory that no gradient may alias, int64, ascending."""
    ends: HostArray
    device: int
    """The number of the device."""


def address_finder(expected: Expected) -> AddressFinder:
    """Make the check that CuPy gradients are contiguous, and alias no memory of the optimizer."""
    fields = [_fields(each) for each in {*expected.classes}]
    if not fields or fields[0] is None or None in fields:
        return AddressFinder(_by_python(expected), _dtypes(expected))
    return AddressFinder(_compiled(expected, fields[0]), _dtypes(expected))


def _dtypes(expected: Expected) -> list[np.dtype]:
    return [of[0] for of in expected.kinds if of]


def _compiled(expected: Expected, fields: Fields) -> Find:
    """The check by `addresses` of ``loops/cupy_headers.py``."""
    table = [
        (id(of[0]), fields[of[1]], of[0].itemsize) if of else (0, 0, 0) for of in expected.kinds
    ]
    of_kinds = np.array(table, np.int64).reshape(-1, 3).T.copy()
    starts = np.cumsum([0, *map(len, expected.shapes)], dtype=np.int64)
    lengths = np.fromiter(chain.from_iterable(expected.shapes), np.int64, starts[-1])
    classes = np.fromiter(map(id, expected.classes), np.int64, len(expected.classes))
    read = partial(_module(_text(tuple(fields.items()))).addresses, classes, starts, lengths)
    return partial(
        read, expected.sizes, expected.numbers, *of_kinds, expected.begins, expected.ends,
        expected.device,
    )  # fmt: skip


def _by_python(expected: Expected) -> Find:
    """The same check of arrays whose fields have not been found."""
    classes, shapes, sizes, kinds, numbers, begins, ends, device = expected
    wanted = [kinds[number] for number in numbers.tolist()]
    bytes_of = np.array([of[0].itemsize if of else 0 for of in wanted], np.int64) * sizes

    def find(address_of_list: int, found: HostArray) -> int:
        arrays: Any = ctypes.cast(address_of_list, ctypes.py_object).value
        found[:] = [
            one.data.ptr
            if of is not None
            and type(one) is kind
            and one.shape == shape
            and one.dtype == of[0]
            and one.device.id == device
            and (one.flags.c_contiguous if of[1] == "C" else one.flags.f_contiguous)
            else 0
            for one, kind, shape, of in zip(arrays, classes, shapes, wanted, strict=True)
        ]
        before = np.searchsorted(begins, found + bytes_of)  # ranges that begin before its end
        overlaps = before > 0
        overlaps[overlaps] = ends[before[overlaps] - 1] > found[overlaps]
        found[overlaps] = 0
        return int(len(found) - np.count_nonzero(found))

    return find


@cache
def _fields(array_type: type) -> Fields | None:
    """Where arrays of a type have their fields; None if that is not certain."""
    try:
        probes = [_probe(k, *given) for k, given in enumerate(PROBES, 1)]
        fields = _found(probes)
    except (AttributeError, ImportError, LookupError, TypeError, ValueError):
        return None  # another CuPy than those that are known, or something in its place
    return fields if _agree(fields, probes) and issubclass(array_type, type(probes[0])) else None


def _probe(number: int, shape: tuple[int, ...], dtype: type, device: int, order: str) -> Any:
    """A CuPy array over an address that nobody reads or writes."""
    from cupy import ndarray
    from cupy.cuda import MemoryPointer, UnownedMemory

    base = UnownedMemory(0x7E0000000000 + number * 0x12345600, 2**16, None, device)
    if order:
        return ndarray(shape, dtype, MemoryPointer(base, 512 * number), None, order)
    *outer, last = shape
    return ndarray((*outer, 2 * last), dtype, MemoryPointer(base, 512 * number))[..., ::2]


def _found(probes: Sequence[Any]) -> Fields:
    """Find the fields; raises `LookupError` if one has no place, or may have several."""
    pointers = [array.data for array in probes]
    whole = {"C": "c_contiguous", "F": "f_contiguous"}
    flags = {
        order: _positions(probes, [getattr(array.flags, name) for array in probes], ctypes.c_int32)
        for order, name in whole.items()
    }
    places = {
        "MEMORY": _positions(probes, map(id, pointers), ctypes.c_int64),
        "DTYPE": _positions(probes, [id(array.dtype) for array in probes], ctypes.c_int64),
        "SHAPE": _shapes(probes),
        "ADDRESS": _positions(pointers, [one.ptr for one in pointers], ctypes.c_int64),
        "DEVICE": _positions(pointers, [one.device_id for one in pointers], ctypes.c_int32),
        **flags,
    }
    fields = {}
    for name, at in places.items():
        if len(at) != 1:
            raise LookupError(name)
        (fields[name],) = at
    return fields


def _words(one: object, kind: Any) -> Sequence[int]:
    """The memory of an object as integers."""
    count = type(one).__basicsize__ // ctypes.sizeof(kind)
    words: Sequence[int] = (kind * count).from_address(id(one))
    return words


def _positions(objects: Sequence[object], values: Iterable[int], kind: Any) -> set[int]:
    """The offsets at which each object has its value."""
    size = ctypes.sizeof(kind)
    found = []
    for one, value in zip(objects, values, strict=True):
        words = _words(one, kind)
        found.append({k * size for k in range(HEAD // size, len(words)) if words[k] == value})
    return set.intersection(*found)


def _shapes(probes: Sequence[Any]) -> set[int]:
    """The offsets at which two addresses are those of each array's lengths, and behind them."""
    spans = []
    for array in probes:
        words = _words(array, ctypes.c_int64)
        each = enumerate(pairwise(words))
        spans.append({k for k, (first, end) in each if end - first == 8 * array.ndim})
    found = set()
    for k in set.intersection(*spans):  # that all of them fit by chance is out of the question
        at = [_words(array, ctypes.c_int64)[k] for array in probes]
        lengths = [
            tuple((ctypes.c_int64 * array.ndim).from_address(first)) if array.ndim else ()
            for array, first in zip(probes, at, strict=True)
        ]
        if lengths == [array.shape for array in probes]:
            found.add(8 * k)
    return found


def _agree(fields: Fields, probes: Sequence[Any]) -> bool:
    """Whether both checks find the same of every array, whatever is expected."""
    arrays = [*probes, None, np.zeros((3, 5, 7), np.float32)]
    numbers = np.zeros(len(arrays), np.int64)
    begins = np.array([probes[4].data.ptr + 8], np.int64)  # one of them may alias something
    for one in probes:
        classes, shapes = [type(one)] * len(arrays), [one.shape] * len(arrays)
        sizes, device = np.full(len(arrays), one.size), one.device.id
        for order in "CF":
            kinds = [(one.dtype, order)]
            given = Expected(classes, shapes, sizes, kinds, numbers, begins, begins + 8, device)
            found = np.full((2, len(arrays)), -1)
            zeros = [
                _compiled(given, fields)(id(arrays), found[0]),
                _by_python(given)(id(arrays), found[1]),
            ]
            if zeros[0] != zeros[1] or not np.array_equal(*found):
                return False
    return True


@cache
def _text(fields: tuple[tuple[str, int], ...]) -> str:
    """The text of the module, by the places of CuPy's fields."""
    known = {"TYPE": TYPE, "ITEMS": ITEMS, "SCALAR_TYPE": SCALAR_TYPE, "BYTE_ORDER": BYTE_ORDER,
             "SWAPPED": SWAPPED}  # fmt: skip
    head = [f"{name} = {at}" for name, at in (known | dict(fields)).items()]
    return compile.link("headers of CuPy's arrays", "\n".join(head), "cupy_headers")


@cache
def _module(text: str) -> ModuleType:
    return compile.load("cupy_headers", text)
