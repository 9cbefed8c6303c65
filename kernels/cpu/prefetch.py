"""`prefetch`: ask for a cache line that will be needed soon."""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

READ, KEEP, DATA = 0, 3, 1
"""Arguments of LLVM's prefetch: not for writing alone, into every cache level, not code."""


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Fetch the line of ``array[index]``; an index beyond the end is harmless."""

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


def _nothing(array: Any, index: Any) -> None:
    """In plain Python there are no cache lines to speak of."""


_disabled: bool = numba.config.DISABLE_JIT  # type: ignore[attr-defined]
prefetch: Any = _nothing if _disabled else intrinsic(_prefetch)
