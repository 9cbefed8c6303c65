"""`save` and `load` of a whole run: parameters, optimizer, loss scale, the caller's values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ..errors import CheckpointError, StateError
from ..loss_scale import LossScale
from ..optimizer import Optimizer
from ..state import Left
from .extras import encoded
from .match import Wanted
from .paths import FilePath, latest, open_file
from .safetensors_file import compact

__all__ = ["Loaded", "latest", "load", "save"]


class Loaded(NamedTuple):
    """What `load` returns."""

    extra: Any
    """The caller's values; arrays are NumPy's. None if there are none."""
    left: Left
    """What was not loaded, and why; empty with ``strict``."""


def save(
    path: FilePath,
    optimizer: Optimizer,
    *,
    extra: Any = None,
    loss_scale: LossScale | None = None,
    params: bool = True,
    keep: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Save a whole run in a safetensors file, as `Optimizer.save` does.

    Parameters
    ----------
    path : str or path-like
    optimizer : Optimizer
    extra : dict, list, str, number, bool, None or array
        Your own values, nested: JSON, and NumPy or CuPy arrays. Tuples become lists.
    loss_scale : LossScale, optional
    params, keep, progress
        See `Optimizer.save`.

    Raises
    ------
    NotWrittenError, NotDurableError, CheckpointError

    Examples
    --------
    >>> import tempfile, numpy as np, gpuadapt as ga
    >>> optimizer = ga.SGD({"w": np.ones(3)}, lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ga.save(folder + "/run.safetensors", optimizer, extra={"epoch": 3})
    ...     ga.load(ga.latest(folder), optimizer).extra
    {'epoch': 3}
    """
    _check(optimizer, loss_scale)
    more: dict[str, str] = {}
    tensors: dict[str, Any] = {}
    if extra is not None:
        more["extra"], tensors = encoded(extra)
    if loss_scale is not None:
        more["loss_scale"] = compact(loss_scale.state_dict())
    optimizer._save_file(path, more, tensors, params, keep, progress)


def load(
    path: FilePath,
    optimizer: Optimizer,
    *,
    loss_scale: LossScale | None = None,
    strict: bool = True,
    rename: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    params: bool = True,
    convert: bool = False,
) -> Loaded:
    """Load a file of `save`; all checks come before any change.

    Parameters
    ----------
    path : str or path-like
    optimizer : Optimizer
        With parameters of the same names and shapes.
    loss_scale : LossScale, optional
        Needed with ``strict`` if there is one in the file, and refused if there is none.
    strict, rename, only, params, convert
        See `Optimizer.load`.

    Returns
    -------
    Loaded
        (extra, left).

    Raises
    ------
    NotReadError, DamagedFileError, CheckpointError
        The file is not there, damaged, or of a later version.
    StateError, HyperparameterError, ParameterError
        It does not fit the optimizer.
    """
    _check(optimizer, loss_scale)
    wanted = Wanted(strict, rename, only, params, convert)
    with open_file(path) as file:
        if strict and (file.loss_scale is None) != (loss_scale is None):
            here = "has no loss scale" if file.loss_scale is None else "has a loss scale too"
            how = "leave `loss_scale` out" if file.loss_scale is None else "give it as `loss_scale`"
            raise StateError(f"the file {here}: {how}, or load with strict=False")
        extra: list[Any] = []

        def more() -> list[Any]:
            extra.append(file.read_extra())
            if loss_scale is None or file.loss_scale is None:
                return []
            return loss_scale.load_calls(file.loss_scale)

        left = optimizer._load(file, wanted, True, more)
    if file.loss_scale is not None and loss_scale is None:
        left.unexpected.append("loss_scale")
    if loss_scale is not None and file.loss_scale is None:
        left.missing.append("loss_scale")
    return Loaded(extra[0], left)


def _check(optimizer: Any, loss_scale: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise CheckpointError(
            f"optimizer: got {type(optimizer).__name__}, expected an optimizer of gpuadapt; those "
            "of gpuadapt.torch are saved by torch.save(optimizer.state_dict(), path)"
        )
    if not (loss_scale is None or isinstance(loss_scale, LossScale)):
        raise CheckpointError(f"loss_scale: got {loss_scale!r}, expected a gpuadapt.LossScale")
