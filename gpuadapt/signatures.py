"""Signatures that name every keyword: what `help`, editors and `inspect.signature` show."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def spelled_out(defaults: Mapping[str, Any]) -> Callable[[Function], Function]:
    """Decorate a function: its signature has a keyword for each key of its ``**options``.

    Parameters
    ----------
    defaults : mapping of str to object
        The default of each keyword, in the order that is shown; those that it does not take, too.

    Returns
    -------
    function
        Decorates a function whose last argument is annotated ``**options: Unpack[T]``, with ``T`` a
        TypedDict of the function's module.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        *own, options = signature.parameters.values()
        kind = options.annotation.removeprefix("Unpack[").removesuffix("]")
        types = function.__globals__[kind].__annotations__
        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults[name],
                annotation=getattr(types[name], "__forward_arg__", types[name]),
            )
            for name in sorted(types, key=[*defaults].index)
        ]
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *more])
        return function

    return decorate


def own_names(function: Callable[..., Any]) -> list[str]:
    """List the arguments that a function, or one that wraps it, names itself; not its options."""
    code = inspect.unwrap(function).__code__
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
