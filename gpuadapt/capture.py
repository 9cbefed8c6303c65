"""Steps in CUDA graphs: a captured step must equal the step before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpuadapt.kernels.array_types import DeviceArray, HostArray

from . import launch
from .arrays import backend_of
from .errors import CaptureError
from .group import Resolved
from .plan import SingleUpdate, StepPlan
from .rowgrad import RowGrad
from .step_options import StepOptions

UNLIKE = (
    "a captured step is like the step before it: the same arrays as gradients, the same options, "
    "the same stream; take one such step first"
)


class StepSignature(NamedTuple):
    """Everything that two steps must have in common for one to replay the other."""

    step: tuple[Any, ...]
    """Options, rules, and the arrays of the gradients."""
    stream: int
    """CuPy keeps memory for each stream."""


@dataclass(frozen=True)
class GraphCapture:
    """A captured step; it keeps alive the arrays that a replay reads."""

    signature: StepSignature
    gradients: Sequence[Any]
    scale: DeviceArray | None
    stream: Any
    """The CuPy stream that has captured it, and replays it unless the user knows better."""


def signature_of(
    plan: StepPlan,
    gradients: tuple[HostArray, Sequence[tuple[int, SingleUpdate, Any]]],
    grads: Sequence[Any],
    settings: Sequence[Resolved],
    options: StepOptions,
    stream: int,
) -> StepSignature:
    """The signature of a step, which has to be one that can be captured.

    Parameters
    ----------
    plan : StepPlan
    gradients : (addresses, singles)
        As `run.match` returns them.
    grads : sequence
        The gradients as they were given.
    settings : sequence of Resolved
    options : StepOptions
    stream : int
        The handle of the current stream.

    Raises
    ------
    CaptureError
        If the step would wait for the GPU or allocate memory.
    """
    (part,), (addresses, singles) = plan.devices, gradients
    for parameter, grad in zip(part.device.parameters, grads, strict=True):
        if isinstance(grad, (list, tuple)):
            raise CaptureError(
                f"gradient of {parameter.name!r}: several are added up in new memory, "
                "which cannot be captured: add them up in an array of yours"
            )
    others = []
    for k, single, grad in singles:
        if single.by_rows:
            _check_rows(grad, settings[single.parameter.group])
        arrays = grad.arrays if isinstance(grad, RowGrad) else (grad,)
        others.append((k, [(a.data.ptr, a.shape, a.strides) for a in arrays]))
    rules = [now.rule for now in settings]
    dtypes = [None if one is None else one.dtype_name for one in part.expected]
    step = options.key, rules, addresses.tolist(), dtypes, others
    return StepSignature(step, stream)


def memory_of(plan: StepPlan) -> dict[int, Any]:
    """The memory that a replay of a captured step uses, by id, beside the user's and the states.

    A replay that nobody has prepared changes no parameter and no state, but it uses this memory.
    """
    (part,) = plan.devices
    updates = [bucket.update for bucket in part.buckets]
    updates += [single.update for _, single in part.unaddressed if single is not None]
    found = launch.held([part.device.scalars, *updates])
    return {
        key: one
        for key, one in found.items()
        if backend_of(one) is None or not part.device.may_alias(one)
    }


def _check_rows(grad: Any, now: Resolved) -> None:
    """Check that a step of rows can be captured."""
    if not now.skips_rows["cuda"]:
        raise CaptureError('check="raise" waits for the GPU: it cannot be captured')
    launch.check_sort()
    values = grad.values if isinstance(grad, RowGrad) else grad
    if not values.flags.c_contiguous:
        raise CaptureError("rows of gradients with gaps are copied: write them without")
    if isinstance(grad, RowGrad) and not grad.captured:
        raise CaptureError(
            "row numbers with gaps, or of other types than int32 and int64, are copied"
        )


def check_signature(
    signature: StepSignature,
    captured: GraphCapture | None,
    previous: StepSignature | None,
    capturing: bool,
) -> None:
    """Check that a step equals the captured one and, while it is captured, the previous one.

    Parameters
    ----------
    signature, previous : StepSignature
        Those of the step and of the step before.
    captured : GraphCapture, optional
    capturing : bool
        True while the stream is being captured.

    Raises
    ------
    CaptureError
    """
    if captured is not None and signature.step != captured.signature.step:
        raise CaptureError(
            "the step is unlike the captured one, in its gradients' arrays or its options; "
            "set `capturable` again to give that one up"
        )
    if capturing and previous != signature:
        raise CaptureError(UNLIKE)
