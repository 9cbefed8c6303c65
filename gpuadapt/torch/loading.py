"""Loading states with their own dtypes, where torch gives them all the parameter's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .base import Bound
from .options import DEFAULTS
from .settings import check_settings
from .shards import like_parameter
from .slots import state_of
from .tensors import local


@contextmanager
def exact_states(optimizer: Bound) -> Iterator[None]:
    """Within this, ``load_state_dict`` loads states as they were saved, or not at all.

    It is the first to change what torch has loaded, after all hooks that change what is loaded.
    States in another format than this optimizer's are converted. If that fails, the optimizer has
    the states and groups that it had before.
    """
    before: dict[str, Any] = {"state": optimizer.state, "param_groups": optimizer.param_groups}
    seen: dict[str, Any] = {}

    def remember(_: Any, state_dict: dict[str, Any]) -> None:
        seen.update(state_dict)

    def restore(loaded: Any) -> None:
        for old, new in zip(before["param_groups"], loaded.param_groups, strict=True):
            # Torch's checkpoints do not have these, and ours those that are not the defaults.
            new.update({name: old[name] for name in DEFAULTS if name in old and name not in new})
        check_settings(loaded._recipe, loaded.param_groups)
        _restore(loaded, seen)

    first = optimizer.register_load_state_dict_pre_hook(remember)
    last = optimizer.register_load_state_dict_post_hook(restore, prepend=True)
    try:
        yield
    except BaseException:
        optimizer.__setstate__(before)
        raise
    finally:
        first.remove()
        last.remove()


def _restore(optimizer: Bound, saved: Mapping[str, Any]) -> None:
    """Put the saved tensors in the place of those that torch has cast, in the wanted formats."""
    numbers = chain.from_iterable(group["params"] for group in saved["param_groups"])
    params = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    of_numbers = dict(zip(numbers, params, strict=True))
    for number, entry in saved["state"].items():
        parameter = of_numbers.get(number)
        if parameter is None or not isinstance(entry, Mapping):
            continue
        loaded = optimizer.state[parameter]
        for name, value in entry.items():
            now = loaded.get(name)
            if isinstance(value, Tensor) and isinstance(now, Tensor) and now.dtype != value.dtype:
                loaded[name] = value.detach().clone().to(now.device)
    convert_states(optimizer)


def convert_states(optimizer: Bound) -> None:
    """Bring the states that there are into the formats of their groups.

    Raises
    ------
    StateError, HyperparameterError, ParameterError
        Nothing has changed then.
    """
    with torch.no_grad():
        for parameter, tensors, unused in state_of(
            optimizer._recipe, optimizer.param_groups, optimizer.state
        ):
            entry = optimizer.state[parameter]
            for name in unused:
                entry.pop(name, None)
            for name, tensor in tensors.items():
                if name not in entry or local(entry[name]) is not tensor:
                    entry[name] = like_parameter(tensor, parameter)
