"""Formats of a parameter and its states by an optimizer's settings, and arrays in these formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.averaging import AverageRule
from gpuadapt.kernels.formats import (
    BITS,
    MASTERS,
    PLAIN,
    ROUNDINGS,
    SHORT,
    STATES,
    Format,
    Formats,
    Quantized,
    of_state,
)
from gpuadapt.kernels.language.caching import cached_with_rule
from gpuadapt.kernels.language.powers import not_of_gradients_size
from gpuadapt.kernels.language.precision import Need, needs
from gpuadapt.kernels.language.rule import Rule

from .arrays import (
    SmallArrayArena,
    bits_of,
    copy_into,
    dtype_name,
    new_zeros,
    on_device,
    zeros_like,
)
from .errors import HyperparameterError, ParameterError
from .hyperparameters import INTERVALS
from .oracle import check_nonnegative
from .pages import touch_all


class StateStorage(NamedTuple):
    """How a state of many parameters is stored."""

    letter: str
    """The rule's letter of the state."""
    form: Format
    dtype: np.dtype
    """Of its first array."""
    by_row: bool
    """True if it has one number for each row."""


class Storage(NamedTuple):
    """How parameters of one group, backend and element type are stored, and their states."""

    dtype_name: str
    formats: Formats
    """The formats with a gradient of the parameter's dtype."""
    compute_dtype: np.dtype
    random: bool
    """True if random bits are drawn."""
    block: bool
    """True if blocks of elements share scales."""
    plain: bool
    """True if kernels take the arrays of parameter and states as they are, and no others."""
    states: tuple[StateStorage, ...]
    average: AverageRule | None
    """The average, which is the last state, if the rule keeps one."""


def storage_of(
    rule: Rule,
    name: str,
    dtype: str,
    backend: str,
    settings: Mapping[str, Any],
    initial: Mapping[str, Any],
) -> Storage:
    """Return the storage of a parameter with this name and element type.

    Parameters
    ----------
    rule, name, dtype, settings, initial
        See `formats_of`.
    backend : {"cpu", "cuda"}

    Raises
    ------
    HyperparameterError, ParameterError
        See `formats_of`.
    """
    formats = formats_of(rule, name, dtype, settings, initial)
    compute_dtype = np.dtype(formats.compute)
    row_states = rule.rowwise.row_states if settings["rowwise"] else ()
    states = []
    for letter, form in zip(rule.states, formats.states, strict=True):
        by_row = letter in row_states
        state_dtype = compute_dtype if by_row else form.array_dtype(backend)
        states.append(StateStorage(letter, form, state_dtype, by_row))
    parts = [name for name, _ in formats.parameter.parts[1:]]
    if taken := {*rule.states} & {"updates", *parts}:
        raise ParameterError(
            f"parameter {name!r}: the rule has a state {min(taken)!r} itself, which a snapshot "
            "has beside the states: give the state another name"
        )
    block = formats.block
    plain = formats.itemsize > max(BITS) and all(len(one.parts) == 1 for one in formats.updated)
    average = rule.averaged[1] if rule.averaged else None
    return Storage(
        dtype, formats, compute_dtype, formats.random, block, plain, tuple(states), average
    )


def formats_of(
    rule: Rule, name: str, dtype: str, settings: Mapping[str, Any], initial: Mapping[str, Any]
) -> Formats:
    """Return the formats of a parameter, of its states and of a gradient of the parameter's dtype.

    Parameters
    ----------
    rule : Rule
    name, dtype : str
        The parameter's name and the name of its element type.
    settings : mapping
        The settings of its group.
    initial : mapping of str to float or Start
        Values of states before the first step.

    Raises
    ------
    HyperparameterError
        A state cannot be in its format, or cannot start from its value.
    ParameterError
        The parameter's dtype has no such master.
    """
    compute = "float64" if dtype == "float64" else "float32"
    row_states = rule.rowwise.row_states if settings["rowwise"] else ()
    base, wanted = rule.without_average, settings["state_dtype"]
    chosen = dict.fromkeys(rule.states, compute)
    if isinstance(wanted, Mapping):
        chosen |= {state: kept for state, kept in wanted.items() if kept is not None}
    elif wanted is not None:
        # An average stays in the compute type.
        elementwise = [state for state in base.states if state not in row_states]
        chosen |= {state: _wide_enough(base, state, wanted, compute) for state in elementwise}
    if wanted is not None:
        check_nonnegative(rule)
    states = []
    for state, kept in chosen.items():
        if state in row_states and kept != compute:
            raise HyperparameterError(
                f"state_dtype: {state!r} has one number for each row, in {compute}"
            )
        if kept != compute and state not in base.states:
            raise HyperparameterError(
                f"state_dtype: got {kept!r} for the average of {name!r}, which is kept in {compute}"
            )
        if kept == "float64" and compute != "float64":
            raise HyperparameterError(
                f"state_dtype: got 'float64' for {state!r} of {name!r}, whose arithmetic is float32"
            )
        _check_need(base, state, kept, compute)
        start = initial.get(state, 0.0)
        if state in rule.nonnegative and isinstance(start, float) and start < 0:
            raise HyperparameterError(
                f"initial {state}: got {start!r}, expected a number >= 0: "
                f"{rule.name!r} declares that {state!r} is never negative"
            )
        states.append(of_state(kept, state in rule.nonnegative))
    return Formats(compute, _parameter_format(name, dtype, settings), PLAIN[dtype], tuple(states))


