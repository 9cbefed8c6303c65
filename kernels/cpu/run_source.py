"""The text of an update of a run of elements: the loop in which a rule is called, on the CPU.

Every traversal has it. A run lies within one row of one array, or within one array; where elements
share scales it begins with a block.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..formats import BLOCK, Formats, Named, named
from ..language.emit import indented
from ..language.rule import Rule
from .run_text import (
    BLOCKS,
    DRAWN,
    DRAWN_HALF,
    KEYS,
    NEXT,
    PAGES,
    PAIRS,
    QUICK_CALL,
    QUICKLY,
    SPAN,
)

RANDOM = ["begin", "first_key", "second_key"]
"""What random bits are made of: the number of the first element, and the two keys."""


class Run:
    """The names and the text of a run's update.

    Attributes
    ----------
    text : str
        ``span`` and what it calls, for after a module's header.
    arguments : tuple of Named
        The rule's, without a row's mean of squares.
    arrays : list of str
        The names of all arrays, in memory's order: parameter, gradient, states.
    scalars : list of str
        Then the numbers that ``span`` takes: the row's mean, coefficients.
    wide : dict of str to int
        Of these, those in the type of wider gradients, and which of the rule's they are.
    after : list of str
        What ``span`` takes after these, the rule's coefficients and the row's mean: random
        numbers' keys, and memory for blocks.
    """

    def __init__(self, rule: Rule, formats: Formats, by_row: Sequence[str] = ()) -> None:
        self.rule, self.formats = rule, formats
        self.arguments = named(rule, formats)
        self.arrays = [name for one in self.arguments for name in one.arrays]
        self.held = [f"{one.name}_held" for one in self.arguments if one.format.block]
        self.after = RANDOM * formats.random + self.held
        self._by_row = [f"{name}_" for name in by_row]
        self._new = [f"_new_{name}" for name in by_row]
        mean = ["mean_square"] * (rule.squared is not None)
        self._numbers = [*mean, *rule.coefficients]
        scale = self.arguments[1].scaling
        self.wide = scale.positions if scale else {}
        self.scalars = [*self._numbers, *self.wide]
        text = KEYS if formats.random else ""
        self.text = text + (self._blocks() if formats.block else self._span())

    def _called(self) -> str:
        """The rule's call: the new parameter and states from elements ``i``."""
        old = []
        for one in self.arguments:
            at = [f"{array}[i]" for array in one.arrays]
            if one.format.block:
                at = [f"{one.arrays[0]}[i]", f"{one.name}_base"]
            by_row = one.arrays[0] in self._by_row
            old.append(one.arrays[0] if by_row else one.load(self.formats.compute, at))
        new = [f"_new_{one.name}" for one in self._updated()]
        return f"{', '.join(new)} = {self.rule.symbol}({', '.join([*old, *self._numbers])})"

    def _updated(self) -> list[Named]:
        return [self.arguments[0], *self.arguments[2:]]

    def _stores(self, one: Named) -> list[str]:
        at = [f"{array}[i]" for array in one.arrays]
        stored = one.store(self.formats.compute, at, f"_new_{one.name}")
        return [f"{place} = {text}" for place, text in zip(at, stored, strict=True)]

    def _span(self) -> str:
        """A loop, or of states with one number for the row a loop that returns the last ones."""
        wide = [one for one in self._updated() if one.arrays[0] not in self._by_row]
        random, paired = self.formats.random, self.formats.paired
        lines = [DRAWN_HALF if paired else DRAWN] * random + [self._called()]
        lines += [line for one in wide for line in self._stores(one)]
        lines += [NEXT] * (random and not paired)
        size, given = self.arguments[1].arrays[0], [*self.arrays, *self.scalars]
        first = "number" if paired else "element"
        text = SPAN.format(
            name="on_page" if random else "span",
            begin=self._kept(),
            given=", ".join(given + [first, "first_key", "second_key"] * random),
            size=size,
            lines=indented(lines, 8),
        )
        if not random:
            return text + self._returned()
        text += self._returned()
        parts = {n: n if n in self._by_row else f"{n}[done:stop]" for n in self.arrays}
        common = {
            "given": ", ".join(given + RANDOM),
            "size": size,
            "sliced": ", ".join([*parts.values(), *self.scalars]),
        }
        if not paired:
            new = "".join(f"{', '.join(self._new)} = " * bool(self._new))
            return text + PAGES.format(kept=self._kept(), new=new, **common) + self._returned()
        words = parts | {name: f"pairs({name}[done:stop])" for name in self._short()}
        return text + PAIRS.format(
            pairs=", ".join(given),
            word=next(name for name in self._short() if name != size),
            lines=indented(self._pair(), 8),
            words=", ".join([*words.values(), *self.scalars]),
            **common,
        )

    def _pair(self) -> list[str]:
        """The lines of two neighbours; those of 16 bits lie in the halves of a word."""
        lines, stored, short = [], dict[str, list[str]](), self._short()
        for half in (0, 1):
            word = "U({}[i] & U(65535))" if half == 0 else "U({}[i] >> U(16))"
            at = {
                name: word.format(name) if name in short else f"{name}[2 * i + {half}]"
                for name in self.arrays
            }
            old = [one.load(self.formats.compute, [at[n] for n in one.arrays])
                   for one in self.arguments]  # fmt: skip
            new = ", ".join(f"_new_{one.name}" for one in self._updated())
            lines.append(f"{new} = {self.rule.symbol}({', '.join([*old, *self._numbers])})")
            for one in self._updated():
                texts = one.store(self.formats.compute, one.arrays, f"_new_{one.name}", half)
                for name, text in zip(one.arrays, texts, strict=True):
                    code = f"{name}{half}" if name in short else at[name]
                    stored.setdefault(name, []).append(code)
                    lines.append(f"{code} = {text}")
        for name in short:
            if name in stored:
                low, high = stored[name]
                lines.append(f"{name}[i] = U({low} | U({high} << U(16)))")
        return lines

    def _short(self) -> list[str]:
        """The names of arrays of 16 bits."""
        return [
            name
            for one in self.arguments
            for name, (_, dtype) in zip(one.arrays, one.format.parts, strict=True)
            if dtype == "uint16"
        ]

    def _kept(self) -> str:
        """States with one number for the row come as they were, and are returned."""
        pairs = zip(self._new, self._by_row, strict=True)
        return "".join(f"\n    {new} = {old}" for new, old in pairs)

    def _returned(self) -> str:
        return f"    return {', '.join(self._new)}\n" if self._new else ""

    def _blocks(self) -> str:
        """Three loops over each block: update, with what is to be coded held; encode."""
        coded = [one for one in self._updated() if one.format.block]
        inside: list[str] = []
        sliced: list[str] = []
        for one in self.arguments:
            by_row = one.arrays[0] in self._by_row
            kept = one.arrays[:1] if one.format.block or by_row else one.arrays
            inside += kept
            sliced += kept if by_row else [f"{name}[start:stop]" for name in kept]
        inside += [f"{one.name}_base" for one in coded] + self.held
        sliced += [f"{one.name}_base" for one in coded] + self.held
        lines, encode, quickly = [self._called()], [DRAWN], [DRAWN]
        drawn = any(one.format.random and not one.format.block for one in self._updated())
        if drawn:
            lines.insert(0, DRAWN)
        for one in self._updated():
            if one in coded:
                held = f"{one.name}_held[i]"
                lines.append(f"{held} = _new_{one.name}")
                at = ["", f"{one.name}_base"]
                (store,) = one.store(self.formats.compute, at, held)
                encode.append(f"{one.arrays[0]}[i] = {store}")
                (quick,) = one.store(self.formats.compute, at, held, quick=True)
                quickly.append(f"{one.arrays[0]}[i] = {quick}")
            elif one.arrays[0] not in self._by_row:
                lines += self._stores(one)
        lines += [NEXT] * drawn
        encode.append(NEXT)
        quickly.append(NEXT)
        scales = {one: f"{one.arrays[1]}[block]" for one in coded}
        bases = [f"{one.name}_base = {one.format.block}_base({scales[one]})" for one in coded]
        new = [f"{scales[one]} = {one.format.block}_scale({one.name}_largest)" for one in coded]
        moved = ["low", "first", "second"]
        common = {
            "coded": ", ".join(f"{o.arrays[0]}, {o.name}_base, {o.name}_held" for o in coded),
            "first": coded[0].arrays[0],
        }
        parts = ", ".join(f"{o.arrays[0]}[start:stop], {o.name}_base, {o.name}_held" for o in coded)
        signed = [one for one in coded if one.format.quick]
        quick = " and ".join(
            f"all_quick(smallest_of({o.name}_held, stop - start), {o.name}_base)" for o in signed
        )
        call = f"encode_block({parts}, low, first, second)"
        if signed:
            call = QUICK_CALL.format(quick=quick, parts=parts)
        return BLOCKS.format(
            inside=", ".join([*inside, *self.scalars, "element, first_key, second_key"]),
            returned=self._returned(),
            size=self.arguments[1].arrays[0],
            lines=indented(lines, 8),
            new="".join(f"{', '.join(self._new)} = " * bool(self._new)),
            extents=indented(
                (f"{o.name}_largest = largest_of({o.name}_held, stop - start)" for o in coded), 8
            ),
            encode=indented(encode, 8),
            quickly=QUICKLY.format(quickly=indented(quickly, 8), **common) * bool(signed),
            encode_call=indented(call.split("\n"), 8),
            given=", ".join([*self.arrays, *self.scalars, *self.after]),
            kept=self._kept(),
            bases=indented(bases, 8),
            sliced=", ".join([*sliced, *self.scalars, *moved]),
            encoded=indented([*new, *bases], 8),
            block=BLOCK,
            **common,
        ) + self._returned()  # fmt: skip
