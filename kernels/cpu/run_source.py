"""The text of an update of a run of elements: the loop in which a rule is called, on the CPU.

Every traversal has it. A run lies within one row of one array, or within one array; where elements
share scales it begins with a block.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..formats import BLOCK, Formats, Named, named
from ..rule import Rule

RANDOM = ["low", "first_key", "second_key", "later_key"]
"""What random bits are made of: the lower half of the first element's number, the two keys, and
the second one where that half has wrapped around."""

_DRAWN = (
    "random = random_bits("
    "U(low + U(i)), first_key, where(U(low + U(i)) < low, later_key, second_key))"
)

_KEYS = """

@njit(**OPTIONS)
def keys_of(key, step):
    return key_of(U(key), step), key_of(U(key >> 32), step)
"""

_SPAN = """

@njit(**OPTIONS)
def span({given}):{begin}
    for i in range({size}.size):
{lines}
"""

_DRAWN_IN_BLOCK = "random = random_bits(U(low + U(i)), first_key, second_key)"
"""The keys are those of the block's first element."""

_BLOCKS = """

@njit(**OPTIONS)
def update_block({inside}):
{begin}
    for i in range({size}.size):
{lines}
    return {largest}


@njit(**OPTIONS)
def encode_block({coded}, low, first_key, second_key):
    for i in range({first}.size):
{encode}


@njit(**OPTIONS)
def span({given}):{kept}
    for block in range(({size}.size + {block} - 1) // {block}):
        start = block * {block}
        stop = min(start + {block}, {size}.size)
        offset = U(low + U(start))
        onwards = where(offset < low, later_key, second_key)
{bases}
        {largest} = update_block({sliced})
{encoded}
        encode_block({parts}, offset, first_key, onwards)
"""


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
    after : list of str
        What ``span`` takes after these, the rule's coefficients and the row's mean: random
        numbers' keys, and memory for blocks.
    """

    def __init__(self, rule: Rule, formats: Formats, by_row: Sequence[str] = ()) -> None:
        self.rule, self.formats = rule, formats
        self.arguments = named(rule, formats)
        self.arrays = [name for one in self.arguments for name in one.arrays]
        self.held = [f"{one.name}_held" for one in self.arguments if one.form.block]
        self.after = RANDOM * formats.random + self.held
        self._by_row = [f"{name}_" for name in by_row]
        self._new = [f"_new_{name}" for name in by_row]
        mean = ["mean_square"] * (rule.squared is not None)
        self.scalars = [*mean, *rule.coefficients]
        text = _KEYS if formats.random else ""
        self.text = text + (self._blocks() if formats.block else self._span())

    def _called(self) -> str:
        """The rule's call: the new parameter and states from elements ``i``."""
        old = []
        for one in self.arguments:
            at = [f"{array}[i]" for array in one.arrays]
            if one.form.block:
                at = [f"{one.arrays[0]}[i]", f"{one.name}_base"]
            by_row = one.arrays[0] in self._by_row
            old.append(one.arrays[0] if by_row else one.load(self.formats.compute, at))
        new = [f"_new_{one.name}" for one in self._updated()]
        return f"{', '.join(new)} = {self.rule.symbol}({', '.join([*old, *self.scalars])})"

    def _updated(self) -> list[Named]:
        return [self.arguments[0], *self.arguments[2:]]

    def _stores(self, one: Named) -> list[str]:
        at = [f"{array}[i]" for array in one.arrays]
        stored = one.store(self.formats.compute, at, f"_new_{one.name}")
        return [f"{place} = {text}" for place, text in zip(at, stored, strict=True)]

    def _span(self) -> str:
        """A loop, or of states with one number for the row a loop that returns the last ones."""
        wide = [one for one in self._updated() if one.arrays[0] not in self._by_row]
        lines = [_DRAWN] * self.formats.random + [self._called()]
        lines += [line for one in wide for line in self._stores(one)]
        text = _SPAN.format(
            begin=self._kept(),
            given=", ".join([*self.arrays, *self.scalars, *self.after]),
            size=self.arguments[1].arrays[0],
            lines=indented(lines, 8),
        )
        return text + self._returned()

    def _kept(self) -> str:
        """States with one number for the row come as they were, and are returned."""
        pairs = zip(self._new, self._by_row, strict=True)
        return "".join(f"\n    {new} = {old}" for new, old in pairs)

    def _returned(self) -> str:
        return f"    return {', '.join(self._new)}\n" if self._new else ""

    def _blocks(self) -> str:
        """Three loops over each block: update, with what is to be coded held; encode."""
        coded = [one for one in self._updated() if one.form.block]
        inside, sliced = [], []
        for one in self.arguments:
            by_row = one.arrays[0] in self._by_row
            kept = one.arrays[:1] if one.form.block or by_row else one.arrays
            inside += kept
            sliced += kept if by_row else [f"{name}[start:stop]" for name in kept]
        inside += [f"{one.name}_base" for one in coded] + self.held
        sliced += [f"{one.name}_base" for one in coded] + self.held
        lines, encode = [self._called()], [_DRAWN_IN_BLOCK]
        if any(one.form.random and not one.form.block for one in self._updated()):
            lines.insert(0, _DRAWN_IN_BLOCK)
        for one in self._updated():
            if one in coded:
                held = f"{one.name}_held[i]"
                lines.append(f"{held} = _new_{one.name}")
                lines.append(f"{one.name}_largest = larger({one.name}_largest, S(_new_{one.name}))")
                at = ["", f"{one.name}_base"]
                (store,) = one.store(self.formats.compute, at, held)
                encode.append(f"{one.arrays[0]}[i] = {store}")
            elif one.arrays[0] not in self._by_row:
                lines += self._stores(one)
        scales = {one: f"{one.arrays[1]}[block]" for one in coded}
        bases = [f"{one.name}_base = {one.form.block}_base({scales[one]})" for one in coded]
        new = [f"{scales[one]} = {one.form.block}_scale({one.name}_largest)" for one in coded]
        moved = ["offset", "first_key", "onwards"]
        return _BLOCKS.format(
            inside=", ".join([*inside, *self.scalars, "low, first_key, second_key"]),
            begin=indented([f"{one.name}_largest = U(0)" for one in coded], 4) + self._kept(),
            size=self.arguments[1].arrays[0],
            lines=indented(lines, 8),
            largest=", ".join([*(f"{one.name}_largest" for one in coded), *self._new]),
            coded=", ".join(f"{o.arrays[0]}, {o.name}_base, {o.name}_held" for o in coded),
            first=coded[0].arrays[0],
            encode=indented(encode, 8),
            given=", ".join([*self.arrays, *self.scalars, *self.after]),
            kept=self._kept(),
            bases=indented(bases, 8),
            sliced=", ".join([*sliced, *self.scalars, *moved]),
            encoded=indented([*new, *bases], 8),
            parts=", ".join(
                f"{o.arrays[0]}[start:stop], {o.name}_base, {o.name}_held" for o in coded
            ),
            block=BLOCK,
        ) + self._returned()  # fmt: skip


def indented(lines: Sequence[str], by: int) -> str:
    """Lines of a block."""
    return "\n".join(" " * by + line for line in lines)
