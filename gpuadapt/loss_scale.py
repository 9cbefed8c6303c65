"""`LossScale`: a factor for the loss that adapts to what half precision can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuadapt.kernels.numbers import LARGEST_SCALE, SMALLEST_SCALE

from .arrays import namespace, on_device
from .errors import HyperparameterError, StateError
from .hyperparameters import number, whole


class LossScale:
    """A loss scale that shrinks when gradients overflow and grows when they have not for long.

    Multiply the loss by `value` and give this to ``optimizer.step(grads, grad_scale=...)``:
    the step divides the gradients by it, skips itself if one of them is not finite, and
    adapts the scale (Micikevicius et al., Mixed Precision Training, 2018, section 3.2). Each
    optimizer has its own.

    Parameters
    ----------
    initial : float, > 0
        The scale before the first step.
    growth : float, >= 1
        What the scale is multiplied by after ``interval`` steps in a row without overflow.
    backoff : float, in (0, 1)
        What it is multiplied by after an overflow.
    interval : int, >= 1
        Steps.

    Raises
    ------
    HyperparameterError

    Notes
    -----
    The scale is a float32 number between 2**-126 and 2**127. From the first step of CuPy
    parameters on it lives on their device, where steps read and change it without waiting.

    Examples
    --------
    >>> import numpy as np, gpuadapt as ga
    >>> w, scale = np.ones(2), ga.LossScale(1024.0)
    >>> optimizer = ga.SGD(w, lr=0.5)
    >>> optimizer.step(scale.value * np.array([1.0, 2.0]), grad_scale=scale)
    >>> optimizer.step(np.array([1.0, np.inf]), grad_scale=scale)
    >>> w, scale.value, optimizer.step_count
    (array([0.5, 0. ]), 512.0, 1)
    """

    def __init__(
        self,
        initial: float = 65536.0,
        *,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        initial = number("initial", initial)
        if not SMALLEST_SCALE <= initial <= LARGEST_SCALE:
            raise HyperparameterError(f"initial: got {initial!r}, expected 2**-126 to 2**127")
        growth, backoff = number("growth", growth), number("backoff", backoff)
        if not 1 <= growth <= LARGEST_SCALE:
            raise HyperparameterError(f"growth: got {growth!r}, expected a number >= 1")
        if not 0 < np.float32(backoff) < 1:
            raise HyperparameterError(f"backoff: got {backoff!r}, expected a number in (0, 1)")
        steps = whole(interval)
        if steps is None or not 1 <= steps < 2**24:
            raise HyperparameterError(f"interval: got {interval!r}, expected 1 to 2**24 - 1")
        self._rates = growth, backoff, steps
        self._numbers: Any = np.array([initial, 0], np.float32)

    @property
    def value(self) -> Any:
        """The scale: a float, or on a GPU a 0-d float32 CuPy array, which steps change."""
        host = isinstance(self._numbers, np.ndarray)
        return float(self._numbers[0]) if host else self._numbers[:1].reshape(())

    @property
    def rates(self) -> tuple[float, float, int]:
        """Growth, backoff and interval."""
        return self._rates

    def __float__(self) -> float:
        """The scale; waits for the GPU."""
        return float(self._read()[0])

    def state_dict(self) -> dict[str, float]:
        """The scale, and the steps since it changed; waits for the GPU."""
        scale, since = self._read().tolist()
        return {"scale": scale, "since": int(since)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over what `state_dict` gave.

        Raises
        ------
        StateError
        """
        try:
            scale, since = float(state["scale"]), int(state["since"])
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise StateError(f"not a state_dict() of a loss scale: {error!r}") from None
        if not (SMALLEST_SCALE <= scale <= LARGEST_SCALE and 0 <= since < 2**24):
            raise StateError(f"not a state_dict() of a loss scale: {dict(state)}")
        numbers = np.array([scale, since], np.float32)
        if isinstance(self._numbers, np.ndarray):
            self._numbers = numbers
        else:
            with on_device(self._numbers):
                self._numbers[...] = namespace("cuda").asarray(numbers)

    def on_gpu(self, device: Any) -> Any:
        """Its numbers on a CUDA device, where they stay: the scale, the steps since it changed."""
        if isinstance(self._numbers, np.ndarray):
            with device:
                self._numbers = namespace("cuda").asarray(self._numbers)
        return self._numbers

    def update(self, skipped: bool) -> None:
        """Adapt the scale to what became of a step; a step on a GPU does that there."""
        scale, since = self._read()
        growth, backoff, interval = self._rates
        since = 0 if skipped else since + 1
        with np.errstate(all="ignore"):
            if skipped:
                scale = max(scale * np.float32(backoff), np.float32(SMALLEST_SCALE))
            elif since >= interval:
                scale, since = min(scale * np.float32(growth), np.float32(LARGEST_SCALE)), 0
        self._numbers = np.array([scale, since], np.float32)

    def _read(self) -> np.ndarray:
        host = isinstance(self._numbers, np.ndarray)
        result: np.ndarray = self._numbers if host else self._numbers.get()
        return result

    def __repr__(self) -> str:
        where = "" if isinstance(self._numbers, np.ndarray) else " on a GPU"
        return "LossScale({}{}, growth={}, backoff={}, interval={})".format(
            float(self), where, *self._rates
        )
