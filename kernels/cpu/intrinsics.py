"""What Numba lacks: `fork`, `prefetch`, `claim`, views (`borrowed`, `part`, `memory`, `pairs`),
`bits`, `real`, `tiny`, the modes of a thread's floating-point arithmetic (`default_modes`,
`restore_modes`, `opaque`) and `call_address`.
"""

from __future__ import annotations

import ctypes
import platform
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

I32, I64 = ir.IntType(32), ir.IntType(64)

FAILURES = 2
"""The position in a task of `_fork` of the number of parts that have failed."""

MODES = {
    **dict.fromkeys(
        ("x86_64", "AMD64"), ("llvm.x86.sse.stmxcsr", "llvm.x86.sse.ldmxcsr", 32, 0x1F80, 0x3F)
    ),
    **dict.fromkeys(
        ("aarch64", "arm64", "ARM64"), ("llvm.aarch64.get.fpcr", "llvm.aarch64.set.fpcr", 64, 0, 0)
    ),
}.get(platform.machine())
"""How LLVM reads and writes the register with the modes, its bits, what they are by default (round
to nearest, subnormal numbers kept, no traps), and which are not modes; None if it is not known."""


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


def _borrowed(typing_context: Any, array: Any) -> Any:
    """The array without owning it: its references are not counted."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = context.make_array(array)(context, builder, arguments[0])
        result = context.make_array(array)(context, builder)
        populate_array(
            result,
            data=given.data,
            shape=given.shape,
            strides=given.strides,
            itemsize=given.itemsize,
            meminfo=None,
        )
        return result._getvalue()

    return array(array), generate


def _keep(typing_context: Any, owner: Any) -> Any:
    """Do nothing: Numba frees the arrays of ``owner`` after this, their last use."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.void(owner), generate


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


def _fork(
    typing_context: Any, body: Any, arguments: Any, parts: Any, threads: Any, pool: Any
) -> Any:
    """Call ``body(part, *arguments)`` for each part, in the default modes, in threads of a pool.

    ``pool`` is 0 for the calling thread alone. Otherwise it is the address of a function with the
    signature of GNU OpenMP's ``GOMP_parallel(void (*function)(void *), void *data, unsigned
    threads, unsigned flags)``, which calls ``function(data)`` in that many threads. Each of them
    takes parts until none is left: all parts are done in however many threads the pool gives.
    """
    called = body.get_call_type(typing_context, (types.intp, *arguments.types), {})

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _, values, parts, threads, pool = given
        kind = ir.LiteralStructType([I64, I64, I64, context.get_value_type(arguments)])
        task = cgutils.alloca_once(builder, kind)
        for k, value in enumerate([I64(0), parts, I64(0), values]):
            builder.store(value, cgutils.gep_inbounds(builder, task, 0, k))
        compiled = body.dispatcher.get_compile_result(called)
        context.add_linking_libs([compiled.library])
        function = _part_taker(context, builder.module, kind, compiled.fndesc, called)
        data = builder.bitcast(task, cgutils.voidptr_t)
        with builder.if_else(builder.icmp_unsigned("==", pool, I64(0))) as (alone, shared):
            with alone:
                builder.call(function, [data])
            with shared:
                enter = builder.inttoptr(pool, _enter_type(function.type).as_pointer())
                builder.call(enter, [function, data, builder.trunc(threads, I32), I32(0)])
        failures = builder.load(cgutils.gep_inbounds(builder, task, 0, FAILURES))
        with cgutils.if_unlikely(builder, builder.icmp_unsigned("!=", failures, I64(0))):
            message = "no memory is left for a thread of a kernel"
            context.call_conv.return_user_exc(builder, MemoryError, (message,))
        return context.get_dummy_value()

    return types.void(body, arguments, types.int64, types.int64, types.int64), generate


def _enter_type(function: Any) -> Any:
    """The type of ``GOMP_parallel`` for a pointer to a function."""
    return ir.FunctionType(ir.VoidType(), [function, cgutils.voidptr_t, I32, I32])


