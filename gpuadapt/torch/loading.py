"""Loading states with their own dtypes, where torch gives them all the parameter's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from .fused import Fused


@contextmanager
def exact_states(optimizer: Fused) -> Iterator[None]:
    """Within this, ``load_state_dict`` gives states the dtypes that they were saved with.

    It is the first to change what torch has loaded, after all hooks that change what is loaded.
    """
    seen: dict[str, Any] = {}

    def remember(_: Any, state_dict: dict[str, Any]) -> None:
        seen.update(state_dict)

    def restore(loaded: Any) -> None:
        _restore(loaded, seen)

    before = optimizer.register_load_state_dict_pre_hook(remember)
    after = optimizer.register_load_state_dict_post_hook(restore, prepend=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def _restore(optimizer: Fused, saved: Mapping[str, Any]) -> None:
    """Put the saved tensors in the place of those that torch has cast."""
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
