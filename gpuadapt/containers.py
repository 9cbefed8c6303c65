"""The types of arrays, and of what parameters and gradients come in.

Type checkers read them; what an array is at run time is found in `arrays`, `foreign` and `tree`.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Protocol, TypeAlias, TypeVar

T_co = TypeVar("T_co", covariant=True)
G = TypeVar("G")


class Array(Protocol):
    """An array of NumPy, CuPy, PyTorch, JAX, Numba or others; a memoryview."""

    @property
    def shape(self) -> Any: ...
    @property
    def ndim(self) -> int: ...


class Listed(Protocol[T_co]):
    """A list, tuple or other sequence, but no str and no dict.

    `Sequence` would take a str. Its ``index`` has no type here, so that nothing but the items
    says what is in a list that is written in a call; see tests/typing/right.py.
    """

    def __contains__(self, value: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...
    @property
    def index(self) -> object: ...


Params: TypeAlias = (
    Array
    | Mapping[str, "Params"]
    | Listed["Params | tuple[str, Params]"]
    | Iterator["Params | tuple[str, Params]"]
    | ValuesView["Params"]
    | ItemsView[str, "Params"]
)
"""An array, or a dict, list, tuple or iterator of arrays, or of such; (name, array) pairs too."""

ParamsOrGroups: TypeAlias = (
    Array
    | Mapping[str, Params]
    | Listed[Params | tuple[str, Params] | G]
    | Iterator[Params | tuple[str, Params] | G]
    | ValuesView[Params]
    | ItemsView[str, Params]
)
"""The same, or a list of groups of type ``G``."""