def _wide_enough(rule: Rule, state: str, wanted: str, compute: str) -> str:
    """Return the format for a state if all states are wanted in one: wider where it has to be."""
    need, bits = _needs(rule).get(state), STATES[wanted].bits
    if need is not None and need.bits == 32 and bits < STATES[compute].bits:
        return compute
    if need is not None and bits < need.bits:
        return "bfloat16"
    return "bfloat16" if STATES[wanted].narrow and state in _other_sizes(rule) else wanted


def _check_need(rule: Rule, state: str, kept: str, compute: str) -> None:
    """Raise `HyperparameterError` if a state may not be in a format."""
    need, chosen = _needs(rule).get(state), STATES[kept]
    if need is None or chosen.bits >= STATES[compute].bits:
        return
    allowed = compute if need.bits == 32 else "bfloat16" if need.bits == 16 else "bfloat16 or 8bit"
    if chosen.bits < need.bits or need.bits == 32 or chosen.narrow:
        raise HyperparameterError(
            f"state_dtype: got {kept!r} for {state!r} of {rule.name!r}, which takes {allowed}: "
            f"{need.reason}"
        )


@cached_with_rule
def _needs(rule: Rule) -> Mapping[str, Need]:
    return needs(rule.program, INTERVALS)


@cached_with_rule
def _other_sizes(rule: Rule) -> frozenset[str]:
    return not_of_gradients_size(rule.program)


def _parameter_format(name: str, dtype: str, settings: Mapping[str, Any]) -> Format:
    """Return the format of a parameter: master and rounding are for 16 bits alone."""
    if dtype not in SHORT:
        return PLAIN[dtype]
    if settings["master"] is None:
        return ROUNDINGS[settings["rounding"]][dtype]
    formats = MASTERS[settings["master"]]
    if dtype not in formats:
        raise ParameterError(
            f"parameter {name!r}: {dtype} is no half of a float32, master='split' is for "
            "bfloat16; master='float32' keeps a copy"
        )
    return formats[dtype]


def new_state(
    kept: StateStorage,
    parameter: Array,
    backend: str,
    order: str,
    memory: SmallArrayArena,
    beside: int,
) -> Any:
    """Return zeros in the format of a state.

    Parameters
    ----------
    kept : StateStorage
    parameter : array
        Its shape is the state's; its device is where the state lies.
    backend : str
    order : {"C", "K"}
        The order of elements in memory: C's or the parameter's.
    memory : SmallArrayArena
    beside : int
        On the CPU an address, whose offset in its page or cache line the state's has.

    Returns
    -------
    array or Quantized
    """
    if kept.by_row:
        return new_zeros(parameter.shape[:1], kept.dtype, parameter)
    form = kept.form
    first = zeros_like(parameter, backend, kept.dtype, order, memory, beside)
    if len(form.parts) == 1:
        return first
    state = form.view([first, *_other_parts(form, parameter)])
    fill(form, state, 0.0)
    return state


def _other_parts(form: Format, parameter: Array) -> list[Array]:
    """Return zeros of the shapes of a format's parts after the first."""
    return [
        new_zeros(shape, np.dtype(dtype), parameter)
        for shape, (_, dtype) in zip(form.shapes(parameter.shape)[1:], form.parts[1:], strict=True)
    ]


def new_companions(form: Format, parameter: Array) -> dict[str, Array]:
    """Return what a format has beside a parameter's own array, by the names of its parts."""
    if len(form.parts) == 1:
        return {}
    arrays = _other_parts(form, parameter)
    if form.copied:
        write(arrays, form.encode(decoded(parameter))[1:])
    return {name: array for (name, _), array in zip(form.parts[1:], arrays, strict=True)}


def write(arrays: Sequence[Array], elements: Sequence[HostArray]) -> None:
    """Copy what `Format.encode` returned into the arrays of a format."""
    touch_all(*arrays)
    for array, part in zip(arrays, elements, strict=True):
        copy_into(array, part)


def fill(form: Format, state: Any, value: float) -> None:
    """Make every element of a new state a number.

    Raises
    ------
    HyperparameterError
        The format has no number within 1/16 of it.
    """
    for array, element in zip(parts_of(state), _elements(form, value), strict=True):
        if element != 0:  # zeros are memory that nobody has touched yet
            touch_all(array)
            with on_device(array):
                bits_of(array).fill(element)


@lru_cache
def _elements(form: Format, value: float) -> tuple[Any, ...]:
    """Return the element of each part of a format that stores a number."""
    elements = form.encode(np.array([value]))
    held = float(form.decode(elements)[0])
    # Half a unit of the last place of 8 bits; no other number becomes zero.
    if not abs(held - value) <= abs(value) / 16:
        raise HyperparameterError(f"{value!r} does not fit in {form.dtype}")
    return tuple(part.flat[0] for part in elements)


def decoded(array: Any) -> HostArray:
    """Return the numbers of an array or a `Quantized`, as NumPy's float32 or float64."""
    if isinstance(array, Quantized):
        return array.decoded()
    return PLAIN[dtype_name(array) or ""].decode([array])


def parts_of(state: Any) -> list[Array]:
    """Return the arrays of a state: of a `Quantized` codes and scales."""
    return [state.codes, state.scales] if isinstance(state, Quantized) else [state]


def arrays_of(states: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays of states by name: of a `Quantized` ``m`` "m.codes" and "m.scales"."""
    found: dict[str, Array] = {}
    for name, state in states.items():
        if isinstance(state, Quantized):
            found[f"{name}.codes"], found[f"{name}.scales"] = state.codes, state.scales
        else:
            found[name] = state
    return found


def operand_arrays(
    parameter: Array, companions: Mapping[str, Array], states: Mapping[str, Any]
) -> list[Array]:
    """Return the arrays of an `Operand`, as kernels see them."""
    return [bits_of(a) for a in (parameter, *arrays_of({**companions, **states}).values())]
