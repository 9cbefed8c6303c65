"""Steps that are captured in a CUDA graph: each is like the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import launch
from .device_parameters import DeviceParameters
from .errors import CaptureError
from .group import Group
from .step_options import StepOptions
from .step_plan import StepGradients


def check_alike(
    place: DeviceParameters,
    found: StepGradients,
    groups: Sequence[Group],
    request: StepOptions,
    captured: Any,
    before: Any,
    capturing: bool,
) -> Any:
    """What a step is like, and on which stream; of the next step it is ``before``.

    Parameters
    ----------
    captured : what the captured step was like, or None

    Raises
    ------
    CaptureError
        The step is not like the one that it has to be like.
    """
    rules = [group.rule for group in groups]
    others = place.described(found, groups)
    alike = (request.key, rules, found.addresses.tolist(), found.elements, others)
    if captured is not None and alike != captured:
        raise CaptureError(
            "the step is unlike the captured one, in its gradients' arrays or its options; "
            "set `capturable` again to give that one up"
        )
    # Memory that CuPy has kept for one stream is not there for another.
    now = alike, launch.current_stream()
    if capturing and before != now:
        raise CaptureError(
            "a captured step is like the step before it: the same arrays as gradients, the "
            "same options, the same stream; take one such step first"
        )
    return now
