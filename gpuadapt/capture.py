"""Steps in CUDA graphs: a captured step must equal the step before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpuadapt.kernels.array_types import DeviceArray

from . import launch
from .device_parameters import DeviceParameters
from .errors import CaptureError
from .group import Group
from .step_options import StepOptions
from .step_plan import StepGradients


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


def signature_of(
    device: DeviceParameters,
    gradients: StepGradients,
    groups: Sequence[Group],
    options: StepOptions,
) -> StepSignature:
    """The signature of a step, which has to be one that can be captured.

    Raises
    ------
    CaptureError
        If the step would wait for the GPU or allocate memory.
    """
    rules = [group.rule for group in groups]
    others = device.check_capturable(gradients, groups)
    dense = gradients.addresses.tolist(), gradients.dtype_names
    return StepSignature((options.key, rules, *dense, others), launch.current_stream())


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
        raise CaptureError(
            "a captured step is like the step before it: the same arrays as gradients, the "
            "same options, the same stream; take one such step first"
        )
