"""How one parameter and its states are stored: formats, and tensors in ``optimizer.state``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from gpuadapt.kernels.array_types import HostArray
from gpuadapt.kernels.formats import (
    PLAIN,
    SHORT,
    Format,
    Formats,
    block_width,
    of_state,
)
from gpuadapt.kernels.language.rule import Rule

from ..arrays import PAGE, STAGGER
from ..errors import HyperparameterError, ParameterError, StateError
from ..state_formats import formats_of
from .recipes import Recipe
from .tensors import DTYPES, as_tensor, element_type, is_dense, real_view, same_order

COMPANIONS = {"master": "master_param", "low": "low_bits", "compensation": "compensation"}
"""By the name of a part of a parameter's format: its name in ``optimizer.state``."""

KEPT = {"float32": torch.float32, "float64": torch.float64, "uint8": torch.uint8}
"""By the dtype of a part in kernels: the dtype of its tensor; 16 bits depend on the format."""

LARGE = 2**16
"""Bytes from which a state begins at another offset in its page than its parameter."""

FORMATS = ("rounding", "master", "state_dtype", "rowwise")
"""The keywords that say how a parameter and its states are stored."""


class Kept(NamedTuple):
    """A state of a parameter, or the parameter itself without its own tensor."""

    letter: str
    form: Format
    names: tuple[str, ...]
    """The names of the tensors in ``optimizer.state``, one for each part."""
    nonnegative: bool = False
    """Whether it is never negative, which decides what 8 bits mean."""
    by_row: bool = False
    """Whether it has one number for each row."""


class Storage(NamedTuple):
    """How parameters of one group and element type are stored."""

    rule: Rule
    formats: Formats
    """With a gradient of the parameter's element type."""
    kept: tuple[Kept, ...]
    """What ``optimizer.state`` has, in the order of an `Operand`."""
    names: tuple[str, ...]
    """The names of all tensors in ``optimizer.state`` that kernels update, in this order."""
    plain: bool
    """Whether everything is stored as torch stores it."""


def storage_of(
    rule: Rule, recipe: Recipe, settings: Mapping[str, Any], parameter: Tensor, name: str
) -> Storage:
    """Return how a parameter and its states are stored.

    Parameters
    ----------
    rule : Rule
        With the options of its group.
    recipe : Recipe
    settings : mapping
        All keywords of `options.DEFAULTS`.
    parameter : Tensor
    name : str
        Its name, for errors.

    Raises
    ------
    ParameterError, HyperparameterError
    """
    dtype = element_type(parameter)
    if dtype is None:
        raise ParameterError(f"parameter {name!r}: got {parameter.dtype}, expected a float dtype")
    plain = all(settings[key] in (None, False, "nearest") for key in FORMATS)
    if parameter.is_complex() and not plain:
        given = [key for key in FORMATS if settings[key] not in (None, False, "nearest")]
        raise ParameterError(
            f"parameter {name!r}: {given[0]} is for real parameters, and it is {parameter.dtype}: "
            "put it into a group without this keyword"
        )
    formats = _formats(rule, recipe, settings, dtype, name)
    row_states = rule.rowwise.row_states if settings["rowwise"] else ()
    kept = []
    if parts := [part for part, _ in formats.parameter.parts[1:]]:
        names = tuple(COMPANIONS[part] for part in parts)
        kept.append(Kept("", formats.parameter, names))
    for letter, form in zip(rule.states, formats.states, strict=True):
        stem = recipe.names.get(letter, letter)
        names = (f"{stem}.codes", f"{stem}.scales") if form.block else (stem,)
        kept.append(Kept(letter, form, names, letter in rule.nonnegative, letter in row_states))
    rule = rule.rowwise if settings["rowwise"] else rule
    flat = tuple(one for each in kept for one in each.names)
    return Storage(rule, formats, tuple(kept), flat, plain)


def _formats(
    rule: Rule, recipe: Recipe, settings: Mapping[str, Any], dtype: str, name: str
) -> Formats:
    """The formats of a parameter and its states: by default those of torch."""
    wanted = settings["state_dtype"]
    if isinstance(wanted, Mapping):
        letters = {torch_name: letter for letter, torch_name in recipe.names.items()}
        known = [recipe.names.get(letter, letter) for letter in rule.states]
        for given in wanted:
            if given not in known:
                raise HyperparameterError(f"state_dtype: no state {given!r}, but {known}")
        wanted = {letters.get(given, given): kind for given, kind in wanted.items()}
    elif wanted is None and dtype in SHORT and settings["rounding"] != "nearest":
        wanted = dtype
    given = {key: settings[key] for key in ("rowwise", "master", "rounding")}
    formats = formats_of(rule, name, dtype, given | {"state_dtype": wanted}, {})
    if wanted is None and dtype in SHORT and settings["master"] is None:
        row_states = rule.rowwise.row_states if settings["rowwise"] else ()
        states = [
            form if letter in row_states else PLAIN[dtype]
            for letter, form in zip(rule.states, formats.states, strict=True)
        ]
        formats = formats._replace(states=tuple(states))
    return formats


