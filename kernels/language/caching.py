"""Results that are kept with the rule from which they were made."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar
from weakref import WeakSet


class HasCache(Protocol):
    """A `Rule`, as far as it is needed here."""

    @property
    def cache(self) -> dict[Any, Any]: ...


Owner = TypeVar("Owner", bound=HasCache)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class CachedFunction(Generic[Owner, Arguments, Result]):
    """A function with its results; made by `cached_with_rule`."""

    def __init__(self, function: Callable[Concatenate[Owner, Arguments], Result]) -> None:
        update_wrapper(self, function)
        self.function = function
        self.rules: WeakSet[Owner] = WeakSet()

    def __call__(self, rule: Owner, *arguments: Arguments.args, **none: Arguments.kwargs) -> Result:
        assert not none, "arguments of a cached function have no keywords"
        results: dict[tuple[object, ...], Result] = rule.cache.setdefault(self, {})
        try:
            return results[arguments]
        except KeyError:
            self.rules.add(rule)
            return results.setdefault(arguments, self.function(rule, *arguments, **none))

    def cache_clear(self) -> None:
        """Forget the results of all rules."""
        for rule in self.rules:
            rule.cache.pop(self, None)
        self.rules.clear()


def cached_with_rule(
    function: Callable[Concatenate[Owner, Arguments], Result],
) -> CachedFunction[Owner, Arguments, Result]:
    """Keep the results of a function with the rule that is its first argument.

    Results live as long as the rule does, so that a rule which is defined again frees the kernels
    of the one before. Two threads that ask at the same time get the same result.

    Parameters
    ----------
    function : callable
        Its first argument is a `Rule`; the others are hashable, and none is a keyword.
    """
    return CachedFunction(function)
