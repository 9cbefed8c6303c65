"""What Numba lacks: `prefetch`, `claim`, views (`part`, `memory`, `pairs`), `bits` and `real`."""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

READ, KEEP, DATA = 0, 3, 1
"""Arguments of LLVM's prefetch: not for writing alone, into every cache level, not code."""


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Fetch the line of a contiguous array's element; an index beyond the end is harmless."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        integer = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, integer, integer, integer])
        get: Any = cgutils.get_or_insert_function
        function = get(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, integer(READ), integer(KEEP), integer(DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate


def _claim(typing_context: Any, counter: Any, amount: Any) -> Any:
    """Add to ``counter[0]``, an int64, whatever other threads do; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, arguments[1], "monotonic")

    return types.int64(counter, types.int64), generate


def _part(typing_context: Any, matrix: Any, row: Any, first: Any, last: Any) -> Any:
    """``matrix[row, first:last]``, without a check and without owning it.

    Numba's own views count their references, in one place for all threads, which costs more
    than a short row's arithmetic.
    """
    view = types.Array(matrix.dtype, 1, "C", readonly=not matrix.mutable)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, first, last = arguments
        array = context.make_array(signature.args[0])(context, builder, array)
        stride = cgutils.unpack_tuple(builder, array.strides, 2)[0]
        offset = builder.add(builder.mul(row, stride), builder.mul(first, array.itemsize))
        result = context.make_array(view)(context, builder)
        populate_array(
            result,
            data=cgutils.pointer_add(builder, array.data, offset),
            shape=cgutils.pack_array(builder, [builder.sub(last, first)]),
            strides=cgutils.pack_array(builder, [array.itemsize]),
            itemsize=array.itemsize,
            meminfo=None,
        )
        return result._getvalue()

    return view(matrix, types.intp, types.intp, types.intp), generate


def _memory(typing_context: Any, kind: Any, address: Any, size: Any) -> Any:
    """``size`` elements of a kind (such as ``np.float32``) at an address, as an array."""
    view = types.Array(kind.instance_type, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, address, size = arguments
        itemsize = context.get_constant(types.intp, view.dtype.bitwidth // 8)
        result = context.make_array(view)(context, builder)
        populate_array(
            result,
            data=builder.inttoptr(address, context.get_data_type(view.dtype).as_pointer()),
            shape=cgutils.pack_array(builder, [size]),
            strides=cgutils.pack_array(builder, [itemsize]),
            itemsize=itemsize,
            meminfo=None,
        )
        return result._getvalue()

    return view(kind, types.int64, types.intp), generate


def _pairs(typing_context: Any, array: Any) -> Any:
    """An array of uint16 as one of uint32, of half as many; an odd one out is left out."""
    view = types.Array(types.uint32, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = context.make_array(signature.args[0])(context, builder, arguments[0])
        size = builder.udiv(given.nitems, context.get_constant(types.intp, 2))
        result = context.make_array(view)(context, builder)
        populate_array(
            result,
            data=builder.bitcast(given.data, ir.IntType(32).as_pointer()),
            shape=cgutils.pack_array(builder, [size]),
            strides=cgutils.pack_array(builder, [context.get_constant(types.intp, 4)]),
            itemsize=context.get_constant(types.intp, 4),
            meminfo=None,
        )
        return result._getvalue()

    return view(array), generate


def _bits(typing_context: Any, x: Any) -> Any:
    """The bits of a float32, as an uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def _real(typing_context: Any, code: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


def _nothing(array: Any, index: Any) -> None:
    """In plain Python there are no cache lines to speak of."""


def _add(counter: Any, amount: int) -> int:
    """In plain Python there is one thread."""
    before = int(counter[0])
    counter[0] += amount
    return before


def _slice(matrix: Any, row: int, first: int, last: int) -> Any:
    """In plain Python views cost what they cost."""
    return matrix[row, first:last]


def _numpy(kind: Any, address: int, size: int) -> Any:
    """In plain Python NumPy has such views too."""
    bytes_ = ctypes.c_byte * (int(size) * np.dtype(kind).itemsize)
    return np.frombuffer(bytes_.from_address(int(address)), kind)


def _words(array: Any) -> Any:
    """In plain Python NumPy has such views too."""
    return array[: array.size // 2 * 2].view(np.uint32)


def _viewed(kind: Any) -> Any:
    """In plain Python NumPy's numbers are looked at as another type."""
    return lambda x: x.view(kind)


_disabled: bool = numba.config.DISABLE_JIT  # type: ignore[attr-defined]
prefetch: Any = _nothing if _disabled else intrinsic(_prefetch)
claim: Any = _add if _disabled else intrinsic(_claim)
part: Any = _slice if _disabled else intrinsic(_part)
memory: Any = _numpy if _disabled else intrinsic(_memory)
pairs: Any = _words if _disabled else intrinsic(_pairs)
bits: Any = _viewed(np.uint32) if _disabled else intrinsic(_bits)
real: Any = _viewed(np.float32) if _disabled else intrinsic(_real)
