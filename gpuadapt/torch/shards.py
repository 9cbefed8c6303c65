"""Parameters of which each process holds a part: DTensors, as `fully_shard` makes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuadapt.kernels.formats import BLOCK, NARROW, STATES, block_width
from gpuadapt.kernels.numerics.overflow import CHECKS, Measured
from gpuadapt.kernels.numerics.summation import total

from ..errors import HyperparameterError
from .storage import Storage
from .tensors import local


class Cut(NamedTuple):
    """Between which processes a tensor is divided."""

    mesh: Any
    """A DeviceMesh."""
    dims: tuple[int, ...]
    """The dimensions of the mesh along which processes hold different parts."""


class Spot(NamedTuple):
    """Where kernels run, and with which other processes their gradients are measured."""

    device: torch.device
    cut: Cut | None


def cuts(parameter: Tensor) -> list[tuple[int, int]]:
    """Return (dimension of the mesh, dimension of the tensor) for each division of a tensor."""
    if local(parameter) is parameter:
        return []
    held: Any = parameter
    return [
        (k, placement.dim)
        for k, placement in enumerate(held.placements)
        if not placement.is_replicate() and held.device_mesh.size(k) > 1
    ]


def cut_of(parameter: Tensor) -> Cut | None:
    """Return between which processes a parameter is divided; None if this one has all of it."""
    along = tuple(k for k, _ in cuts(parameter))
    held: Any = parameter
    return Cut(held.device_mesh, along) if along else None


def unknown_placement(parameter: Tensor) -> str | None:
    """Return the first placement that is neither `Replicate` nor `Shard` of a dimension."""
    held: Any = parameter
    for placement in () if local(parameter) is parameter else held.placements:
        if not placement.is_replicate() and not isinstance(getattr(placement, "dim", None), int):
            return str(placement)
    return None


def part_name(name: str, parameter: Tensor) -> str:
    """Return a name for this process's part of a parameter, by which random bits are drawn."""
    held: Any = parameter
    along = [k for k, _ in cuts(parameter)]
    at = held.device_mesh.get_coordinate() if along else None
    numbers = [at[k] for k in along] if at else []
    return f"{name}@{numbers}" if any(numbers) else name


def check_parts(parameter: Tensor, storage: Storage, group: Mapping[str, Any], name: str) -> None:
    """Check that states do not depend on how many processes a parameter is divided between.

    Raises
    ------
    HyperparameterError
        Rows, or blocks of 8-bit elements, would be divided.
    """
    held: Any = parameter
    parts: dict[int, int] = {}
    for k, dim in cuts(parameter):
        parts[dim] = parts.get(dim, 1) * held.device_mesh.size(k)
    for dim, count in parts.items():
        given = f"parameter {name!r} of shape {tuple(parameter.shape)} is in {count} parts"
        if dim and (group["rowwise"] or group["max_row_norm"] is not None):
            raise HyperparameterError(
                f"{given} along dimension {dim}, so that no process has whole rows: leave out "
                "rowwise and max_row_norm for it, or divide it along dimension 0"
            )
        if not any(kept.form.block for kept in storage.kept):
            continue
        if not local(parameter).is_contiguous() or _divides_blocks(parameter, dim, count):
            raise HyperparameterError(
                f"{given}, which divide blocks of {BLOCK} elements that share a scale: its 8-bit "
                "states would depend on the number of processes. Put it into a group with another "
                f"state_dtype. (Blocks stay whole where rows have {NARROW} elements or more and "
                f"are divided along dimension 0, and in equal parts of a multiple of {BLOCK}.)"
            )


def _divides_blocks(parameter: Tensor, dim: int, parts: int) -> bool:
    """Whether equal parts along a dimension have other blocks than the whole."""
    shape = tuple(parameter.shape)
    first = 1 if _rows_have_blocks(shape) else 0
    if dim < first:
        return False
    piece = shape[dim] // parts * math.prod(shape[dim + 1 :])
    return dim > first or shape[dim] % parts != 0 or piece % BLOCK != 0


def _rows_have_blocks(shape: tuple[int, ...]) -> bool:
    """Whether no block has elements of two rows."""
    return len(shape) > 1 and block_width(shape) == math.prod(shape[1:]) >= NARROW


def like_parameter(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's part of a state as a DTensor, if its parameter is one.

    Parameters
    ----------
    tensor : Tensor
        Of the shape of the parameter's part; or one number for each of its rows; or the scales of
        its blocks. One number for all of the parameter stays what it is.
    parameter : Tensor
    """
    own = local(parameter)
    if own is parameter or not tensor.ndim:
        return tensor
    from torch.distributed.tensor import DTensor, Shard

    held: Any = parameter
    shape, placements = parameter.shape, held.placements
    if tensor.shape != own.shape and tensor.ndim == 1:
        shape = shape[:1]
    elif tensor.shape != own.shape:
        shape = torch.Size(STATES["8bit"].shapes(tuple(shape))[1])
        if not _rows_have_blocks(tuple(parameter.shape)):
            placements = [one if one.is_replicate() else Shard(1) for one in placements]
    stride = parameter.stride()
    if shape != parameter.shape:
        stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        tensor, held.device_mesh, placements, run_check=False, shape=shape, stride=stride
    )


def own_gradient(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return the part of a gradient that belongs to this process's part of the parameter."""
    if local(gradient) is gradient:
        return gradient
    given: Any = gradient
    held: Any = parameter
    if given.placements != held.placements:
        given = given.redistribute(placements=held.placements)
    return local(given)


def of_all_parts(found: Sequence[Measured], cut: Cut) -> Measured:
    """Return what the gradients of all parts measure; every process has to call this.

    Parameters
    ----------
    found : sequence of Measured
        Of the parts of this process, with NumPy arrays: one for each device that has any.
    cut : Cut

    Returns
    -------
    Measured
        The same on all processes.
    """
    import torch.distributed as dist

    numbers = np.zeros(1 + CHECKS)
    for one in found:
        sums, peaks = np.split(one.numbers, 2)
        numbers[0] += total(sums)
        for k, (first, last) in enumerate(pairwise((0, *one.ends)), 1):
            numbers[k] = peaks[first:last].max(initial=numbers[k])
    for dim in cut.dims:
        group = cut.mesh.get_group(dim)
        sent = torch.from_numpy(numbers).to(cut.mesh.device_type)
        received = [torch.empty_like(sent) for _ in range(cut.mesh.size(dim))]
        dist.all_gather(received, sent, group)
        table = torch.stack(received).cpu().numpy()
        numbers = np.array([total(table[:, 0]), *table[:, 1:].max(0)])
    sums = np.array([numbers[0], *[0.0] * (CHECKS - 1)])
    return Measured(np.concatenate([sums, numbers[1:]]), tuple(range(1, 1 + CHECKS)))
