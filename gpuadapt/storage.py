"""How a parameter and its states are kept: formats, by settings, and memory for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuadapt.kernels.formats import (
    MASTERS,
    NONNEGATIVE,
    PLAIN,
    ROUNDINGS,
    SHORT,
    SIGNED8,
    STATES,
    UNSIGNED8,
    Format,
    Formats,
    blocks,
)
from gpuadapt.kernels.language.caching import cached_with_rule
from gpuadapt.kernels.language.precision import Need, needs, not_of_gradients_size
from gpuadapt.kernels.language.rule import Rule

from .arrays import (
    SmallArrayArena,
    backend_of,
    bits_of,
    copy_into,
    dtype_name,
    namespace,
    new_zeros,
    numpy_dtype,
    on_device,
    to_host,
    zeros_like,
)
from .errors import HyperparameterError, ParameterError, RowIndexError
from .hyperparameters import INTERVALS
from .oracle import check_nonnegative
from .pages import touch_all
from .quantized import Quantized

NARROW = 8
"""Elements of a row from which it has scales of its own: for fewer they would cost more than
16 bits take, so that blocks go on through the whole array."""


def formats_of(
    rule: Rule, name: str, kind: str, settings: Mapping[str, Any], initial: Mapping[str, Any]
) -> Formats:
    """The formats of a parameter of an element type, with a gradient of that type too.

    Raises
    ------
    HyperparameterError, ParameterError
    """
    compute = "float64" if kind == "float64" else "float32"
    by_row = rule.rowwise.row_states if settings["rowwise"] else ()
    wanted = settings["state_dtype"]
    kinds = dict.fromkeys(rule.states, compute)
    if isinstance(wanted, Mapping):
        kinds |= {state: kept for state, kept in wanted.items() if kept is not None}
    elif wanted is not None:
        kinds |= {s: _as_kept(rule, s, wanted, compute) for s in rule.states if s not in by_row}
    if wanted is not None:
        check_nonnegative(rule)
    states = []
    for state, kept in kinds.items():
        if state in by_row and kept != compute:
            raise HyperparameterError(
                f"state_dtype: {state!r} has one number for each row, in {compute}"
            )
        if kept == "float64" and compute != "float64":
            raise HyperparameterError(
                f"state_dtype: got 'float64' for {state!r} of {name!r}, whose arithmetic is float32"
            )
        _check_need(rule, state, kept, compute)
        start = initial.get(state, 0.0)
        if state in rule.nonnegative and isinstance(start, float) and start < 0:
            raise HyperparameterError(
                f"initial {state}: got {start!r}, expected a number >= 0: "
                f"{rule.name!r} declares that {state!r} is never negative"
            )
        states.append((STATES | (NONNEGATIVE if state in rule.nonnegative else {}))[kept])
    return Formats(compute, _parameter(name, kind, settings), PLAIN[kind], tuple(states))


BITS = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16, "8bit": 8}


def _as_kept(rule: Rule, state: str, wanted: str, compute: str) -> str:
    """How a state is kept if all are to be kept in some way: wider, where it has to be."""
    need = _needs(rule).get(state)
    if need is not None and need.bits == 32 and BITS[wanted] < BITS[compute]:
        return compute
    if need is not None and BITS[wanted] < need.bits:
        return "bfloat16"
    return "bfloat16" if wanted == "float16" and state in _other_sizes(rule) else wanted


def _check_need(rule: Rule, state: str, kept: str, compute: str) -> None:
    """Raise `HyperparameterError` if a state may not be kept in some way."""
    need = _needs(rule).get(state)
    if need is None or BITS[kept] >= BITS[compute]:
        return
    allowed = compute if need.bits == 32 else "bfloat16" if need.bits == 16 else "bfloat16 or 8bit"
    if BITS[kept] < need.bits or need.bits == 32 or kept == "float16":
        raise HyperparameterError(
            f"state_dtype: got {kept!r} for {state!r} of {rule.name!r}, which takes {allowed}: "
            f"{need.reason}"
        )


@cached_with_rule
def _needs(rule: Rule) -> Mapping[str, Need]:
    return needs(rule.program, INTERVALS)


@cached_with_rule
def _other_sizes(rule: Rule) -> frozenset[str]:
    return not_of_gradients_size(rule.program, INTERVALS)


def _parameter(name: str, kind: str, settings: Mapping[str, Any]) -> Format:
    """The format of a parameter; types of 32 and 64 bits need no help."""
    master, rounding = settings["master"], settings["rounding"]
    if kind not in SHORT:
        return PLAIN[kind]
    if master is not None:
        if kind not in MASTERS[master]:
            raise ParameterError(
                f"parameter {name!r}: {kind} is no half of a float32, master='split' is for "
                "bfloat16; master='float32' keeps a copy"
            )
        return MASTERS[master][kind]
    return ROUNDINGS[rounding][kind]


def key_of(seed: int, name: str) -> int:
    """64 bits for a parameter, whatever its place among others."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def width_of(shape: tuple[int, ...]) -> int:
    """Elements of a row, if rows have scales of their own, otherwise of the whole array."""
    size = int(np.prod(shape, dtype=np.int64))
    row = int(np.prod(shape[1:], dtype=np.int64))
    return row if len(shape) > 1 and row >= NARROW else size


