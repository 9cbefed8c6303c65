"""What `Optimizer.step` is asked for besides gradients, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .arrays import address, backend_of, describe
from .errors import HyperparameterError
from .hyperparameters import number
from .loss_scale import LossScale, Multiple


class StepResult(NamedTuple):
    """What became of the last step."""

    grad_norm: float | None
    """Of all gradients, unscaled; None if the step had no use for it."""
    clip_factor: float
    """What the gradients were multiplied by, 1 for nothing."""
    skipped: bool
    """Whether a gradient was not finite, or too large for its rule, and nothing has changed."""


@dataclass(frozen=True, eq=False)
class StepOptions:
    """Loss scale, clipping and skipping of one step."""

    scale: Any = 1.0
    """A number, a `LossScale`, or one float32 element on a GPU."""
    times: int = 1
    """Of a `LossScale`: how many micro-batches were summed."""
    max_norm: float | None = None
    clip_value: float | None = None
    skip: bool = False
    options: frozenset[str] = field(default=frozenset())
    """Those of `gpuadapt.kernels.options` that it asks for."""

    @property
    def measured(self) -> bool:
        """Whether the norm of the gradients is needed."""
        return self.skip or self.max_norm is not None

    @property
    def most(self) -> float:
        """The largest norm."""
        return math.inf if self.max_norm is None else self.max_norm

    @property
    def limit(self) -> float:
        """The largest magnitude of an element."""
        return math.inf if self.clip_value is None else self.clip_value

    @property
    def key(self) -> tuple[Any, ...]:
        """What is equal for requests for the same; of a scale on a GPU it has the address."""
        scale = address(self.scale) if backend_of(self.scale) == "cuda" else self.scale
        return scale, self.times, self.max_norm, self.clip_value, self.skip, self.options

    def scale_on(self, device: Any) -> Any:
        """A scale that a GPU reads, as an array on the device where it is wanted.

        Raises
        ------
        HyperparameterError
            It is on another.
        """
        scale = self.scale
        array = scale.on_gpu(device)[:1] if isinstance(scale, LossScale) else scale
        if array.device != device:
            raise HyperparameterError(
                f"grad_scale: got {describe(array)}, but the parameters are on device {device.id}"
            )
        return array

    def values(self, on_gpu: bool) -> dict[str, float]:
        """Numbers that rules may read; 1 for what only the GPU knows, or nobody yet."""
        scale = 1.0
        if not on_gpu:
            shared = isinstance(self.scale, LossScale)
            scale = self.times * (self.scale.divisor() if shared else float(self.scale))
        return {"grad_scale": scale, "clip_factor": 1.0, "clip_value": self.clip_value or 1.0}


DEFAULT_OPTIONS = StepOptions()


def step_options(
    grad_scale: Any, max_norm: Any, clip_value: Any, skip_nonfinite: Any
) -> StepOptions:
    """Check what a step is asked for.

    Raises
    ------
    HyperparameterError
    """
    if skip_nonfinite is False and grad_scale is None and max_norm is None and clip_value is None:
        return DEFAULT_OPTIONS
    if not isinstance(skip_nonfinite, (bool, np.bool_)):
        raise HyperparameterError(f"skip_nonfinite: got {skip_nonfinite!r}, expected a bool")
    scale: Any = 1.0 if grad_scale is None else _scale(grad_scale)
    scale, times = (scale.scale, scale.times) if isinstance(scale, Multiple) else (scale, 1)
    most = None if max_norm is None else number("max_norm", max_norm)
    limit = None if clip_value is None else number("clip_value", clip_value)
    wanted = {
        "unscale": grad_scale is not None,
        "clip_norm": most is not None and most < math.inf,
        "clip_value": limit is not None,
    }
    skip = bool(skip_nonfinite) or isinstance(scale, LossScale)
    options = frozenset(name for name, asked in wanted.items() if asked)
    return StepOptions(scale, times, most, limit, skip, options)


def _scale(given: Any) -> Any:
    if isinstance(given, (LossScale, Multiple)):
        return given
    if backend_of(given) == "cuda":
        if given.size != 1 or given.dtype != "float32":
            raise HyperparameterError(
                f"grad_scale: got {describe(given)}, expected one element of float32"
            )
        return given.reshape(1)
    return number("grad_scale", given.item() if getattr(given, "ndim", None) == 0 else given)
