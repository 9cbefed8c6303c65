"""The options and the result of one step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpuadapt.kernels.array_types import DeviceArray

from .arrays import address, backend_of, describe
from .errors import HyperparameterError
from .hyperparameters import number
from .loss_scale import LossScale, Multiple


class StepResult(NamedTuple):
    """The result of a step."""

    grad_norm: float | None
    """Euclidean norm of all unscaled gradients; None if the step did not measure it."""
    clip_factor: float
    """Factor that ``max_norm`` multiplied the gradients by; 1 if it changed nothing."""
    skipped: bool
    """True if a gradient was not finite, or too large for its rule, and nothing was written."""


@dataclass(frozen=True, eq=False)
class StepOptions:
    """The keywords of `Optimizer.step`, checked."""

    scale: float | LossScale | DeviceArray = 1.0
    """Divisor of the gradients; on a GPU also an array of one float32."""
    micro_batches: int = 1
    """Number of gradients that were summed; the gradients are divided by it too."""
    max_norm: float | None = None
    clip_value: float | None = None
    skip_nonfinite: bool = False
    rule_options: frozenset[str] = field(default=frozenset())
    """Names of the options of `gpuadapt.kernels.options` that the step composes around a rule."""

    @cached_property
    def needs_norm(self) -> bool:
        """True if the gradients must be measured before the update."""
        return self.skip_nonfinite or self.max_norm is not None

    @property
    def norm_limit(self) -> float:
        """``max_norm``, or infinity."""
        return math.inf if self.max_norm is None else self.max_norm

    @property
    def value_limit(self) -> float:
        """``clip_value``, or infinity."""
        return math.inf if self.clip_value is None else self.clip_value

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """A value that is equal for equal options; a GPU's scale is known by its address."""
        scale = address(self.scale) if backend_of(self.scale) == "cuda" else self.scale
        limits = self.max_norm, self.clip_value, self.skip_nonfinite
        return scale, self.micro_batches, *limits, self.rule_options

    def scale_on(self, device: Any) -> DeviceArray:
        """The scale as an array of one float32 on the parameters' CUDA device.

        Raises
        ------
        HyperparameterError
            If the scale is on another device.
        """
        scale: Any = self.scale
        array = scale.on_gpu(device)[:1] if isinstance(scale, LossScale) else scale
        if array.device != device:
            raise HyperparameterError(
                f"grad_scale: got {describe(array)}, but the parameters are on device {device.id}; "
                "copy it there"
            )
        return array

    def values(self, scale_on_gpu: bool) -> dict[str, float]:
        """The hyperparameters that the step adds to a rule's own.

        "clip_factor" is 1 until the norm is known, and "grad_scale" is 1 if it is on the GPU.
        """
        scale = 1.0
        if not scale_on_gpu:
            given = self.scale
            one = given.divisor() if isinstance(given, LossScale) else float(given)
            scale = self.micro_batches * one
        return {"grad_scale": scale, "clip_factor": 1.0, "clip_value": self.clip_value or 1.0}


DEFAULT_OPTIONS = StepOptions()


def check_step_options(
    grad_scale: Any, max_norm: Any, clip_value: Any, skip_nonfinite: Any
) -> StepOptions:
    """Check the keywords of `Optimizer.step`.

    Returns
    -------
    StepOptions
        `DEFAULT_OPTIONS` itself if all keywords have their defaults.

    Raises
    ------
    HyperparameterError
    """
    if skip_nonfinite is False and grad_scale is None and max_norm is None and clip_value is None:
        return DEFAULT_OPTIONS
    if not isinstance(skip_nonfinite, (bool, np.bool_)):
        raise HyperparameterError(f"skip_nonfinite: got {skip_nonfinite!r}, expected a bool")
    scale: Any = 1.0 if grad_scale is None else _checked_scale(grad_scale)
    scale, micro_batches = (scale.scale, scale.count) if isinstance(scale, Multiple) else (scale, 1)
    norm_limit = None if max_norm is None else number("max_norm", max_norm)
    value_limit = None if clip_value is None else number("clip_value", clip_value)
    enabled = {
        "unscale": grad_scale is not None,
        "clip_norm": norm_limit is not None and norm_limit < math.inf,
        "clip_value": value_limit is not None,
    }
    skip = bool(skip_nonfinite) or isinstance(scale, LossScale)
    rule_options = frozenset(name for name, on in enabled.items() if on)
    return StepOptions(scale, micro_batches, norm_limit, value_limit, skip, rule_options)


def _checked_scale(grad_scale: Any) -> Any:
    """Check ``grad_scale``; a float, `LossScale`, `Multiple` or array of shape (1,)."""
    if isinstance(grad_scale, (LossScale, Multiple)):
        return grad_scale
    if backend_of(grad_scale) == "cuda":
        if grad_scale.size != 1 or grad_scale.dtype != "float32":
            raise HyperparameterError(
                f"grad_scale: got {describe(grad_scale)}, expected one element of float32"
            )
        return grad_scale.reshape(1)
    scalar = getattr(grad_scale, "ndim", None) == 0
    return number("grad_scale", grad_scale.item() if scalar else grad_scale)
