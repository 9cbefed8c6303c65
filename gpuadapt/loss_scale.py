"""`LossScale`: a factor for the loss that adapts to the range of float16."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuadapt.kernels.commit import Call, make
from gpuadapt.kernels.numerics.scalar_layout import LARGEST_SCALE, SMALLEST_SCALE

from .arrays import copy_calls, describe, namespace, to_host
from .errors import HyperparameterError, StateError
from .hyperparameters import number, whole
from .texts import safe


@dataclass(frozen=True)
class Multiple:
    """``count * scale``: the divisor for gradients summed over ``count`` micro-batches."""

    scale: LossScale
    count: int


class LossScale:
    """A loss scale that shrinks when gradients overflow and grows when they do not for a while.

    Multiply the loss by `value` and give the object to ``optimizer.step(grads, grad_scale=...)``.
    The step divides the gradients by the scale, is skipped if one of them is not finite, and
    adapts the scale (Micikevicius et al., Mixed Precision Training, 2018, section 3.2). For the
    mean of ``n`` micro-batches whose gradients were summed, give ``grad_scale=n * scale``.

    Several optimizers on the CPU may share one scale. All their steps divide by the `value` last
    read; the scale adapts once, when `value` is read again or when one of them takes a second step.
    On a GPU every step adapts the scale, so a second optimizer is refused.

    Parameters
    ----------
    initial : float, > 0
        The scale before the first step.
    growth : float, >= 1
        Factor of the scale after ``interval`` consecutive steps without overflow.
    backoff : float, in (0, 1)
        Factor of the scale after an overflow.
    interval : int, >= 1
        Number of steps until the scale grows.
    minimum : float, > 0
        Lower limit of the scale.
    patience : int, >= 1
        Warn (RuntimeWarning) after every ``patience`` consecutive skipped steps: gradients are not
        finite whatever the scale. On a GPU the warning comes when the host reads the scale, by
        `float`, `skipped` or `state_dict`.

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
        self._rates = growth, backoff, _step_count("interval", interval), minimum
        self._patience = _step_count("patience", patience)
        self._scalars: Any = np.array([initial, 0, 0], np.float32)
        self._divisor = float(self._scalars[0])
        """float, the `value` last read; steps on the CPU divide by it."""
        self._skipped: bool | None = None
        """True if a step since then was skipped; None if there was no step."""
        self._owners: list[weakref.ref[Any]] = []
        """The optimizers of these steps; on a GPU the one optimizer that uses the scale."""

    @property
    def value(self) -> Any:
        """The scale: float; on a GPU a 0-d float32 CuPy array that each step updates in place."""
        if not isinstance(self._scalars, np.ndarray):
            return self._scalars[:1].reshape(())
        self._close()
        self._divisor = float(self._scalars[0])
        return self._divisor

    @property
    def rates(self) -> tuple[float, float, int, float]:
        """(growth, backoff, interval, minimum)."""
        return self._rates

    @property
    def skipped(self) -> int:
        """Number of consecutive skipped steps up to the last one; waits for the GPU."""
        return int(self._read()[2])

    def __float__(self) -> float:
        """The scale, as `value`; waits for the GPU."""
        return (
            float(self.value) if isinstance(self._scalars, np.ndarray) else float(self._read()[0])
        )

    def __mul__(self, count: Any) -> Multiple:
        number = whole(count)
        if number is None or not 1 <= number < 2**24:
            raise HyperparameterError(
                f"a loss scale times {describe(count)}: expected the number of micro-batches whose "
                "gradients were summed, from 1; to scale a loss write scale.value * loss"
            )
        return Multiple(self, number)

    __rmul__ = __mul__

    def state_dict(self) -> dict[str, float]:
        """Return what `load_state_dict` restores; waits for the GPU.

        Returns
        -------
        dict
            ``scale``: float; ``since``: int, steps since the scale changed; ``skipped``: int,
            consecutive skipped steps.
        """
        scale, since, skipped = self._read().tolist()
        return {"scale": scale, "since": int(since), "skipped": int(skipped)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the result of `state_dict`.

        Raises
        ------
        StateError
            Not such a dict, or a scale below ``minimum``. Nothing has changed then.
        """
        make(self.load_calls(state))

    def load_calls(self, state: Mapping[str, float]) -> list[Call]:
        """The calls that restore the result of `state_dict`, see `kernels.commit`.

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
        if not isinstance(self._scalars, np.ndarray):
            # The stream of the steps may be another one than this.
            wait = (self._scalars.device.synchronize,)
            return [wait, *copy_calls(self._scalars, numbers), wait]
        after = {"_scalars": numbers, "_skipped": None, "_divisor": float(numbers[0])}
        return [(vars(self).update, {**after, "_owners": []})]

    def divisor(self) -> float:
        """Return the divisor of a step whose scalars come from the host."""
        host = isinstance(self._scalars, np.ndarray)
        return self._divisor if host else float(self._read()[0])

    def check_user(self, steps: object, on_gpu: bool) -> None:
        """Refuse a second optimizer if the scale is, or will be, on a GPU.

        Parameters
        ----------
        steps : object
            Identifies the optimizer.
        on_gpu : bool
            True if its parameters are on a GPU.

        Raises
        ------
        HyperparameterError
        """
        others = [owner for owner in self._owners if owner() not in (None, steps)]
        if others and (on_gpu or not isinstance(self._scalars, np.ndarray)):
            raise HyperparameterError(
                "grad_scale: this LossScale is another optimizer's. On a GPU its value is live, so "
                "the steps of one would change what the other divides by; give each its own"
            )

    def on_gpu(self, device: Any) -> Any:
        """Move the scalars to a CUDA device and return them: float32, (scale, since, skipped)."""
        if isinstance(self._scalars, np.ndarray):
            self._close()
            with device:
                self._scalars = namespace("cuda").asarray(self._scalars)
        return self._scalars

    def use_call(self, steps: object, skipped: bool | None) -> Call:
        """The call that records a step, see `kernels.commit`.

        Parameters
        ----------
        steps : object
            Identifies the optimizer.
        skipped : bool or None
            None for a step on a GPU, whose kernel updates the scalars itself.
        """
        owner = weakref.ref(steps)
        if skipped is None:
            return vars(self).update, {"_owners": [owner]}
        if not isinstance(self._scalars, np.ndarray):
            self._scalars = self._read()
        if any(known() is steps for known in self._owners):
            self._close()
        after = {"_owners": [*self._owners, owner], "_skipped": bool(self._skipped) or skipped}
        return vars(self).update, after

    def _close(self) -> None:
        """Adapt the scale to the steps since `value` was read."""
        if self._skipped is not None:
            vars(self).update(_scalars=self._adapted(), _skipped=None, _owners=[])
            self._warn(int(self._scalars[2]), int(self._scalars[2]) % self._patience == 0)

    def _adapted(self) -> np.ndarray:
        """Return the adapted scalars; a CUDA kernel of scalars.cuh has the same lines."""
        scale, since, skipped = self._scalars
        if self._skipped is None:
            return np.array(self._scalars)
        growth, backoff, interval, minimum = self._rates
        since, skipped = (0, skipped + 1) if self._skipped else (since + 1, 0)
        with np.errstate(all="ignore"):
            if self._skipped:
                scale = max(scale * np.float32(backoff), np.float32(minimum))
            elif since >= interval:
                scale, since = min(scale * np.float32(growth), np.float32(LARGEST_SCALE)), 0
        return np.array([scale, since, skipped], np.float32)

    def _read(self) -> np.ndarray:
        if isinstance(self._scalars, np.ndarray):
            return self._adapted()
        result = to_host(self._scalars)
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
        return self.__dict__ | {"_owners": []}  # a copy has no optimizer yet

    @safe
    def __repr__(self) -> str:
        # To read it from a GPU would wait for the steps.
        host = isinstance(self._scalars, np.ndarray)
        scale = float(self._adapted()[0]) if host else "on a GPU"
        return "LossScale({}, growth={}, backoff={}, interval={}, minimum={}, patience={})".format(
            scale, *self._rates, self._patience
        )


def _step_count(name: str, value: Any) -> int:
    """Check a number of steps from 1 to 2**24 - 1."""
    count = whole(value)
    if count is None or not 1 <= count < 2**24:
        raise HyperparameterError(f"{name}: got {value!r}, expected 1 to 2**24 - 1")
    return count