def scales_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Of a quantized state's scales: how many rows have their own, and how many each."""
    width, size = width_of(shape), int(np.prod(shape, dtype=np.int64))
    return (size // width if size else 0), blocks(width)


def companions(array: Any, form: Format) -> dict[str, Any]:
    """What is kept beside a parameter, by name: of what 16 bits leave out, none yet."""
    found = {part: new_zeros(array.shape, np.dtype(dtype), array) for part, dtype in form.parts[1:]}
    if "master" in found:
        touch_all(found["master"])
        copy_into(found["master"], decoded(array))
    return found


def _names(form: Format) -> dict[str, Any]:
    """What the texts of a format call."""
    names: dict[str, Any] = {conversion.name: conversion for conversion in form.conversions}
    return names | {"U": lambda x: x.astype(np.uint32), "S": np.float32, "D": np.float64}


def loaded(form: Format, parts: Sequence[Any]) -> np.ndarray:
    """What a rule sees of arrays in a format without blocks, as NumPy's float32 or float64."""
    names = _names(form)
    names |= {f"part{k}": to_host(bits_of(part)) for k, part in enumerate(parts)}
    text = form.load.format(*(f"part{k}" for k in range(len(parts))))
    numbers: np.ndarray = np.asarray(eval(text, names))  # noqa: S307
    return numbers


def stored(form: Format, numbers: np.ndarray) -> list[np.ndarray]:
    """What each part of a format without blocks holds of numbers, rounded to the nearest."""
    names = _names(form) | {"x": numbers, "half": np.uint32(0x8000)}
    with np.errstate(over="ignore"):
        return [
            np.asarray(eval(text.format(x="x", r16="half"), names)).astype(dtype)  # noqa: S307
            for text, (_, dtype) in zip(form.store, form.parts, strict=True)
        ]


def put(arrays: Sequence[Any], parts: Sequence[np.ndarray]) -> None:
    """Write what `stored` returned into the arrays of the format."""
    touch_all(*arrays)
    for array, part in zip(arrays, parts, strict=True):
        copy_into(array, part)


def decoded(array: Any) -> np.ndarray:
    """An array's or a quantized state's numbers, as NumPy's float32 or float64."""
    if isinstance(array, Quantized):
        return array.decoded()
    return loaded(PLAIN[dtype_name(array) or ""], [array])


def new_state(
    form: Format, array: Any, backend: str, order: str, memory: SmallArrayArena, number: int
) -> Any:
    """Memory for a state, zeros: an array or `Quantized`."""
    if not form.block:
        return zeros_like(
            array, backend, numpy_dtype(element(form), backend), order, memory, number
        )
    codes = zeros_like(array, backend, np.dtype(np.uint8), "C", memory, number)
    scales = new_zeros(scales_shape(array.shape), np.dtype(np.float32), array)
    made = Quantized(codes, scales, form == SIGNED8)
    fill(made, 0.0)
    return made


def taken(table: Any, rows: Any, skip: bool) -> Any:
    """A table's rows, in a new array; zeros for those out of range.

    Raises
    ------
    RowIndexError
        A row is out of range, and they are not to be skipped.
    """
    xp = namespace(backend_of(table) or "cpu")
    wrong = (rows < 0) | (rows >= len(table))
    if not skip and bool(wrong.any()):
        at = int(wrong.argmax())
        raise RowIndexError.of(int(rows[at]), at, len(table))
    found = xp.zeros((len(rows), *table.shape[1:]), table.dtype)
    if len(table):
        found[...] = table[xp.where(wrong, 0, rows)]
        bits_of(found)[wrong] = 0
    return found


def element(form: Format) -> str:
    """The element type of a format's first array, as users see it."""
    return form.name.split(",")[0]


def fill(state: Any, value: float) -> None:
    """Make every element of an array or a quantized state a number.

    Raises
    ------
    HyperparameterError
        It is another number in the array's element type, infinite or zero.
    """
    kind = "float32" if isinstance(state, Quantized) else dtype_name(state) or ""
    code, kept = value, value
    with np.errstate(over="ignore"):
        if kind in SHORT:
            (stored_,) = stored(PLAIN[kind], np.array(value, np.float32))
            code, kept = int(stored_), float(loaded(PLAIN[kind], [stored_]))
        else:
            kept = float(np.dtype(kind).type(value))
    if isinstance(state, Quantized):
        kind = "8bit"
        scale, code, kept = _encoded(SIGNED8 if state.signed else UNSIGNED8, kept)
    # Half a unit of the last place of 8 bits, and none of what is there becomes zero.
    if not abs(kept - value) <= abs(value) / 16:
        raise HyperparameterError(f"{value!r} does not fit in {kind}")
    if not isinstance(state, Quantized):
        touch_all(state)
        with on_device(state):
            bits_of(state).fill(code)
        return
    touch_all(state.scales)
    with on_device(state.codes):
        state.scales.fill(scale)
        if code:  # zeros are memory that nobody has touched yet
            touch_all(state.codes)
            state.codes.fill(code)


def _encoded(form: Format, value: float) -> tuple[float, int, float]:
    """The scale and the code of a block of equal numbers, and what the code stands for."""
    x, half = np.float32(value), np.uint32(2**31)
    scale = form.part("scale")(np.abs(x).view(np.uint32))
    base = form.part("base")(scale)
    code = form.part("random")(x, base, half)
    kept = form.part("load")(np.uint32(code), base)
    return float(scale), int(code), float(kept)


def arrays_of(states: Mapping[str, Any]) -> dict[str, Any]:
    """States by name, quantized ones as two arrays."""
    found: dict[str, Any] = {}
    for name, one in states.items():
        if isinstance(one, Quantized):
            found |= {f"{name}.codes": one.codes, f"{name}.scales": one.scales}
        else:
            found[name] = one
    return found


def memory_of(parameter: Any, beside: Mapping[str, Any], states: Mapping[str, Any]) -> list[Any]:
    """The arrays of an `Operand`, as kernels see them."""
    return [bits_of(array) for array in (parameter, *arrays_of({**beside, **states}).values())]
