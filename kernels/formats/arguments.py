"""The arguments of a rule in their formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..array_types import Array
from ..language import scaling as language
from ..language.rule import Rule
from ..language.scaling import Scaling
from .conversion import Conversion, needed
from .float import FLOAT64
from .format import BLOCK, Format
from .kahan import KAHAN
from .random_bits import DRAWN, key_of, key_on, random_bits
from .registry import PLAIN


class Formats(NamedTuple):
    """The formats of an update."""

    compute: str
    """ "float32" or "float64"."""
    parameter: Format
    gradient: Format
    states: tuple[Format, ...]

    @property
    def updated(self) -> tuple[Format, ...]:
        """The formats of the parameter and the states."""
        return (self.parameter, *self.states)

    @property
    def every(self) -> tuple[Format, ...]:
        """All formats, in the order of a rule's arguments."""
        return (self.parameter, self.gradient, *self.states)

    @property
    def uniform(self) -> bool:
        """Whether all element types are that of the arithmetic."""
        return all(one == PLAIN[self.compute] for one in self.every)

    @property
    def wide(self) -> str:
        """The type in which gradients are unscaled, measured, merged and clipped.

        It is the wider one of the compute type and the gradient's. Rounding comes after that.
        """
        return "float64" if self.gradient == FLOAT64 else self.compute

    @property
    def canonical(self) -> bool:
        """Whether a number that has been loaded is stored with the bits that it had.

        Kahan's pairs and blocks of 8 bits may write one number in several ways.
        """
        return not self.block and self.parameter not in KAHAN.values()

    @property
    def random(self) -> bool:
        """Whether a store takes random bits."""
        return self.parameter.random or any(one.random for one in self.states)

    @property
    def paired(self) -> bool:
        """Whether all states have 16 bits: two neighbours then share one 32-bit hash.

        The CPU then works on two elements at a time. The parameter's format is ignored, so that
        master="split" and float32 parameters get the same random bits.
        """
        dtypes = {dtype for state in self.states for _, dtype in state.parts}
        return self.compute == "float32" and dtypes <= {"uint16"} and self.random

    @property
    def block(self) -> bool:
        """Whether elements share scales."""
        return bool(self.parameter.block) or any(one.block for one in self.states)

    @property
    def tables(self) -> tuple[str, ...]:
        """The fields of `Operand` that kernels of many arrays read besides addresses."""
        return (*["key"] * self.random, *["width"] * self.block)

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """All conversions of loads and stores, each after those that it calls."""
        called = [conversion for form in self.every for conversion in form.conversions]
        return needed((*called, *(key_of, key_on, random_bits) * self.random))

    @property
    def itemsize(self) -> int:
        """Bytes of the smallest element."""
        return self.itemsizes[0]

    @property
    def itemsizes(self) -> tuple[int, int]:
        """Bytes of the smallest and of the largest element."""
        sizes = [np.dtype(dtype).itemsize for one in self.every for _, dtype in one.parts]
        return min(sizes), max(sizes)


def traffic(formats: Formats) -> float:
    """Return the bytes that the update of one element reads and writes."""
    moved = float(np.dtype(formats.gradient.parts[0][1]).itemsize)
    for form in formats.updated:
        for k, (part, dtype) in enumerate(form.parts):
            times = 1 + (part == "scale" or f"{{{k}}}" in form.load)
            moved += times * np.dtype(dtype).itemsize / (BLOCK if part == "scale" else 1)
    return moved


def uniform(rule: Rule, dtype: np.dtype) -> Formats:
    """Return formats of one element type, "float32" or "float64"."""
    plain = PLAIN[str(dtype)]
    return Formats(str(dtype), plain, plain, (plain,) * len(rule.states))


def scaling(rule: Rule, formats: Formats) -> Scaling | None:
    """Return what is done to gradients before they are rounded; None if the rule itself does it."""
    return None if formats.wide == formats.compute else language.scaling(rule)


class Operand(NamedTuple):
    """The arrays of a parameter and its states, which one gradient updates."""

    arrays: Sequence[Array]
    """The parts of the parameter, then the parts of each state."""
    key: int = 0
    """64 bits, the seed of this parameter's random bits."""
    width: int = 0
    """Elements of a row if blocks do not cross rows, otherwise of the array."""


def load(form: Format, compute: str, at: Sequence[str]) -> str:
    """Return the expression of a number.

    Parameters
    ----------
    form : Format
    compute : str
        The compute type.
    at : sequence of str
        The elements of the parts; of formats with blocks, the code and the base.
    """
    return at[0] if form == PLAIN[compute] else f"T({form.load.format(*at)})"


def tables(fields: Sequence[str], operands: Iterable[Operand]) -> list[np.ndarray]:
    """Return an array of int64, shape (operands,), for each of these fields of `Operand`."""
    return [np.array([getattr(operand, name) for operand in operands], np.int64) for name in fields]


class Named(NamedTuple):
    """An argument of a rule, with its format and the names of its arrays in kernels."""

    name: str
    format: Format
    arrays: tuple[str, ...]
    """The names of the parts' arrays."""
    draw: int
    """n: its random bits are those of the n-th random argument, hash * DRAWN**n."""
    scaling: Scaling | None = None
    """The function that a wide gradient goes through before it is rounded."""

    def load(self, compute: str, at: Sequence[str]) -> str:
        """Return the expression of its number; see `load`."""
        if self.scaling:
            return f"T({self.scaling.call(self.format.load.format(*at))})"
        return load(self.format, compute, at)

    def store(
        self, compute: str, at: Sequence[str], value: str, half: int | str = 0, quick: bool = False
    ) -> tuple[str, ...]:
        """Return an expression for the new element of each part.

        Parameters
        ----------
        compute : str
            The compute type.
        at : sequence of str
            The elements of the parts; of formats with blocks, "" and the base.
        value : str
            The number.
        half : int or str
            Which half of the 32 random bits a store of 16 takes: 0 for the upper one, 1 for the
            lower one; or the name of a variable of CUDA C that says so.
        quick : bool
            Take the format's quick store, if it has one.
        """
        if self.format == PLAIN[compute]:
            return (value,)
        texts = (self.format.quick,) if quick and self.format.quick else self.format.store
        random = f"U(random * U({pow(DRAWN, self.draw, 2**32)}))" if self.draw else "random"
        upper, lower = f"U({random} >> U(16))", f"U({random} & U(65535))"
        halves: dict[int | str, str] = {0: upper, 1: lower}
        r16 = halves.get(half, f"({half} ? {lower} : {upper})")
        return tuple(text.format(*at, x=value, r=random, r16=r16) for text in texts)


def named(rule: Rule, formats: Formats) -> tuple[Named, ...]:
    """Return the arguments of a rule in order; their arrays' names cannot occur in a rule."""
    arguments, draws = [], 0
    names = rule.program.arguments[: len(formats.every)]
    for name, form in zip(names, formats.every, strict=True):
        arrays = tuple(f"{name}_{part}__" if part else f"{name}_" for part, _ in form.parts)
        scale = scaling(rule, formats) if name == rule.gradient else None
        arguments.append(Named(name, form, arrays, draws, scale))
        draws += form.random
    return tuple(arguments)
