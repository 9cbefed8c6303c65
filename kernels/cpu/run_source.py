"""The text of an update of a run of elements: the loop in which a rule is called, on the CPU.

Every traversal has it. A run lies within one row of one array, or within one array; where elements
share scales it begins with a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..formats import BLOCK, SIGNED8, Formats, Named, named
from ..rule import Rule

RANDOM = ["begin", "first_key", "second_key"]
"""What random bits are made of: the number of the first element, and the two keys."""

_DRAWN = "random = random_bits(U(low + U(i)), first_key, second_key)"

_KEYS = """

@njit(**OPTIONS)
def keys_of(key, step):
    return key_of(U(key), step), key_of(U(key >> 32), step)
"""

_SPAN = """

@njit(**OPTIONS)
def {name}({given}):{begin}
    for i in range({size}.size):
{lines}
"""

_PAGES = """

@njit(**OPTIONS)
def span({given}):{kept}
    done = 0
    while done < {size}.size:  # once, unless elements' numbers pass a multiple of 2^32
        number = begin + done
        stop = min(done + 2**32 - (number & (2**32 - 1)), {size}.size)
        page = U(number >> 32)
        {new}on_page({sliced}, U(number), key_on(first_key, page), key_on(second_key, page))
        done = stop
"""

_HASH = "random_bits(U((number + i) >> 1), first_key, second_key)"
_DRAWN_HALF = f"random = U({_HASH} << U(((number + i) & 1) << 4))"

_PAIRS = """

@njit(**OPTIONS)
def on_pairs({pairs}, number, first_key, second_key):
    low = U(number >> 1)
    for i in range({word}.size):
        drawn = random_bits(U(low + U(i)), first_key, second_key)
{lines}


@njit(**OPTIONS)
def span({given}):
    done = 0
    while done < {size}.size:
        number = begin + done
        stop = min(done + 2**33 - (number & (2**33 - 1)), {size}.size)
        first, second = key_on(first_key, U(number >> 33)), key_on(second_key, U(number >> 33))
        if number & 1 == 0:
            on_pairs({words}, number, first, second)
            number += (stop - done) // 2 * 2
            done += (stop - done) // 2 * 2
        on_page({sliced}, number, first, second)
        done = stop
"""
"""Two neighbours at a time, if the first one's number is even, and what is left one by one."""

_BLOCKS = """

@njit(**OPTIONS)
def largest_of(held, size):
    largest = U(0)
    for i in range(size):
        largest = larger(largest, S(held[i]))
    return largest


@njit(**OPTIONS)
def update_block({inside}):{kept}
    for i in range({size}.size):
{lines}
{returned}

@njit(**OPTIONS)
def encode_block({coded}, low, first_key, second_key):
    for i in range({first}.size):
{encode}


{quickly}
@njit(**OPTIONS)
def span({given}):{kept}
    for block in range(({size}.size + {block} - 1) // {block}):
        start = block * {block}
        stop = min(start + {block}, {size}.size)
        low, page = U(begin + start), U((begin + start) >> 32)
        first, second = key_on(first_key, page), key_on(second_key, page)
{bases}
        {new}update_block({sliced})
{extents}
{encoded}
{encode_call}
"""

_QUICKLY = """
@njit(**OPTIONS)
def smallest_of(held, size):
    smallest = U(2**32 - 1)
    for i in range(size):
        smallest = smaller(smallest, S(held[i]))
    return smallest


@njit(**OPTIONS)
def encode_quickly({coded}, low, first_key, second_key):
    for i in range({first}.size):
{quickly}

"""

