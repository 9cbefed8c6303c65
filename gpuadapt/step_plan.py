"""The records of a step: its gradients, its launches, and the plan that both follow."""

from __future__ import annotations

from typing import Any, NamedTuple

from gpuadapt.kernels.array_types import Array, HostArray
from gpuadapt.kernels.formats import Formats
from gpuadapt.kernels.language.rule import Rule

from . import launch
from .rowgrad import RowGrad


class StepGradients(NamedTuple):
    """The checked gradients of one device's parameters."""

    addresses: HostArray
    """int64, shape (parameters,): of gradients that multi-tensor launches take, otherwise 0."""
    others: dict[int, Array | RowGrad]
    """Gradients that need a launch of their own, by the index of their parameter."""
    all_addressed: bool
    """True if every parameter has a gradient with an address."""
    dtype_names: tuple[str, ...]
    """The dtype of each gradient with an address; for the others that of the step before."""
    sums: dict[int, Array | RowGrad]
    """Sums of parameters with several gradients, kept alive for the step."""


class Bucket(NamedTuple):
    """Parameters that one multi-tensor launch updates."""

    rule: Rule
    formats: Formats
    indices: HostArray
    """int64, shape (n,): the parameters."""
    covers_all: bool
    """True if the bucket has all parameters of the device."""
    offsets: HostArray
    """int64, shape (n,): the offset of each parameter's coefficients in the step's scalars."""

    def addresses(self, gradients: HostArray) -> HostArray:
        """The bucket's part of the addresses of all gradients; int64, shape (n,)."""
        return gradients if self.covers_all else gradients[self.indices]


class Launch(NamedTuple):
    """One launch of a step."""

    update: launch.Update
    gradient: Any
    """The first argument of the update."""
    offset: int | HostArray
    """Its second argument."""


class CoefficientBlock(NamedTuple):
    """Coefficients that parameters of one group with equally many updates share."""

    group: int
    inactive_steps: int
    """Number of steps in which these parameters had no gradient."""
    offset: int
    """Index of the first coefficient in the step's scalars."""


class CoefficientLayout(NamedTuple):
    """The indices of coefficients in the scalars of a step."""

    blocks: tuple[CoefficientBlock, ...]
    offsets: tuple[int, ...]
    """The offset of each parameter's block."""
    width: int
    """Number of scalars."""
    scale_indices: tuple[int, ...]
    """The scalars that are the gradients' scale."""
    clip_indices: tuple[int, ...]
    """The scalars that are the clip factor."""


class StepPlan(NamedTuple):
    """The plan of one device's steps, until the dtypes of gradients or the rules change."""

    layout: CoefficientLayout
    buckets: list[Bucket]
    dtype_names: tuple[str, ...]
    """The dtype of each parameter's dense gradient."""
    headers: Any
    """The check of NumPy gradients of these dtypes (`launch.array_headers`); None on a GPU."""
    updates: list[launch.Update]
    """The update of each bucket; empty until one step needs all of them."""
