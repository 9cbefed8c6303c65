"""The arguments of a rule in their formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..language import scaling as language
from ..language.rule import Rule
from ..language.scaling import Scaling
from .conversion import Conversion, needed
from .float import FLOAT64
from .format import BLOCK, Format
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
        """Of the parameter and the states."""
        return (self.parameter, *self.states)

    @property
    def every(self) -> tuple[Format, ...]:
        """In the order of a rule's arguments."""
        return (self.parameter, self.gradient, *self.states)

    @property
    def uniform(self) -> bool:
        """Whether there is one element type, that of the arithmetic."""
        return all(one == PLAIN[self.compute] for one in self.every)

    @property
    def wide(self) -> str:
        """The type in which gradients are unscaled, measured, merged and clipped.

        That of the arithmetic, or their own if it is wider: they are rounded after that.
        """
        return "float64" if self.gradient == FLOAT64 else self.compute

    @property
    def random(self) -> bool:
        """Whether random bits are needed."""
        return any(one.random for one in self.updated)

    @property
    def paired(self) -> bool:
        """Whether two neighbours share a hash, half of it each, as they share a word of memory.

        So where all states have 16 bits: the CPU then works on two elements at a time. The
        parameter has no part in it, so that one that is split has the bits of one that is not.
        """
        kept = (dtype for one in self.states for _, dtype in one.parts)
        return self.random and self.compute == "float32" and all(k == "uint16" for k in kept)

    @property
    def block(self) -> bool:
        """Whether elements share scales."""
        return any(one.block for one in self.updated)

    @property
    def tables(self) -> tuple[str, ...]:
        """What `many` reads of each operand besides addresses: fields of `Operand`."""
        return (*["key"] * self.random, *["width"] * self.block)

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """All that the text of loads and stores calls, each after what it calls."""
        given = [found for one in self.every for found in one.conversions]
        if self.random:
            given += [key_of, key_on, random_bits]
        return needed(tuple(given))

    @property
    def itemsize(self) -> int:
        """Bytes of the smallest element."""
        return min(np.dtype(dtype).itemsize for one in self.every for _, dtype in one.parts)


def traffic(formats: Formats) -> float:
    """Bytes that an update of one element must move: what it reads, and what it writes."""
    moved = float(np.dtype(formats.gradient.parts[0][1]).itemsize)
    for form in formats.updated:
        for k, (part, dtype) in enumerate(form.parts):
            times = 1 + (part == "scale" or f"{{{k}}}" in form.load)
            moved += times * np.dtype(dtype).itemsize / (BLOCK if part == "scale" else 1)
    return moved


def uniform(rule: Rule, dtype: np.dtype) -> Formats:
    """One element type for everything."""
    plain = PLAIN[str(dtype)]
    return Formats(str(dtype), plain, plain, (plain,) * len(rule.states))


def scaling(rule: Rule, formats: Formats) -> Scaling | None:
    """Return what is done to gradients before they are rounded; None if the rule itself does it."""
    return None if formats.wide == formats.compute else language.scaling(rule)


class Operand(NamedTuple):
    """What is updated by one gradient: the arrays of a parameter and its states."""

    arrays: Sequence[Any]
    """The parts of the parameter, then those of each state; one element type each."""
    key: int = 0
    """64 bits that nobody else's random bits depend on."""
    width: int = 0
    """Elements of a row, if blocks do not cross rows; otherwise of the whole array."""


def load(form: Format, compute: str, at: Sequence[str]) -> str:
    """The number, from the elements (of the 8-bit formats: the code and the base)."""
    return at[0] if form == PLAIN[compute] else f"T({form.load.format(*at)})"


def tables(formats: Formats, operands: Sequence[Operand]) -> list[np.ndarray]:
    """The tables of `Formats.tables`, a number for each operand."""
    return [np.array([getattr(of, name) for of in operands], np.int64) for name in formats.tables]


class Named(NamedTuple):
    """An argument of a rule as a kernel has it."""

    name: str
    format: Format
    arrays: tuple[str, ...]
    """The names of its arrays."""
    draw: int
    """Which of the draws of an element are its own."""
    scaling: Scaling | None = None
    """Of a wide gradient, what is done to it before it is rounded."""

    def load(self, compute: str, at: Sequence[str]) -> str:
        """As `load`."""
        if self.scaling:
            return f"T({self.scaling.call(self.format.load.format(*at))})"
        return load(self.format, compute, at)

    def store(
        self, compute: str, at: Sequence[str], value: str, half: int = 0, quick: bool = False
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
        half : int
            Which half of the 32 random bits a store of 16 takes: 0 for the upper one, 1 for the
            lower one.
        quick : bool
            Take the format's quick store, if it has one.
        """
        if self.format == PLAIN[compute]:
            return (value,)
        texts = (self.format.quick,) if quick and self.format.quick else self.format.store
        random = f"U(random * U({pow(DRAWN, self.draw, 2**32)}))" if self.draw else "random"
        few = f"U({random} >> U(16))" if half == 0 else f"U({random} & U(65535))"
        return tuple(text.format(*at, x=value, r=random, r16=few) for text in texts)


def named(rule: Rule, formats: Formats) -> tuple[Named, ...]:
    """The arguments of a rule in their order, with names that no rule's own can be."""
    found, draws = [], 0
    names = rule.program.arguments[: len(formats.every)]
    for name, form in zip(names, formats.every, strict=True):
        arrays = tuple(f"{name}_{part}__" if part else f"{name}_" for part, _ in form.parts)
        scale = scaling(rule, formats) if name == rule.gradient else None
        found.append(Named(name, form, arrays, draws, scale))
        draws += form.random
    return tuple(found)