def memory_shape(parameter: Tensor) -> tuple[int, ...]:
    """Return the shape by which blocks are cut: one row where the memory has another order."""
    shape = real_view(parameter).shape
    return tuple(shape) if parameter.is_contiguous() else (shape.numel(),)


def width_of(parameter: Tensor) -> int:
    """Return the elements of a row whose blocks are its own."""
    return block_width(memory_shape(parameter))


def completed(
    state: Mapping[str, Any], storage: Storage, parameter: Tensor, name: str
) -> dict[str, Tensor]:
    """Return the tensors of a parameter's state, those that are there already as they are.

    A state in another format is converted, and one that is missing begins at zero.

    Parameters
    ----------
    state : mapping
        What ``optimizer.state`` has for the parameter; it is not changed.
    storage : Storage
    parameter : Tensor
        The part of this process.
    name : str
        For errors.

    Raises
    ------
    StateError
        A tensor of the state has another shape.
    """
    found: dict[str, Tensor] = {}
    for number, kept in enumerate(storage.kept):
        there: list[Any] = [state.get(each) for each in kept.names]
        if all(map(_fits, there, _likenesses(kept, parameter))):
            found |= zip(kept.names, there, strict=True)
            continue
        numbers = _numbers(state, kept, parameter, name)
        if numbers is None and not (kept.form.copied and not kept.letter):
            offset = (number + 1) * STAGGER
            found |= zip(kept.names, _zeros(kept, parameter, offset), strict=True)
        else:
            found |= zip(kept.names, _encoded(kept, parameter, numbers), strict=True)
    return found


class Likeness(NamedTuple):
    """What a tensor of a state has to be."""

    dtype: torch.dtype
    shape: torch.Size
    like: Tensor | None
    """A tensor whose order of elements it has; None for C order."""


def _likenesses(kept: Kept, parameter: Tensor) -> list[Likeness]:
    """What the tensors of a state have to be."""
    form, parts = kept.form, kept.form.parts
    if kept.by_row:
        return [Likeness(DTYPES[form.dtype], parameter.shape[:1], None)]
    if not kept.letter:
        dtypes = [KEPT.get(dtype, parameter.dtype) for _, dtype in parts[1:]]
        if form.parts[1][0] == "low":
            dtypes = [torch.bfloat16]  # its bits: processes cannot send each other int16
        return [Likeness(dtype, parameter.shape, parameter) for dtype in dtypes]
    if not form.block:
        real = DTYPES[form.dtype]
        dtype = parameter.dtype if parameter.is_complex() else real
        return [Likeness(dtype, parameter.shape, parameter)]
    scales = torch.Size(form.shapes(memory_shape(parameter))[1])
    return [
        Likeness(torch.uint8, parameter.shape, parameter),
        Likeness(torch.float32, scales, None),
    ]


def _fits(tensor: Any, wanted: Likeness) -> bool:
    """Whether a tensor of a state can be updated where it lies."""
    if not isinstance(tensor, Tensor) or tensor.dtype != wanted.dtype:
        return False
    if tensor.shape != wanted.shape or tensor.is_neg() or tensor.is_conj():
        return False
    if wanted.like is None or not is_dense(wanted.like):
        return tensor.is_contiguous() or (wanted.like is not None and is_dense(tensor))
    return tensor.device == wanted.like.device and same_order(tensor, wanted.like)


def _zeros(kept: Kept, parameter: Tensor, offset: int) -> list[Tensor]:
    """New tensors of a state that is zero."""
    if kept.form.block:
        return _encoded(kept, parameter, None)
    return [
        _zeros_beside(parameter, one.dtype, offset)
        if one.like is not None
        else torch.zeros(one.shape, dtype=one.dtype, device=parameter.device)
        for one in _likenesses(kept, parameter)
    ]