def _part_taker(context: Any, module: Any, kind: Any, body: Any, called: Any) -> Any:
    """The C function that takes parts of a task of `_fork` and calls the body for each.

    It is not inlined where the calling thread is alone: whatever number of threads there is, the
    same machine code runs, and the numbers that it computes with are loaded in default modes.
    """
    type_ = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t])
    function = ir.Function(module, type_, module.get_unique_name("take_parts"))
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    task = builder.bitcast(function.args[0], kind.as_pointer())
    claimed, parts, failures, arguments = (
        cgutils.gep_inbounds(builder, task, 0, k) for k in range(len(kind))
    )
    before = _enter_modes(builder)
    count, values = builder.load(parts), builder.load(arguments)
    given = [builder.extract_value(values, k) for k in range(len(called.args) - 1)]
    take, work, end = (function.append_basic_block(name) for name in ("take", "work", "end"))
    builder.branch(take)
    builder.position_at_end(take)
    part = builder.atomic_rmw("add", claimed, I64(1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", part, count), work, end)
    builder.position_at_end(work)
    status, _ = context.call_internal_no_propagate(builder, body, called, [part, *given])
    with cgutils.if_unlikely(builder, status.is_error):  # a failed allocation; nothing is raised
        builder.atomic_rmw("add", failures, I64(1), "monotonic")
    builder.branch(take)
    builder.position_at_end(end)
    _leave_modes(builder, before)
    builder.ret_void()
    return function


def _call_address(typing_context: Any, function: Any, data: Any) -> Any:
    """Call the C function ``void (*)(void *)`` at an address with another address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t])
        called = builder.inttoptr(arguments[0], kind.as_pointer())
        builder.call(called, [builder.inttoptr(arguments[1], cgutils.voidptr_t)])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


def _default_modes(typing_context: Any) -> Any:
    """Set the default modes of this thread's arithmetic; returns what `restore_modes` takes.

    LLVM takes arithmetic for the same in all modes, but moves no load and no store across this. So
    numbers have to be loaded after it, or pass through `opaque`, and results have to be in memory
    before the modes are restored.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _enter_modes(builder)

    return types.uint64(), generate


def _restore_modes(typing_context: Any, modes: Any) -> Any:
    """Set the modes that were there before `default_modes`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _leave_modes(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


def _opaque(typing_context: Any, x: Any) -> Any:
    """A number that is not known to the compiler before this place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = cgutils.alloca_once_value(builder, arguments[0])
        _no_access_across(builder, place)
        return builder.load(place)

    return x(x), generate


def _enter_modes(builder: Any) -> Any:
    if MODES is None:
        return I64(0)
    width, default = MODES[2:4]
    before = _read_modes(builder)
    with builder.if_then(_unusual(builder, before), likely=False):
        _write_modes(builder, ir.IntType(width)(default))
    _no_access_across(builder)
    return builder.zext(before, I64) if width < 64 else before


def _leave_modes(builder: Any, before: Any) -> None:
    if MODES is None:
        return
    width = MODES[2]
    before = builder.trunc(before, ir.IntType(width)) if width < 64 else before
    _no_access_across(builder)
    with builder.if_then(_unusual(builder, before), likely=False):
        _write_modes(builder, before)


def _unusual(builder: Any, modes: Any) -> Any:
    assert MODES is not None
    _, _, width, default, other = MODES
    kept = builder.and_(modes, ir.IntType(width)(~other & (2**width - 1)))
    return builder.icmp_unsigned("!=", kept, ir.IntType(width)(default))


def _read_modes(builder: Any) -> Any:
    assert MODES is not None
    read, _, width, _, _ = MODES
    integer = ir.IntType(width)
    if width == 64:
        return builder.call(_declared(builder, ir.FunctionType(integer, []), read), [])
    place = cgutils.alloca_once(builder, integer)
    address = builder.bitcast(place, cgutils.voidptr_t)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t])
    builder.call(_declared(builder, kind, read), [address])
    return builder.load(place)


def _write_modes(builder: Any, modes: Any) -> None:
    assert MODES is not None
    _, write, width, _, _ = MODES
    given = modes
    if width == 32:
        place = cgutils.alloca_once(builder, ir.IntType(width))
        builder.store(modes, place)
        given = builder.bitcast(place, cgutils.voidptr_t)
    builder.call(_declared(builder, ir.FunctionType(ir.VoidType(), [given.type]), write), [given])


def _declared(builder: Any, kind: Any, name: str) -> Any:
    get: Any = cgutils.get_or_insert_function
    return get(builder.module, kind, name)


def _no_access_across(builder: Any, *places: Any) -> None:
    """No load and no store is moved across here; ``places`` may be changed here."""
    kind = ir.FunctionType(ir.VoidType(), [place.type for place in places])
    constraints = ",".join([*("r" for _ in places), "~{memory}"])
    builder.call(ir.InlineAsm(kind, "", constraints, side_effect=True), places)


def _tiny(typing_context: Any, x: Any) -> Any:
    """Whether a number's magnitude is below the smallest normal one: its exponent is zero.

    One instruction tests these bits, where a comparison of magnitudes takes two.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        width, mask = (32, 0x7F800000) if x == types.float32 else (64, 0x7FF0000000000000)
        kind = ir.IntType(width)
        exponent = builder.and_(builder.bitcast(arguments[0], kind), kind(mask))
        return builder.icmp_unsigned("==", exponent, kind(0))

    return types.boolean(x), generate


def _in_turn(body: Any, arguments: Any, parts: int, threads: int, pool: int) -> None:
    """In plain Python parts follow each other; NumPy warns where a kernel does not."""
    with np.errstate(all="ignore"):
        for part in range(parts):
            body(np.intp(part), *arguments)


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


def _no_modes(*modes: Any) -> int:
    """In plain Python the modes are the caller's."""
    return 0


def _itself(x: Any) -> Any:
    """In plain Python there is no compiler to hide it from."""
    return x


def _below(x: Any) -> bool:
    """In plain Python NumPy knows the smallest normal number."""
    return bool(np.abs(x) < np.finfo(x.dtype).tiny)


def _viewed(kind: Any) -> Any:
    """In plain Python NumPy's numbers are looked at as another type."""
    return lambda x: x.view(kind)


_disabled: bool = numba.config.DISABLE_JIT  # type: ignore[attr-defined]
fork: Any = _in_turn if _disabled else intrinsic(_fork)
call_address: Any = intrinsic(_call_address)
prefetch: Any = _nothing if _disabled else intrinsic(_prefetch)
claim: Any = _add if _disabled else intrinsic(_claim)
borrowed: Any = _itself if _disabled else intrinsic(_borrowed)
keep: Any = _itself if _disabled else intrinsic(_keep)
part: Any = _slice if _disabled else intrinsic(_part)
memory: Any = _numpy if _disabled else intrinsic(_memory)
pairs: Any = _words if _disabled else intrinsic(_pairs)
bits: Any = _viewed(np.uint32) if _disabled else intrinsic(_bits)
real: Any = _viewed(np.float32) if _disabled else intrinsic(_real)
tiny: Any = _below if _disabled else intrinsic(_tiny)
default_modes: Any = _no_modes if _disabled else intrinsic(_default_modes)
restore_modes: Any = _no_modes if _disabled else intrinsic(_restore_modes)
opaque: Any = _itself if _disabled else intrinsic(_opaque)
