"""The functions that a rule may call, and types of its arguments, for editors and type checkers.

>>> import gpuadapt as ga
>>> from gpuadapt.language import Hyper, Number, sign
>>> @ga.rule
... def sign_momentum(p: Number, g: Number, m: Number, h: Hyper) -> tuple[Number, Number]:
...     m = h.beta * m + (1 - h.beta) * g
...     return p - h.lr * sign(m), m

`gpuadapt.rule` reads a rule as text and knows these functions by their names: to import them, and
to write types, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from gpuadapt.kernels.language import primitives

__all__ = ["Hyper", "Number", "abs", "maximum", "minimum", "sign", "sq", "sqrt", "where"]

__dir__ = partial(sorted, __all__)

Number: TypeAlias = float
"""An element of the parameter, the gradient or a state, or what is computed of them."""


class Hyper(Protocol):
    """The hyperparameters ``h``: any name that is not taken."""

    t: int
    """The number of the step, from 1."""

    def __getattr__(self, name: str, /) -> Number: ...


sqrt: Callable[[Number], Number] = primitives.sqrt
sq: Callable[[Number], Number] = primitives.sq
abs: Callable[[Number], Number] = primitives.abs
sign: Callable[[Number], Number] = primitives.sign
maximum: Callable[[Number, Number], Number] = primitives.maximum
minimum: Callable[[Number, Number], Number] = primitives.minimum
where: Callable[[bool, Number, Number], Number] = primitives.where
