"""The CUDA text of an update of a run of elements, for every traversal; as the CPU's `run_source`.

A run lies within one row of one array, or within one array; where elements share scales it begins
with a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..formats import BLOCK, Formats, Named, named
from ..language.emit import indented
from ..language.rule import Rule
from . import generate
from .generate import TYPES

EACH = 8
"""Elements of a block that a lane has: a warp has a block."""

_BLOCK = r"""
// One block of n elements, the first of them with the number begin, by a warp.
{
    const int lane = threadIdx.x %% 32;
    const U first = key_on(first_key, U(begin >> 32)), second = key_on(second_key, U(begin >> 32));
%(bases)s
    const bool whole = %(whole)s;
%(declared)s
    if (whole) {
%(load)s
    }
#pragma unroll
    for (int k = 0; k < %(each)d; ++k) {
        const int i = whole ? lane * %(each)d + k : lane + 32 * k;
        if (i < n) {
            if (!whole) {
%(load_one)s
            }
            %(random)s
%(numbers)s
            %(call)s
%(hold)s
            if (!whole) {
%(store_one)s
            }
        }
    }
    if (whole) {
%(store)s
    }
    // Every lane has read the old scales before the new ones are written.
%(scales)s
#pragma unroll
    for (int k = 0; k < %(each)d; ++k) {
        const int i = whole ? lane * %(each)d + k : lane + 32 * k;
        if (i < n) {
            %(random)s
%(encode)s
            if (!whole) {
%(code_one)s
            }
        }
    }
    if (whole) {
%(code)s
    }
}
"""

LARGEST = r"""
// The largest of a warp's numbers.
__device__ inline U largest_of(U x) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2) {
        const U other = __shfl_xor_sync(0xffffffff, x, half, 32);
        x = x < other ? other : x;
    }
    return x;
}
"""

HELD = r"""
// Puts numbers that 8 bits hold in the place of others of a block; returns the largest.
template <typename T> __device__ inline U all_made_held(T *numbers, int lane, bool whole, int n) {
    U largest = 0;
#pragma unroll
    for (int k = 0; k < %(each)d; ++k) {
        if ((whole ? lane * %(each)d + k : lane + 32 * k) < n) {
            largest = larger_held(largest, S(numbers[k]));
        }
    }
    largest = held_at_most(largest_of(largest));
#pragma unroll
    for (int k = 0; k < %(each)d; ++k) {
        if ((whole ? lane * %(each)d + k : lane + 32 * k) < n) {
            numbers[k] = T(held(S(numbers[k]), largest));
        }
    }
    return largest;
}
"""


class Run:
    """The names and the text of a run's update.

    Attributes
    ----------
    arguments : tuple of Named
        The rule's, without a row's mean of squares.
    updated : tuple of Named
        Of these, the parameter and the states.
    wide : dict of str to int
        Coefficients in the type of wider gradients, and which of the rule's they are.
    head : str
        Functions that come before the kernel: loads, stores and the rule.
    """

    def __init__(self, rule: Rule, formats: Formats) -> None:
        self.rule, self.formats = rule, formats
        self.compute = formats.compute
        self.arguments = named(rule, formats)
        self.updated = (self.arguments[0], *self.arguments[2:])
        self.head = generate.codecs(formats.conversions)
        if formats.block:
            self.head += LARGEST + HELD % {"each": EACH}
        self.head += generate.function(rule, formats)
        scale = self.arguments[1].scaling
        self.wide = scale.places if scale else {}

    def types(self, of: Sequence[Named]) -> dict[str, str]:
        """The C++ types of the elements of arrays, by their names."""
        return {
            name: TYPES[dtype]
            for one in of
            for name, (_, dtype) in zip(one.arrays, one.format.parts, strict=True)
        }

    def read(self) -> set[str]:
        """The names of arrays that are read."""
        return {
            name
            for one in self.arguments
            for k, name in enumerate(one.arrays)
            if f"{{{k}}}" in one.format.load
        }

    def call(self, mean: Sequence[str] = ()) -> str:
        """The rule's call on numbers ``<name>_n``."""
        given = [f"{one.name}_n" for one in self.arguments]
        return f"{self.rule.symbol}<T>({', '.join([*given, *mean, *self.rule.coefficients])});"

    def gradient(self, merged: str) -> str:
        """The gradient that the rule gets, of one that has been read and merged."""
        narrow = self.formats.wide == self.compute
        return merged if narrow else self.arguments[1].load(self.compute, [merged])

    def random(self, element: str, in_block: bool = False) -> str:
        """A line that draws the random bits of an element."""
        if not self.formats.random:
            return ""
        if in_block:
            return f"const U random = random_bits(U({element}), first, second);"
        if self.formats.paired:
            page = f"U(({element}) >> 33)"
            keys = f"key_on(first_key, {page}), key_on(second_key, {page})"
            half = f"((({element}) & 1) << 4)"
            return f"const U random = random_bits(U(({element}) >> 1), {keys}) << {half};"
        page = f"U(({element}) >> 32)"
        keys = f"key_on(first_key, {page}), key_on(second_key, {page})"
        return f"const U random = random_bits(U({element}), {keys});"

    def keys(self, key: str, step: str) -> str:
        """Lines that make the keys of a parameter's random bits."""
        if not self.formats.random:
            return ""
        return (
            f"    const long long seed = {key};\n"
            f"    const U step = U({step});\n"
            "    const U first_key = key_of(U(seed), step), "
            "second_key = key_of(U(seed >> 32), step);\n"
        )

    def block(
        self,
        gradient: str | None = None,
        before: Sequence[str] = (),
        mean: Sequence[str] = (),
        by_row: Sequence[str] = (),
        strided: Callable[[str, str], str] | None = None,
    ) -> str:
        """The update of a block: ``begin``, ``n`` and ``block`` (its number) are given.

        Parameters
        ----------
        gradient : str, optional
            The gradient's number ``i`` of the block, if it is not read from an array.
        before, mean, by_row : sequence of str
            Lines before the rule's call, its row's mean of squares, its states of a row.
        strided : function of (array's name, i), optional
            Element ``i`` of arrays that may have gaps.
        """
        wide = [one for one in self.updated if one.name not in by_row]
        coded = [one for one in wide if one.format.block]
        given = self.arguments[1]
        arrays = self.types(wide if gradient else [*wide, given])
        for one in coded:
            del arrays[one.arrays[1]]
        codes = {one.arrays[0] for one in coded}
        written = [name for name in arrays if name != given.arrays[0]]
        read = [name for name in arrays if name in self.read()]

        def at(name: str) -> str:
            return f"{name}p.at[k]"

        def place(name: str, i: str) -> str:
            return strided(name, i) if strided else f"{name}[begin + {i}]"

        def packed(names: Sequence[str], load: bool) -> list[str]:
            lines = []
            for name in names:
                constant = "const " * load
                kind = f"{constant}pack<{arrays[name]}, {EACH}>"
                there = f"*reinterpret_cast<{kind} *>(&{place(name, f'lane * {EACH}')})"
                lines.append(f"{name}p = {there};" if load else f"{there} = {name}p;")
            return lines

        def single(names: Sequence[str], load: bool) -> list[str]:
            pairs = [(at(name), place(name, "i")) for name in names]
            return [f"{a} = {b};" if load else f"{b} = {a};" for a, b in pairs]

        sources = [*wide, *[given] * (gradient is None)]
        numbers = generate.loads(sources, self.compute, at)
        if gradient is not None:
            numbers.append(f"T {given.name}_n = {gradient};")
        hold, encode, scales, bases, declared = [], [], [], [], []
        for one in wide:
            if one not in coded:
                hold += generate.stores([one], self.compute, at)
                continue
            name, scale, prefix = one.name, f"{one.arrays[1]}[block]", one.format.block
            declared += [f"T {name}_held[{EACH}];", f"U {name}_largest = 0;"]
            bases.append(f"U {name}_base = {prefix}_base({scale});")
            hold += [
                f"{name}_held[k] = {name}_n;",
                f"{name}_largest = larger({name}_largest, S({name}_n));",
            ]
            scales += [
                f"{name}_largest = largest_of({name}_largest);",
                f"if (all_held({name}_largest) == U(0)) {{",
                f"    {name}_largest = all_made_held({name}_held, lane, whole, n);",
                "}",
                f"const S {name}_scale = {prefix}_scale({name}_largest);",
                f"if (lane == 0) {{ {scale} = {name}_scale.value; }}",
                f"{name}_base = {prefix}_base({name}_scale);",
            ]
            (store,) = one.store(self.compute, ["", f"{name}_base"], f"{name}_held[k]")
            encode.append(f"{at(one.arrays[0])} = {store};")
        declared += [f"pack<{kind}, {EACH}> {name}p;" for name, kind in arrays.items()]
        others = [name for name in written if name not in codes]
        drawn = self.random("begin + i", in_block=True)
        every = "\n        | ".join(f"reinterpret_cast<size_t>({n} + begin)" for n in arrays)
        aligned = "false" if strided else f"n == {BLOCK} && (({every}) & 15) == 0"
        return _BLOCK % {
            "each": EACH,
            "whole": aligned,
            "bases": indented(bases, 4),
            "declared": indented(declared, 4),
            "load": indented(packed(read, True), 8),
            "load_one": indented(single(read, True), 16),
            "random": drawn,
            "numbers": indented([*numbers, *before], 12),
            "call": self.call(mean),
            "hold": indented(hold, 12),
            "store_one": indented(single(others, False), 16),
            "store": indented(packed(others, False), 8),
            "scales": indented(scales, 4),
            "encode": indented(encode, 12),
            "code_one": indented(single(sorted(codes), False), 16),
            "code": indented(packed(sorted(codes), False), 8),
        }
