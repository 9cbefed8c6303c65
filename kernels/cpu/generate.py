"""The writer of CPU kernels: the head that depends on a rule and its formats.

Everything else is in `loops/`, whose `interface` says what a head defines. In a head ``p_`` is the
array of an argument ``p``, and ``p_scale__`` an array beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np

from ..formats import BLOCK, Conversion, Format, Formats, Named, load, named, needed, scaling
from ..language import primitives
from ..language.emit import indented
from ..language.rule import Rule
from ..language.scaling import Scaling
from ..numerics.summation import LANES
from . import compile

DRAWN = "random_bits(element, first_key, second_key)"


def preamble(
    dtype: str, conversions: Sequence[Conversion], called: Sequence[str] = ("where",)
) -> str:
    """Return the compute type, and the functions that rules and conversions call."""
    functions = [inspect.getsource(getattr(primitives, name)).rstrip() for name in called]
    if conversions:
        functions.append("def truncated(x):\n    return U(x)")
        functions += [conversion.python for conversion in conversions]
    return (
        f"T = np.{dtype}" + "".join(f"\n\n\n@njit(**OPTIONS)\n{text}" for text in functions) + "\n"
    )


def rule_preamble(rule: Rule, formats: Formats) -> str:
    """Return the `preamble` of a rule in its formats, and the rule as a function of numbers."""
    called = dict.fromkeys((*["where"] * bool(formats.conversions), *rule.functions))
    text = preamble(formats.compute, formats.conversions, tuple(called))
    return text + rule_function(rule, formats)


def rule_function(rule: Rule, formats: Formats | None = None) -> str:
    """Return the rule as a function of numbers: the new parameter and states.

    With ``formats`` of a wider gradient, after the function that scales it.
    """
    wide = scaling(rule, formats) if formats else None
    formulas = [
        f"# {name} = {formula}"
        for name, formula in rule.coefficients.items()
        if name != f"h_{formula}"
    ]
    lines = [f"{a} = {b}" for a, b in (wide.remaining if wide else rule.lines)]
    return (_scaling_function(wide) if wide else "") + _function(
        rule.symbol,
        [*rule.program.arguments, *rule.coefficients],
        [*formulas, *lines, f"return {', '.join(rule.results)}"],
    )


def _scaling_function(wide: Scaling) -> str:
    """The scaling of a gradient before it is rounded, as a function of numbers."""
    lines = [f"{target} = {expression}" for target, expression in wide.lines]
    return _function(
        wide.symbol, [wide.gradient, *wide.coefficients], [*lines, f"return {wide.result}"]
    )


def _function(name: str, arguments: Sequence[str], lines: Sequence[str]) -> str:
    head = f"def {name}({', '.join(arguments)}):"
    return "\n".join(["", "", "@njit(**OPTIONS)", head, indented(lines, 4), ""])


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def _unpacked(names: Sequence[str], source: str) -> list[str]:
    return [f"{_tuple(names)} = {source}"] if names else []


class Elements:
    """The functions of a head that load, update and store elements.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    by_row : sequence of str
        The states with one number for each row of a table.

    Attributes
    ----------
    arguments : tuple of Named
        The rule's arguments, without a row's mean of squares.
    arrays : list of str
        The names of all arrays, in memory's order: parameter, gradient, states.
    scalars : list of str
        The numbers of an update: the row's mean of squares, coefficients, coefficients in the
        type of wider gradients.
    wide : dict of str to int
        Of these, those in the type of wider gradients, and which of the rule's they are.
    loops : list of str
        The loop files that define ``update_span``.
    """

    def __init__(self, rule: Rule, formats: Formats, by_row: Sequence[str] = ()) -> None:
        self.rule, self.formats = rule, formats
        self.arguments = named(rule, formats)
        self.arrays = [name for one in self.arguments for name in one.arrays]
        self._by_row = [f"{name}_" for name in by_row]
        self._new_row_states = [f"_new_{name}" for name in by_row]
        scale = self.arguments[1].scaling
        self.wide = scale.positions if scale else {}
        mean = ["mean_square"] * (rule.squared is not None)
        self._numbers = [*mean, *rule.coefficients]
        self.scalars = [*self._numbers, *self.wide]
        self._updated = [self.arguments[0], *self.arguments[2:]]
        self._coded = [one for one in self._updated if one.format.block]
        self._short = [
            name
            for one in self.arguments
            for name, (_, dtype) in zip(one.arrays, one.format.parts, strict=True)
            if dtype == "uint16"
        ]
        if formats.block:
            quick = any(one.format.quick for one in self._coded)
            self.loops = ["smallest"] * quick + ["blocks"]
        elif formats.paired:
            self.loops = ["paired_elements"]
        else:
            self.loops = ["random_elements" if formats.random else "elements"]

    def text(self) -> str:
        """Return the functions of `loops.interface` that the loop over elements calls."""
        text = self._views()
        if self.formats.random:
            text += _function(
                "keys_of",
                ["key", "step"],
                ["return key_of(U(key), step), key_of(U(key >> 32), step)"],
            )
        if self.formats.block:
            return text + self._blocks()
        text += self._update("update", ["i", "arrays", "scalars", "random"])
        return text + (self._update_pair() if self.formats.paired else "")

    def _views(self) -> str:
        """``size_of``, ``slice_of`` and ``row_states``; of pairs ``pairs_of`` and their count."""
        unpack = _unpacked(self.arrays, "arrays")
        whole = {*self._by_row, *(one.arrays[1] for one in self._coded)}
        sliced = [name if name in whole else f"{name}[start:stop]" for name in self.arrays]
        size = self.arguments[1].arrays[0]
        functions = {
            "size_of(arrays)": [*unpack, f"return {size}.size"],
            "slice_of(arrays, start, stop)": [*unpack, f"return {_tuple(sliced)}"],
            "row_states(arrays)": [*unpack, f"return {_tuple(self._by_row)}"],
        }
        if self.formats.paired:
            words = [f"pairs({name})" if name in self._short else name for name in self.arrays]
            word = next(name for name in self._short if name != size)
            functions["pairs_of(arrays)"] = [*unpack, f"return {_tuple(words)}"]
            functions["pair_count(arrays)"] = [*unpack, f"return {word}.size"]
        text = ""
        for head, lines in functions.items():
            name, _, arguments = head.rstrip(")").partition("(")
            text += _function(name, [arguments], lines)
        return text

    def _call(self) -> str:
        """The rule's call: the new parameter and states from elements ``i``."""
        old = []
        for one in self.arguments:
            at = [f"{array}[i]" for array in one.arrays]
            if one.format.block:
                at[1] = f"{one.name}_base"
            by_row = one.arrays[0] in self._by_row
            old.append(one.arrays[0] if by_row else one.load(self.formats.compute, at))
        new = [f"_new_{one.name}" for one in self._updated]
        return f"{', '.join(new)} = {self.rule.symbol}({', '.join([*old, *self._numbers])})"

    def _stores(self, one: Named) -> list[str]:
        at = [f"{array}[i]" for array in one.arrays]
        texts = one.store(self.formats.compute, at, f"_new_{one.name}")
        return [f"{place} = {text}" for place, text in zip(at, texts, strict=True)]

    def _update(self, name: str, arguments: Sequence[str], before: Sequence[str] = ()) -> str:
        lines = [*_unpacked(self.arrays, "arrays"), *_unpacked(self.scalars, "scalars"), *before]
        lines.append(self._call())
        for one in self._updated:
            if one in self._coded:
                lines.append(f"{one.name}_buffer[i] = _new_{one.name}")
            elif one.arrays[0] not in self._by_row:
                lines += self._stores(one)
        return _function(name, arguments, [*lines, f"return {_tuple(self._new_row_states)}"])

    def _update_pair(self) -> str:
        """The update of two neighbours; those of 16 bits are the halves of a word."""
        lines = [*_unpacked(self.arrays, "arrays"), *_unpacked(self.scalars, "scalars")]
        stored = dict[str, list[str]]()
        for half in (0, 1):
            word = "U({}[i] & U(65535))" if half == 0 else "U({}[i] >> U(16))"
            at = {
                name: word.format(name) if name in self._short else f"{name}[2 * i + {half}]"
                for name in self.arrays
            }
            old = [
                one.load(self.formats.compute, [at[n] for n in one.arrays])
                for one in self.arguments
            ]
            new = ", ".join(f"_new_{one.name}" for one in self._updated)
            lines.append(f"{new} = {self.rule.symbol}({', '.join([*old, *self._numbers])})")
            for one in self._updated:
                texts = one.store(self.formats.compute, one.arrays, f"_new_{one.name}", half)
                for name, text in zip(one.arrays, texts, strict=True):
                    code = f"{name}{half}" if name in self._short else at[name]
                    stored.setdefault(name, []).append(code)
                    lines.append(f"{code} = {text}")
        for name in self._short:
            if name in stored:
                low, high = stored[name]
                lines.append(f"{name}[i] = U({low} | U({high} << U(16)))")
        return _function("update_pair", ["i", "arrays", "scalars", "random"], lines)

    def _blocks(self) -> str:
        """The functions of `loops.blocks`: update into buffers, find scales, encode."""
        coded, arrays = self._coded, _unpacked(self.arrays, "arrays")
        bases = _unpacked([f"{one.name}_base" for one in coded], "bases")
        buffers = _unpacked([f"{one.name}_buffer" for one in coded], "buffers")
        scales = [f"{one.arrays[1]}[block]" for one in coded]
        text = self._update(
            "update_buffered",
            ["i", "arrays", "bases", "buffers", "scalars", "random"],
            [*bases, *buffers],
        )
        found = [
            f"{one.format.block}_base({scale})" for one, scale in zip(coded, scales, strict=True)
        ]
        text += _function("bases_of", ["arrays", "block"], [*arrays, f"return {_tuple(found)}"])
        store = [
            f"{scale} = {one.format.block}_scale(largest_of({one.name}_buffer, size))"
            for one, scale in zip(coded, scales, strict=True)
        ]
        text += _function(
            "store_scales", ["arrays", "block", "buffers", "size"], [*arrays, *buffers, *store]
        )
        for quick in (False, True):
            lines = [*arrays, *bases, *buffers]
            for one in coded:
                at = ["", f"{one.name}_base"]
                (code,) = one.store(self.formats.compute, at, f"{one.name}_buffer[i]", quick=quick)
                lines.append(f"{one.arrays[0]}[i] = {code}")
            text += _function(
                "encode_quickly" if quick else "encode",
                ["i", "arrays", "bases", "buffers", "random"],
                lines,
            )
        every = [
            f"all_quick(smallest_of({one.name}_buffer, size), {one.name}_base)"
            for one in coded
            if one.format.quick
        ]
        return text + _function(
            "is_quick",
            ["buffers", "bases", "size"],
            [*bases, *buffers, f"return {' and '.join(every) or 'False'}"],
        )