_QUICK_CALL = """if {quick}:
    encode_quickly({parts}, low, first, second)
else:
    encode_block({parts}, low, first, second)"""


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
        random, paired = self.formats.random, self.formats.paired
        lines = [_DRAWN_HALF if paired else _DRAWN] * random + [self._called()]
        lines += [line for one in wide for line in self._stores(one)]
        size, given = self.arguments[1].arrays[0], [*self.arrays, *self.scalars]
        first = "number" if paired else "low"
        text = _SPAN.format(
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
            return text + _PAGES.format(kept=self._kept(), new=new, **common) + self._returned()
        words = parts | {name: f"pairs({name}[done:stop])" for name in self._short()}
        return text + _PAIRS.format(
            pairs=", ".join(given),
            word=next(name for name in self._short() if name != size),
            lines=indented(self._pair(), 8),
            words=", ".join([*words.values(), *self.scalars]),
            **common,
        )

    def _pair(self) -> list[str]:
        """The lines of two neighbours; those of 16 bits lie in the halves of a word."""
        lines, stored, short = [], dict[str, list[str]](), self._short()
        for half, drawn in enumerate(("drawn", "U(drawn << U(16))")):
            word = "U({}[i] & U(65535))" if half == 0 else "U({}[i] >> U(16))"
            at = {
                name: word.format(name) if name in short else f"{name}[2 * i + {half}]"
                for name in self.arrays
            }
            old = [one.load(self.formats.compute, [at[n] for n in one.arrays])
                   for one in self.arguments]  # fmt: skip
            new = ", ".join(f"_new_{one.name}" for one in self._updated())
            lines.append(f"random = {drawn}")
            lines.append(f"{new} = {self.rule.symbol}({', '.join([*old, *self.scalars])})")
            for one in self._updated():
                texts = one.store(self.formats.compute, one.arrays, f"_new_{one.name}")
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
            for name, (_, dtype) in zip(one.arrays, one.form.parts, strict=True)
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
        coded = [one for one in self._updated() if one.form.block]
        inside: list[str] = []
        sliced: list[str] = []
        for one in self.arguments:
            by_row = one.arrays[0] in self._by_row
            kept = one.arrays[:1] if one.form.block or by_row else one.arrays
            inside += kept
            sliced += kept if by_row else [f"{name}[start:stop]" for name in kept]
        inside += [f"{one.name}_base" for one in coded] + self.held
        sliced += [f"{one.name}_base" for one in coded] + self.held
        lines, encode, quickly = [self._called()], [_DRAWN], [_DRAWN]
        if any(one.form.random and not one.form.block for one in self._updated()):
            lines.insert(0, _DRAWN)
        for one in self._updated():
            if one in coded:
                held = f"{one.name}_held[i]"
                lines.append(f"{held} = _new_{one.name}")
                at = ["", f"{one.name}_base"]
                (store,) = one.store(self.formats.compute, at, held)
                encode.append(f"{one.arrays[0]}[i] = {store}")
                quick = store.replace("signed8_random", "signed8_quick", 1)
                quick = quick if one.form == SIGNED8 else store
                quickly.append(f"{one.arrays[0]}[i] = {quick}")
            elif one.arrays[0] not in self._by_row:
                lines += self._stores(one)
        scales = {one: f"{one.arrays[1]}[block]" for one in coded}
        bases = [f"{one.name}_base = {one.form.block}_base({scales[one]})" for one in coded]
        new = [f"{scales[one]} = {one.form.block}_scale({one.name}_largest)" for one in coded]
        moved = ["low", "first", "second"]
        common = {
            "coded": ", ".join(f"{o.arrays[0]}, {o.name}_base, {o.name}_held" for o in coded),
            "first": coded[0].arrays[0],
        }
        parts = ", ".join(f"{o.arrays[0]}[start:stop], {o.name}_base, {o.name}_held" for o in coded)
        signed = [one for one in coded if one.form == SIGNED8]
        quick = " and ".join(
            f"all_quick(smallest_of({o.name}_held, stop - start), {o.name}_base)" for o in signed
        )
        call = f"encode_block({parts}, low, first, second)"
        if signed:
            call = _QUICK_CALL.format(quick=quick, parts=parts)
        return _BLOCKS.format(
            inside=", ".join([*inside, *self.scalars, "low, first_key, second_key"]),
            returned=self._returned(),
            size=self.arguments[1].arrays[0],
            lines=indented(lines, 8),
            new="".join(f"{', '.join(self._new)} = " * bool(self._new)),
            extents=indented(
                (f"{o.name}_largest = largest_of({o.name}_held, stop - start)" for o in coded), 8
            ),
            encode=indented(encode, 8),
            quickly=_QUICKLY.format(quickly=indented(quickly, 8), **common) * bool(signed),
            encode_call=indented(call.split("\n"), 8),
            given=", ".join([*self.arrays, *self.scalars, *self.after]),
            kept=self._kept(),
            bases=indented(bases, 8),
            sliced=", ".join([*sliced, *self.scalars, *moved]),
            encoded=indented([*new, *bases], 8),
            block=BLOCK,
            **common,
        ) + self._returned()  # fmt: skip


def indented(lines: Iterable[str], by: int) -> str:
    """Lines of a block."""
    return "\n".join(" " * by + line for line in lines)
