"""`LossScale`: a factor for the loss that adapts to what half precision can hold."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuadapt.kernels.numerics.scalar_layout import LARGEST_SCALE, SMALLEST_SCALE

from .arrays import describe, namespace, on_device
from .errors import HyperparameterError, StateError
from .hyperparameters import number, whole


@dataclass(frozen=True)
class Multiple:
    """A loss scale times the number of micro-batches whose gradients were summed."""

    scale: LossScale
    times: int


class LossScale:
    """A loss scale that shrinks when gradients overflow and grows when they have not for long.

    Multiply the loss by `value` and give this to ``optimizer.step(grads, grad_scale=...)``:
    the step divides the gradients by it, skips itself if one of them is not finite, and
    adapts the scale (Micikevicius et al., Mixed Precision Training, 2018, section 3.2). For the
    mean of ``n`` micro-batches whose gradients were summed give ``grad_scale=n * scale``.

    Several optimizers on the CPU may share one: all steps since `value` was last read divide by
    that value, and what becomes of them adapts the scale once, when it is read again or when one
    of these optimizers takes another step. On a GPU, where `value` is live, each optimizer has its
    own; a second one is refused.

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
    minimum : float, > 0
        Below it the scale does not fall.
    patience : int, >= 1
        After so many skipped steps in a row, and after each as many more, there is a
        RuntimeWarning: gradients are not finite whatever the scale. On a GPU it comes when the
        scale is read on the host: by `float`, `skipped` or `state_dict`.

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

    # NumPy leaves a product with an array to `__rmul__`, which refuses it.
    __array_ufunc__ = None

    def __init__(
        self,
        initial: float = 65536.0,
        *,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
        minimum: float = 1.0,
        patience: int = 100,
    ) -> None:
        initial, minimum = number("initial", initial), number("minimum", minimum)
        if not SMALLEST_SCALE <= initial <= LARGEST_SCALE:
            raise HyperparameterError(f"initial: got {initial!r}, expected 2**-126 to 2**127")
        if not SMALLEST_SCALE <= minimum <= initial:
            raise HyperparameterError(
                f"minimum: got {minimum!r}, expected 2**-126 to initial, {initial!r}"
            )
        growth, backoff = number("growth", growth), number("backoff", backoff)
        if not 1 <= growth <= LARGEST_SCALE:
            raise HyperparameterError(f"growth: got {growth!r}, expected a number >= 1")
        if not 0 < np.float32(backoff) < 1:
            raise HyperparameterError(f"backoff: got {backoff!r}, expected a number in (0, 1)")
        self._rates = growth, backoff, _steps("interval", interval), minimum
        self._patience = _steps("patience", patience)
        self._numbers: Any = np.array([initial, 0, 0], np.float32)
        self._handed = float(self._numbers[0])
        """What steps on the CPU divide by: the value that was last read."""
        self._skipped: bool | None = None
        """Whether one of the steps since then was skipped; None before the first."""
        self._users: list[weakref.ref[Any]] = []
        """Whose steps these were; on a GPU whose scale it is."""

    @property
    def value(self) -> Any:
        """The scale: a float, or on a GPU a 0-d float32 CuPy array, which steps change."""
        if not isinstance(self._numbers, np.ndarray):
            return self._numbers[:1].reshape(())
        self._close()
        self._handed = float(self._numbers[0])
        return self._handed

    @property
    def rates(self) -> tuple[float, float, int, float]:
        """Growth, backoff, interval and minimum."""
        return self._rates

    @property
    def skipped(self) -> int:
        """Steps in a row that were skipped, up to the last; waits for the GPU."""
        return int(self._read()[2])

    def __float__(self) -> float:
        """The scale, as `value`; waits for the GPU."""
        return (
            float(self.value) if isinstance(self._numbers, np.ndarray) else float(self._read()[0])
        )

    def __mul__(self, times: Any) -> Multiple:
        found = whole(times)
        if found is None or not 1 <= found < 2**24:
            raise HyperparameterError(
                f"a loss scale times {describe(times)}: expected the number of micro-batches whose "
                "gradients were summed, from 1; to scale a loss write scale.value * loss"
            )
        return Multiple(self, found)

    __rmul__ = __mul__

    def state_dict(self) -> dict[str, float]:
        """The scale, steps since it changed, and skipped ones in a row; waits for the GPU."""
        scale, since, skipped = self._read().tolist()
        return {"scale": scale, "since": int(since), "skipped": int(skipped)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over what `state_dict` gave.

        Raises
        ------
        StateError
        """
        try:
            scale = number("scale", state["scale"])
            since, skipped = whole(state["since"]), whole(state.get("skipped", 0))
        except (AttributeError, HyperparameterError, KeyError, TypeError) as error:
            raise StateError(f"not a state_dict() of a loss scale: {error!r}") from None
        counted = all(n is not None and 0 <= n < 2**24 for n in (since, skipped))
        if not (SMALLEST_SCALE <= scale <= LARGEST_SCALE and counted):
            raise StateError(f"not a state_dict() of a loss scale: {dict(state)}")
        if scale < self._rates[3]:
            raise StateError(
                f"scale: got {scale!r}, less than the minimum of {self._rates[3]!r}; load it "
                "into a LossScale with a smaller minimum"
            )
        numbers = np.array([scale, since, skipped], np.float32)
        if isinstance(self._numbers, np.ndarray):
            self._numbers, self._skipped = numbers, None
            self._handed, self._users = float(numbers[0]), []
        else:
            with on_device(self._numbers):
                self._numbers[...] = namespace("cuda").asarray(numbers)

    def divisor(self) -> float:
        """What a step divides by whose numbers come from the host."""
        host = isinstance(self._numbers, np.ndarray)
        return self._handed if host else float(self._read()[0])

    def check_user(self, steps: object, on_gpu: bool) -> None:
        """Raise `HyperparameterError` if a second optimizer uses a scale that is, or will be, live.

        What its gradients were multiplied by could not be known.
        """
        others = [user for user in self._users if user() not in (None, steps)]
        if others and (on_gpu or not isinstance(self._numbers, np.ndarray)):
            raise HyperparameterError(
                "grad_scale: this LossScale is another optimizer's. On a GPU its value is live, so "
                "the steps of one would change what the other divides by; give each its own"
            )

    def on_gpu(self, device: Any) -> Any:
        """Its numbers on a CUDA device, where they stay: scale, steps since, steps skipped."""
        if isinstance(self._numbers, np.ndarray):
            self._close()
            with device:
                self._numbers = namespace("cuda").asarray(self._numbers)
        return self._numbers

    def used(self, steps: object, skipped: bool | None) -> None:
        """Count a step of an optimizer; of one on a GPU, which counts itself, only whose it was."""
        if skipped is None:
            self._users = [weakref.ref(steps)]
            return
        if not isinstance(self._numbers, np.ndarray):
            self._numbers = self._read()
        if any(user() is steps for user in self._users):
            self._close()
        self._users.append(weakref.ref(steps))
        self._skipped = bool(self._skipped) or skipped

    def _close(self) -> None:
        """Adapt the scale to what became of the steps since it was read."""
        if self._skipped is not None:
            self._numbers = self._adapted()
            self._skipped, self._users = None, []
            self._warn(int(self._numbers[2]), int(self._numbers[2]) % self._patience == 0)

    def _adapted(self) -> np.ndarray:
        """The numbers after the steps since it was read; a GPU has these lines too."""
        scale, since, skipped = self._numbers
        if self._skipped is None:
            return np.array(self._numbers)
        growth, backoff, interval, minimum = self._rates
        since, skipped = (0, skipped + 1) if self._skipped else (since + 1, 0)
        with np.errstate(all="ignore"):
            if self._skipped:
                scale = max(scale * np.float32(backoff), np.float32(minimum))
            elif since >= interval:
                scale, since = min(scale * np.float32(growth), np.float32(LARGEST_SCALE)), 0
        return np.array([scale, since, skipped], np.float32)

    def _read(self) -> np.ndarray:
        if isinstance(self._numbers, np.ndarray):
            return self._adapted()
        result: np.ndarray = self._numbers.get()
        self._warn(int(result[2]), int(result[2]) >= self._patience)
        return result

    def _warn(self, skipped: int, due: bool) -> None:
        if skipped and due:
            warnings.warn(
                f"LossScale: {skipped} steps in a row were skipped, as gradients are not finite "
                "whatever the scale; look for NaN in the data, the weights or the loss",
                RuntimeWarning,
                stacklevel=4,
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_users": []}  # a copy is nobody's yet

    def __repr__(self) -> str:
        where = "" if isinstance(self._numbers, np.ndarray) else " on a GPU"
        return "LossScale({}{}, growth={}, backoff={}, interval={}, minimum={})".format(
            float(self._read()[0]), where, *self._rates
        )


def _steps(name: str, value: Any) -> int:
    found = whole(value)
    if found is None or not 1 <= found < 2**24:
        raise HyperparameterError(f"{name}: got {value!r}, expected 1 to 2**24 - 1")
    return found