def multi_tensor(rule: Rule, formats: Formats, prefetched: bool, ahead: int) -> str:
    """Return the module of `loops.multi_tensor`, as Numba compiles it.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    prefetched : bool
        Ask for memory ahead of its use.
    ahead : int
        By how many bytes.
    """
    elements = Elements(rule, formats)
    text = [rule_preamble(rule, formats), f"TABLES, BLOCK = {len(formats.tables)}, {BLOCK}\n"]
    text += [elements.text(), _arrays_at(elements), _coefficients_at(rule, elements.wide)]
    keys = f"keys_of(tables[0][array], U(numbers[offset + {len(rule.coefficients)}]))"
    text.append(
        _function(
            "keys_at",
            ["tables", "array", "numbers", "offset"],
            [f"return {keys}" if formats.random else "return ()"],
        )
    )
    buffers = [f"np.empty({BLOCK}, T)" for one in elements._coded]
    text.append(_function("block_buffers", [], [f"return {_tuple(buffers)}"]))
    chunk = "chunk"
    if formats.block:
        chunk = "chunk_of_blocks"
        text.append(_function("width_of", ["tables", "array"], ["return tables[-1][array]"]))
    elif prefetched and formats.uniform:
        chunk = "chunk_prefetched"
        itemsize = formats.itemsize
        text.append(f"AHEAD, LINE = {ahead // itemsize}, {compile.LINE // itemsize}\n")
        lines = [*_unpacked(elements.arrays, "arrays")]
        lines += [f"prefetch({name}, index)" for name in elements.arrays]
        text.append(_function("prefetch_ahead", ["arrays", "index"], lines))
    return compile.link(
        title(rule, formats, "many"),
        "".join(text),
        *elements.loops,
        chunk,
        "multi_tensor",
        "scheduling",
    )