def _zeros_beside(parameter: Tensor, dtype: torch.dtype, offset: int) -> Tensor:
    """Zeros like a parameter; large ones begin ``offset`` bytes after it, modulo a page."""
    count = parameter.numel()
    itemsize = torch.empty(0, dtype=dtype).element_size()
    large = count * itemsize >= LARGE and parameter.device.type == "cpu" and is_dense(parameter)
    if not large:
        return torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
    memory = torch.empty(count * itemsize + PAGE, dtype=torch.uint8)
    start = (parameter.data_ptr() + offset - memory.data_ptr()) % PAGE // itemsize * itemsize
    flat = memory[start : start + count * itemsize].view(dtype).zero_()
    return flat.as_strided(parameter.shape, parameter.stride(), flat.storage_offset())


def _numbers(
    state: Mapping[str, Any], kept: Kept, parameter: Tensor, name: str
) -> HostArray | None:
    """The numbers of a state in whatever format it is, in the order of the memory; else None."""
    stem = kept.names[0].removesuffix(".codes") if kept.letter else ""
    given, codes, scales = (state.get(f"{stem}{end}") for end in ("", ".codes", ".scales"))
    if not _is_float(given) and stem and isinstance(codes, Tensor) and _is_float(scales):
        given = _decoded(kept, codes, scales, name)
    if not _is_float(given):
        return None
    rows = parameter.shape[:1]
    if kept.by_row and given.shape in (rows, parameter.shape):
        # Of torch's state, such as the start of Adagrad's sum, a row's number is the mean.
        numbers = given.detach().cpu().double()
        if given.shape != rows:
            numbers = numbers.reshape(len(numbers), -1).mean(1)
        return numbers.numpy()
    if given.shape != parameter.shape:
        raise StateError(
            f"state {stem!r} of {name!r}: got shape {tuple(given.shape)}, expected "
            f"{tuple(rows if kept.by_row else parameter.shape)}"
        )
    return _in_memory_order(given, parameter)


def _is_float(given: Any) -> TypeGuard[Tensor]:
    """Whether a state is there, as a tensor of numbers that are not coded."""
    return isinstance(given, Tensor) and (given.is_floating_point() or given.is_complex())


def _decoded(kept: Kept, codes: Tensor, scales: Tensor, name: str) -> Tensor:
    """The numbers of a state in 8 bits, of the shape of its codes, whose order blocks have."""
    form = of_state("8bit", kept.nonnegative)
    wanted = tuple(form.shapes(memory_shape(codes))[1])
    if tuple(scales.shape) != wanted:
        raise StateError(
            f"state {kept.names[0]!r} of {name!r}: got scales of shape {tuple(scales.shape)} for "
            f"codes of shape {tuple(codes.shape)}, expected {wanted}"
        )
    numbers = form.decode([_in_memory_order(codes, codes), scales.detach().cpu().numpy()])
    return _laid_out(torch.from_numpy(numbers), codes)


def _in_memory_order(tensor: Tensor, like: Tensor) -> HostArray:
    """The elements of a tensor as an array, in the order that the memory of another one has."""
    copied = torch.empty_like(like, dtype=tensor.dtype, memory_format=torch.preserve_format)
    plain = real_view(copied.copy_(tensor)).cpu()
    if plain.is_floating_point() and plain.dtype != torch.float64:
        plain = plain.float()
    return torch.as_strided(plain, (plain.numel(),), (1,)).numpy().reshape(memory_shape(like))


def _laid_out(flat: Tensor, like: Tensor) -> Tensor:
    """A new tensor of another one's shape, whose memory has these elements in their order."""
    new = torch.empty_like(like, dtype=flat.dtype, memory_format=torch.preserve_format)
    torch.as_strided(new, (new.numel(),), (1,)).copy_(flat.reshape(-1))
    return new


def _encoded(kept: Kept, parameter: Tensor, numbers: HostArray | None) -> list[Tensor]:
    """New tensors of a state, or of a parameter's companions, that hold these numbers."""
    wanted = _likenesses(kept, parameter)
    if kept.by_row:
        assert numbers is not None, "a row's number is zero without an encoding"
        return [torch.from_numpy(numbers).to(parameter.device, wanted[0].dtype)]
    if not kept.letter:
        numbers = _in_memory_order(parameter, parameter)
    if numbers is None:
        numbers = np.zeros(memory_shape(parameter), np.float32)
    parts: Sequence[HostArray] = kept.form.encode(numbers)
    tensors = []
    for part, one in zip(parts if kept.letter else parts[1:], wanted, strict=True):
        real = real_view(torch.empty(0, dtype=one.dtype)).dtype
        flat = as_tensor(np.ascontiguousarray(part), real, parameter)
        if one.dtype != real:
            flat = torch.view_as_complex(flat.reshape(-1, 2))
        tensors.append(flat.reshape(one.shape) if one.like is None else _laid_out(flat, parameter))
    return tensors
