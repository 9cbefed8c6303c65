"""How the numbers of an update are kept in memory: a load and a store, and nothing a rule knows.

Arithmetic is in the *compute type*, ``T`` in the text of kernels: float64 for parameters of
float64, otherwise float32 (``S``). A format has one or more arrays in memory, its parts; a load
makes a number of what they hold, a store gives each of them what it is to hold. Its text is the
same on both backends, as that of rules is; see `gpuadapt.kernels.codecs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import codecs
from .codec import Codec, needed
from .rule import Rule
from .scaling import Scaling, scaling

BLOCK = 256
"""Elements that share a scale, of 8-bit formats."""

DRAWN = 0x93D765DD
"""An element's random bits for its n-th array are the hash times this to the n-th: a multiplier of
good lattices (Steele & Vigna, Computationally easy, spectrally good multipliers, 2022)."""


class Format(NamedTuple):
    """A way to keep numbers."""

    name: str
    parts: tuple[tuple[str, str], ...]
    """Name ("" for the first) and element type in memory of each array."""
    load: str
    """An expression; {0}, {1}: elements of the parts."""
    store: tuple[str, ...]
    """One for each part; {x}: the number, {r}: 32 random bits, {r16}: 16 of them."""
    codecs: tuple[Codec, ...] = ()
    random: bool = False
    block: str = ""
    """Of an 8-bit format, how the names of its codecs begin: {0} is then a code, {1} the base."""


def _plain(dtype: str, cast: str) -> Format:
    return Format(dtype, (("", dtype),), f"{cast}({{0}})", (f"{cast}({{x}})",))


FLOAT32, FLOAT64 = _plain("float32", "S"), _plain("float64", "D")

SHORT = ("bfloat16", "float16")
"""Types of 16 bits; kernels see the bits."""


def _short(name: str, how: str) -> Format:
    """``how`` is the end of the store's name: "store" rounds to the nearest."""
    load, store = (getattr(codecs, f"{name}_{what}") for what in ("load", how))
    random = how != "store"
    given = ", {r16}" if random else ""
    return Format(
        f"{name}, {'stochastic' if how == 'random' else how}" if random else name,
        (("", "uint16"),),
        f"{name}_load(U({{0}}))",
        (f"{store.name}(S({{x}}){given})",),
        (load, store),
        random,
    )


def _kahan(name: str) -> Format:
    """A number and, in 16 bits too, what rounding left out of it."""
    load, store, rest = (getattr(codecs, f"{name}_{what}") for what in ("kahan", "store", "rest"))
    return Format(
        f"{name}, kahan",
        (("", "uint16"), ("compensation", "uint16")),
        f"{name}_kahan(U({{0}}), U({{1}}))",
        (f"{name}_store(S({{x}}))", f"{name}_rest(S({{x}}))"),
        (load, store, rest),
    )


def _master(name: str) -> Format:
    """A copy in float32, which is what the rule sees as long as it rounds to the parameter."""
    load, store = (getattr(codecs, f"{name}_{what}") for what in ("master", "store"))
    return Format(
        f"{name}, master",
        (("", "uint16"), ("master", "float32")),
        f"{name}_master(U({{0}}), S({{1}}))",
        (f"{name}_store(S({{x}}))", "S({x})"),
        (load, store),
    )


SPLIT = Format(
    "bfloat16, split",
    (("", "uint16"), ("low", "uint16")),
    "split_load(U({0}), U({1}))",
    ("split_high(S({x}))", "split_low(S({x}))"),
    (codecs.split_load, codecs.split_high, codecs.split_low),
)


def _eight(prefix: str, *more: Codec) -> Format:
    names = ("load", "random", "scale", "base")
    return Format(
        f"8bit, {prefix.removesuffix('8')}",
        (("", "uint8"), ("scale", "float32")),
        f"{prefix}_load(U({{0}}), {{1}})",
        (f"{prefix}_random(S({{x}}), {{1}}, {{r}})",),
        (
            *(getattr(codecs, f"{prefix}_{name}") for name in names),
            codecs.larger,
            codecs.all_held,
            codecs.larger_held,
            codecs.held_at_most,
            codecs.held,
            *more,
        ),
        True,
        prefix,
    )


SIGNED8 = _eight("signed8", codecs.signed8_quick, codecs.smaller, codecs.all_quick)
UNSIGNED8 = _eight("unsigned8")

NEAREST, STOCHASTIC = ({name: _short(name, how) for name in SHORT} for how in ("store", "random"))
SATURATED = STOCHASTIC | {"float16": _short("float16", "saturated")}
"""Of states: they do not become infinite."""

KAHAN = {name: _kahan(name) for name in SHORT}
MASTER = {name: _master(name) for name in SHORT}

PLAIN = {"float32": FLOAT32, "float64": FLOAT64, **NEAREST}
"""Formats of one array and no choice: those of gradients."""


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
    def codecs(self) -> tuple[Codec, ...]:
        """All that the text of loads and stores calls, each after what it calls."""
        given = [codec for one in self.every for codec in one.codecs]
        if self.random:
            given += [codecs.key_of, codecs.key_on, codecs.random_bits]
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
    form: Format
    arrays: tuple[str, ...]
    """The names of its arrays."""
    draw: int
    """Which of the draws of an element are its own."""
    scaling: Scaling | None = None
    """Of a wide gradient, what is done to it before it is rounded."""

    def load(self, compute: str, at: Sequence[str]) -> str:
        """As `load`."""
        if self.scaling:
            return f"T({self.scaling.of(self.form.load.format(*at))})"
        return load(self.form, compute, at)

    def store(self, compute: str, at: Sequence[str], value: str, half: int = 0) -> tuple[str, ...]:
        """What each part is to hold; of 16 random bits those of the upper or lower (1) half."""
        if self.form == PLAIN[compute]:
            return (value,)
        random = f"U(random * U({pow(DRAWN, self.draw, 2**32)}))" if self.draw else "random"
        few = f"U({random} >> U(16))" if half == 0 else f"U({random} & U(65535))"
        return tuple(text.format(*at, x=value, r=random, r16=few) for text in self.form.store)


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


def blocks(width: int) -> int:
    """How many blocks a row of so many elements has."""
    return -(-width // BLOCK)