def title(rule: Rule, formats: Formats, traversal: str) -> str:
    """Return the first line of a module."""
    kept = ", ".join(one.name for one in formats.every)
    text = f"{rule.name}, {traversal}, {formats.compute}"
    return text if formats.uniform else f"{text}: {kept}"


def _arrays_at(elements: Elements) -> str:
    parameter, gradient, *states = elements.arguments
    updated = [name for one in (parameter, *states) for name in one.arrays]
    addresses = {name: f"addresses[array, {k}]" for k, name in enumerate(updated)}
    addresses[gradient.arrays[0]] = "gradients[array]"
    views = []
    for one in elements.arguments:
        for name, (part, dtype) in zip(one.arrays, one.format.parts, strict=True):
            of_block = part == "scale"
            offset = f"{'block' if of_block else 'start'} * {np.dtype(dtype).itemsize}"
            count = f"(size + {BLOCK} - 1) // {BLOCK}" if of_block else "size"
            views.append(f"memory(np.{dtype}, {addresses[name]} + {offset}, {count})")
    return _function(
        "arrays_at",
        ["array", "start", "size", "block", "addresses", "gradients"],
        ["return (", *(f"    {view}," for view in views), ")"],
    )


def _coefficients_at(rule: Rule, wide: dict[str, int]) -> str:
    numbers = [f"T(numbers[offset + {k}])" for k in range(len(rule.coefficients))]
    numbers += [f"numbers[offset + {k}]" for k in wide.values()]
    return _function("coefficients_at", ["numbers", "offset"], [f"return {_tuple(numbers)}"])


def squares(compute: str, form: Format, squared: bool) -> str:
    """Return the module of `loops.squares`, or of `loops.sums` if numbers are not squared.

    Parameters
    ----------
    compute : {"float32", "float64"}
        The type in which numbers are squared.
    form : Format
        The format of the gradients.
    squared : bool
    """
    name = "squares" if squared else "sums"
    ((_, dtype),) = form.parts
    of = f" of {form.name}" * (form.name != compute)
    text = [preamble(compute, needed(form.conversions)), f"LANES = {LANES}\n"]
    text.append(
        _function(
            "elements_at",
            ["address", "start", "size"],
            [f"return memory(np.{dtype}, address + start * {np.dtype(dtype).itemsize}, size)"],
        )
    )
    text.append(_function("value_of", ["x", "k"], [f"return {load(form, compute, ['x[k]'])}"]))
    return compile.link(f"{name}, {compute}{of}", "".join(text), name, "scheduling")
