"""Writes CUDA C that depends on a rule and its formats: all that is not in ``include/``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..catchup import plan as catchup
from ..catchup.plan import CatchUpPlan, history_layout
from ..formats import BLOCK, Conversion, Format, Formats, Named, load, named, needed, scaling
from ..formats.random_bits import DRAWN
from ..language.emit import indented
from ..language.rule import Rule
from ..language.scaling import Scaling
from .compile import read

TYPES = {
    "float32": "float",
    "float64": "double",
    "int32": "int",
    "int64": "long long",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
}

SIZES = {kind: np.dtype(dtype).itemsize for dtype, kind in TYPES.items()}
"""Bytes of the types."""

CLOSED = "\n}  // namespace gpuadapt\n"

PREAMBLE = read("ieee.cuh").removesuffix(CLOSED)
"""Exact numbers, with its namespace left open."""


def function(rule: Rule, formats: Formats | None = None) -> str:
    """The rule as a device function that replaces the parameter and the states by new ones.

    With ``formats``, of wider gradients: after the function that scales them.
    """
    wide = scaling(rule, formats) if formats else None
    updated = (rule.parameter, *rule.states)
    arguments = [
        f"T &{name}_" if name in updated else f"T {name}" for name in rule.program.arguments
    ]
    arguments += [f"T {name}" for name in rule.coefficients]
    lines = [
        f"    // {name} = {formula}"
        for name, formula in rule.coefficients.items()
        if name != f"h_{formula}"
    ]
    lines += [f"    T {name} = {name}_;" for name in updated]
    declared = set(rule.program.arguments)
    for target, expression in wide.remaining if wide else rule.lines:
        lines.append(f"    {'' if target in declared else 'T '}{target} = {expression};")
        declared.add(target)
    lines += [
        f"    {name}_ = {result};" for name, result in zip(updated, rule.results, strict=True)
    ]
    return (_scaled(wide) if wide else "") + "\n".join(
        [
            "\ntemplate <typename T>",
            f"__device__ inline void {rule.symbol}({', '.join(arguments)}) {{",
            *lines,
            "}",
        ]
    )


def _scaled(wide: Scaling) -> str:
    """What is done to gradients before they are rounded, as a device function."""
    arguments = ", ".join(f"T {name}" for name in (wide.gradient, *wide.coefficients))
    lines, declared = [], {wide.gradient}
    for target, expression in wide.lines:
        lines.append(f"    {'' if target in declared else 'T '}{target} = {expression};")
        declared.add(target)
    head = f"__device__ inline T {wide.symbol}({arguments}) {{"
    return "\n".join(
        ["\ntemplate <typename T>", head, *lines, f"    return {wide.result};", "}", ""]
    )


def codecs(given: Sequence[Conversion]) -> str:
    """Loads and stores as device functions."""
    return "".join(f"\n{conversion.cuda}\n" for conversion in given)


def loads(arguments: Sequence[Named], compute: str, at: Callable[[str], str]) -> list[str]:
    """Lines that make numbers, ``<name>_n``, of elements in memory."""
    lines = []
    for one in arguments:
        elements = [at(array) for array in one.arrays]
        if one.format.block:
            elements[1] = f"{one.name}_base"
        lines.append(f"T {one.name}_n = {one.load(compute, elements)};")
    return lines


def stores(
    arguments: Sequence[Named], compute: str, at: Callable[[str], str], half: int | str = 0
) -> list[str]:
    """Lines that write ``<name>_n`` to memory; ``half``: see `Named.store`."""
    lines = []
    for one in arguments:
        elements = [at(array) for array in one.arrays]
        texts = one.store(compute, elements, f"{one.name}_n", half)
        for place, text, (_, dtype) in zip(elements, texts, one.format.parts, strict=True):
            value = ".value" if dtype.startswith("float") else ""
            lines.append(f"{place} = {text}{value};")
    return lines


def coefficients(rule: Rule, first: str, ctype: str) -> str:
    """Write lines that read a rule's coefficients from a step's scalars, rounded."""
    lines = []
    for k, name in enumerate(rule.coefficients):
        lines.append(f"    gpuadapt::number<{ctype}> {name};")
        lines.append(f"    gpuadapt::ieee::narrow(numbers[{first} + {k}], {name}.value);")
    return "\n".join(lines)


NEIGHBOURS = 4
"""Neighbours in a block that a lane has: 32 lanes have 128 elements without gaps."""

_WHOLE = r"""
// A whole block, aligned; the first element has the number start + at.
{
    const int lane = threadIdx.x %% 32;
    const RandomBits draws(start + at, first_key, second_key);
%(declared)s
%(packs)s
#pragma unroll
    for (int part = 0; part < LANE_ELEMENTS / NEIGHBOURS; ++part) {
        const int i = (32 * part + lane) * NEIGHBOURS;
%(load)s
    }
#pragma unroll
    for (int part = 0; part < LANE_ELEMENTS / NEIGHBOURS; ++part) {
#pragma unroll
        for (int k = 0; k < NEIGHBOURS; ++k) {
            const int q = part * NEIGHBOURS + k, i = (32 * part + lane) * NEIGHBOURS + k;
%(update)s
        }
        const int i = (32 * part + lane) * NEIGHBOURS;
%(store)s
    }
    // Every lane has read the old scales before the new ones are written.
%(scales)s
    if (%(quick)s) {
%(quickly)s
    } else {
%(slowly)s
    }
}
"""

_CODES = r"""
#pragma unroll
    for (int part = 0; part < LANE_ELEMENTS / NEIGHBOURS; ++part) {
        const int i = (32 * part + lane) * NEIGHBOURS, q = part * NEIGHBOURS;
        U random[NEIGHBOURS];
#pragma unroll
        for (int k = 0; k < NEIGHBOURS; ++k) {
            random[k] = draws.of(i + k);
        }
%(codes)s
    }
"""

_PART = r"""
// A block of n elements, wherever they are.
{
    const int lane = threadIdx.x %% 32, count = (n - lane + 31) / 32;
    const RandomBits draws(start + at, first_key, second_key);
%(declared)s
#pragma unroll 1
    for (int q = 0; q < count; ++q) {
        const int i = lane + 32 * q;
%(update)s
    }
%(scales)s
#pragma unroll 1
    for (int q = 0; q < count; ++q) {
        const int i = lane + 32 * q;
        const U random = draws.of(i);
%(encode)s
    }
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
        self.head = namespace(codecs(formats.conversions))
        self.head += '#include "blocks.cuh"\n' if formats.block else '#include "streaming.cuh"\n'
        self.head += '#include "random.cuh"\n' * (formats.random and not formats.block)
        self.head += '#include "halves.cuh"\n'
        self.head += namespace(function(rule, formats))
        scale = self.arguments[1].scaling
        self.wide = scale.positions if scale else {}

    def types(self, of: Sequence[Named]) -> dict[str, str]:
        """The C++ types of the elements of arrays, by their names."""
        return {
            name: TYPES[dtype]
            for one in of
            for name, (_, dtype) in zip(one.arrays, one.format.parts, strict=True)
        }

    def macros(self) -> dict[str, object]:
        """Return the macros of elements that share scales or random bits."""
        if self.formats.block:
            used = {f"{one.block}": 1 for one in self.formats.updated if one.block}
            return {"block": BLOCK, "neighbours": NEIGHBOURS, **used}
        return {"block": 0, "paired": int(self.formats.paired)}

    def members(self, declared: Sequence[str]) -> list[str]:
        """Declare the members of an `Update`: those given, coefficients, keys of random bits."""
        return [
            *(f"{declaration};" for declaration in declared),
            *(f"T {name};" for name in self.rule.coefficients),
            *(f"D {name};" for name in self.wide),
            *["U first_key, second_key;"] * self.formats.random,
        ]

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

    def scalars(self, keys: str) -> list[str]:
        """Write `read`, of coefficients, and `seed`, of the arguments ``keys``, of an `Update`."""
        names = self.rule.coefficients
        read = [f"ieee::narrow(at({k}), {name}.value);" for k, name in enumerate(names)]
        read += [f"{name} = at({k});" for name, k in self.wide.items()]
        seed = [
            "const U step = U(number);",
            "first_key = key_of(U(key), step);",
            "second_key = key_of(U(key >> 32), step);",
        ]
        return [
            "    template <typename At>\n" + _method("void read(At at)", read),
            "    template <typename Step>\n"
            + _method(f"void seed({keys})", seed if self.formats.random else []),
        ]

    def block(
        self,
        by_gradient: bool = False,
        before: Sequence[str] = (),
        mean: Sequence[str] = (),
        by_row: Sequence[str] = (),
        strided: Callable[[str, str], str] | None = None,
    ) -> str:
        """The update of a block: ``start + at`` (its first element), ``n`` and ``block`` are given.

        Parameters
        ----------
        by_gradient : bool
            Gradients are those of a row, merged (see ``row_gradients.cuh``), not an array's.
        before, mean, by_row : sequence of str
            Lines before the rule's call, its row's mean of squares, its states of a row.
        strided : function of (array's name, i), optional
            Element ``i`` of arrays that may have gaps.
        """
        wide = [one for one in self.updated if one.name not in by_row]
        block = _Block(self, wide, by_gradient, [*before, self.call(mean)], strided)
        if strided:
            return block.part()
        return f"if ({block.aligned()}) {block.whole()} else {block.part()}"


class _Block:
    """Writes `Run.block`.

    Parameters
    ----------
    run : Run
    wide : sequence of Named
        The parameter and the states of elements.
    by_gradient : bool
        See `Run.block`.
    calls : sequence of str
        Lines after loads.
    strided : function of (array's name, i), optional
        See `Run.block`.
    """

    def __init__(
        self,
        run: Run,
        wide: Sequence[Named],
        by_gradient: bool,
        calls: Sequence[str],
        strided: Callable[[str, str], str] | None,
    ) -> None:
        self.run, self.by_gradient, self.calls, self.strided = run, by_gradient, calls, strided
        self.sources = [*wide, *[run.arguments[1]] * (not by_gradient)]
        self.coded = [one for one in wide if one.format.block]
        self.others = [one for one in wide if not one.format.block]
        self.random = any(one.format.random for one in self.others)
        scales = {one.arrays[1] for one in self.coded}
        self.types = {n: t for n, t in run.types(self.sources).items() if n not in scales}

    def at(self, name: str, i: str) -> str:
        """Write an element in memory."""
        return self.strided(name, i) if self.strided else f"({name} + start)[at + {i}]"

    def aligned(self) -> str:
        """Write whether a block is whole, and a lane's neighbours can be accessed at once."""
        addresses = [
            f"reinterpret_cast<size_t>({name} + start) * {max(1, 4 // SIZES[kind])}"
            for name, kind in self.types.items()
        ]
        together = f"at % NEIGHBOURS == 0 && (({' | '.join(addresses)}) & 15) == 0"
        merged = "GA_ELEMENTS >= NEIGHBOURS && " * self.by_gradient
        return f"{merged}n == {BLOCK} && {together}"

    def declared(self) -> list[str]:
        """Write the declarations of states with codes."""
        return [
            f"Coded<{one.format.block}> {one.name}_block({one.arrays[1]}[block]);"
            for one in self.coded
        ]

    def update(
        self, at: Callable[[str], str], code: Callable[[Named], str], gradient: str
    ) -> list[str]:
        """Write the update of element i, the q-th one of a lane."""
        run = self.run
        lines = ["const U random = draws.of(i);"] * self.random
        for one in self.sources:
            if one.format.block:
                lines.append(f"T {one.name}_n = T({code(one)});")
            else:
                lines += loads([one], run.compute, at)
        if self.by_gradient:
            lines.append(f"T {run.arguments[1].name}_n = {run.gradient(gradient)};")
        lines += self.calls
        lines += [f"{one.name}_block.numbers[q] = S({one.name}_n);" for one in self.coded]
        return lines + stores(self.others, run.compute, at)

    def scales(self, count: str) -> list[str]:
        """Write the new scales of blocks, of which a lane has so many elements."""
        lines = []
        for one in self.coded:
            lines.append(f"const S {one.name}_scale = {one.name}_block.scale({count});")
            scale = f"{one.arrays[1]}[block] = {one.name}_scale.value"
            lines.append(f"if (lane == 0) {{ {scale}; }}")
        return lines

    def whole(self) -> str:
        """Write what is done to a whole block."""
        codes, given = {one.arrays[0] for one in self.coded}, self.run.arguments[1].arrays[0]
        kinds = {n: _pack(kind, "NEIGHBOURS") for n, kind in self.types.items()}
        kinds |= dict.fromkeys(codes, "U")
        there = {
            n: f"*reinterpret_cast<{'const ' * (n == given)}{kind} *>(&{self.at(n, 'i')})"
            for n, kind in kinds.items()
        }
        update = self.update(
            lambda name: f"{name}p[part]{_member(kinds[name])}[k]",
            lambda one: f"{one.name}_block.unpacked({one.arrays[0]}p[part], k)",
            "merged[part].at[k]",
        )
        packs = [(f"{name}p", kind) for name, kind in kinds.items()]
        read = self.run.read()
        load = [f"{name}p[part] = {access};" for name, access in there.items() if name in read]
        if self.by_gradient:
            packs.append(("merged", "pack<W, NEIGHBOURS>"))
            load.append("merged[part] = gradient.template at<NEIGHBOURS>(column + i);")
        encode = {way: list[str]() for way in ("packed_quickly", "packed")}
        for way, lines in encode.items():
            for one in self.coded:
                drawn = f"U({pow(DRAWN, one.draw, 2**32)})"
                code = f"{one.name}_block.{way}(q, random, {drawn})"
                lines.append(f"{there[one.arrays[0]]} = {code};")
        quickly, slowly = (
            (_CODES % {"codes": indented(lines, 8)}).strip("\n") for lines in encode.values()
        )
        return _WHOLE % {
            "declared": indented(self.declared(), 4),
            "packs": indented((f"{k} {n}[LANE_ELEMENTS / NEIGHBOURS];" for n, k in packs), 4),
            "load": indented(load, 8),
            "update": indented(update, 12),
            "store": indented(
                (f"{there[n]} = {n}p[part];" for one in self.others for n in one.arrays), 8
            ),
            "scales": indented(self.scales("LANE_ELEMENTS"), 4),
            "quick": " && ".join(f"{one.name}_block.quick" for one in self.coded),
            "quickly": quickly,
            "slowly": slowly,
        }

    def part(self) -> str:
        """Write what is done to another block."""
        update = self.update(
            lambda name: self.at(name, "i"),
            lambda one: f"{one.name}_block.loaded(U({self.at(one.arrays[0], 'i')}))",
            "gradient.template at<1>(column + i).at[0]",
        )
        encode = []
        for one in self.coded:
            random = f"random * U({pow(DRAWN, one.draw, 2**32)})"
            stored = f"{one.name}_block.stored(q, {random})"
            encode.append(f"{self.at(one.arrays[0], 'i')} = {stored};")
        return _PART % {
            "declared": indented(self.declared(), 4),
            "update": indented(update, 8),
            "scales": indented(self.scales("count"), 4),
            "encode": indented(encode, 8),
        }


def merged_gradient(compute: str, format: Format, wide: str | None = None) -> str:
    """Write types of a gradient and the load of an element, for ``row_gradients.cuh``.

    Parameters
    ----------
    compute : str
        Type of the arithmetic.
    format : Format
        Of the gradient.
    wide : str, optional
        Type in which duplicates are merged; ``compute`` by default.
    """
    ((_, element),) = format.parts
    lines = [
        f"typedef {TYPES[compute]} F;",
        "typedef number<F> T;",
        f"typedef {TYPES[element]} G;",
        f"typedef number<{TYPES[wide or compute]}> W;",
        f"__device__ inline W loaded(G x) {{ return {load(format, wide or compute, ['x'])}; }}",
    ]
    return namespace("\n".join(lines))


def gradient_macros(compute: str, format: Format) -> dict[str, object]:
    """Return the types of kernels' arguments: a gradient's element, and merged gradients."""
    ((_, element),) = format.parts
    return {"gradient": TYPES[element], "merged": TYPES[compute]}


def namespace(text: str) -> str:
    """Put functions after the numbers that they use, into their namespace."""
    return f'#include "ieee.cuh"\n\nnamespace gpuadapt {{\n{text}\n}}  // namespace gpuadapt\n'


def gradient(compute: str, format: Format) -> str:
    """Write the load of a gradient's element and what it calls; see `merged_gradient`."""
    return namespace(codecs(needed(format.conversions))) + merged_gradient(compute, format)


class RowUpdate:
    """Writes ``struct Update`` of ``row_update.cuh``, for rows without gaps or ``strided`` ones."""

    def __init__(self, run: Run, strided: bool) -> None:
        self.run, self.rule, self.strided = run, run.rule, strided
        self.types = run.types(run.updated)
        self.names = list(self.types)
        self.by_element = [n for n in run.updated if n.name not in run.rule.row_states]
        self.mean_square = ["mean_square"] * (self.rule.squared is not None)

    def at(self, name: str, j: str) -> str:
        """Write an element of a row in memory."""
        if not self.strided:
            return f"{name}[row * width + {j}]"
        return f"{name}[place(layout + 1 + {self.names.index(name)} * layout[0], row, {j})]"

    def row_states(self) -> dict[str, str]:
        """Return the states with one number for a row, as they are written in memory."""
        states = self.rule.row_states
        return {n: self.at(f"{n}_", "0") if self.strided else f"{n}_[row]" for n in states}

    def arguments(self) -> list[str]:
        """Return the kernel's arguments that make an `Update`."""
        arrays = [f"{kind} *{name}" for name, kind in self.types.items()]
        random = ["long long key"] * self.run.formats.random
        return ["const long long *layout"] * self.strided + arrays + random

    def struct(self) -> str:
        """Write the struct."""
        rule, states = self.rule, self.row_states()
        members = self.run.members(self.arguments())
        members += [f"T {name}_n, {name}_o;" for name in states]
        members += ["T mean_square;"] * (rule.squared is not None)
        body = [self._block()] if self.run.formats.block else self._elements()
        load_row = [f"{n}_n = {n}_o = active ? T({at}) : T(0);" for n, at in states.items()]
        store_row = [f"{at} = {n}_n.value;" for n, at in states.items()]
        methods = [
            *self.run.scalars("Step number"),
            _method("void load_row(long long row, bool active)", load_row),
            _method("void store_row(long long row)", store_row),
            *self._squared(),
            *body,
        ]
        return "\n".join(["struct Update {", indented(members, 4), *methods, "};"])

    def _squared(self) -> list[str]:
        squared, parameter = self.rule.squared, self.run.arguments[0]
        if squared is None:
            return []
        elements = [self.at(name, "j") for name in parameter.arrays]
        numbers = ["x", self.run.gradient("gradient"), *self.rule.squared_coefficients]
        lines = [
            f"T x = {parameter.load(self.run.compute, elements)};",
            f"{squared.symbol}<T>({', '.join(numbers)});",
            "return x;",
        ]
        head = "T squared(long long row, long long width, long long j, W gradient) const"
        return [_method(head, lines)]

    def _elements(self) -> list[str]:
        gradient = f"T {self.run.arguments[1].name}_n = {self.run.gradient('gradient')};"
        old = [f"{n}_n = {n}_o;" for n in self.rule.row_states]
        return _elements(
            self.run,
            self.by_element,
            "long long row, long long width, long long j",
            "W gradient, long long first",
            ["key_at(first_key, first)", "key_at(second_key, first)"],
            lambda name: self.at(name, "j"),
            [gradient, *old],
            self.mean_square,
        )

    def _block(self) -> str:
        lines = self.run.block(
            True,
            [f"{n}_n = {n}_o;" for n in self.rule.row_states],
            self.mean_square,
            self.rule.row_states,
            (lambda name, i: self.at(name, f"column + {i}")) if self.strided else None,
        )
        return (
            "template <typename Gradient> __device__ void update_block(\n"
            "    const Gradient &gradient, long long row, long long width, long long column,\n"
            f"    long long start, long long block, int n\n) {{\n"
            f"    const int at = 0;\n{lines}\n}}"
        )


class ArrayUpdate:
    """Writes ``struct Update`` of ``update.cuh``, for contiguous arrays."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.types = run.types(run.arguments)
        self.gradient = run.arguments[1].arrays[0]
        self.names = [name for name in self.types if name != self.gradient]

    def struct(self) -> str:
        """Write the struct, with the types of its arithmetic."""
        run = self.run
        types = {n: "const " * (n == self.gradient) + kind for n, kind in self.types.items()}
        address = {name: f"addresses[{k}]" for k, name in enumerate(self.names)}
        address[self.gradient] = "gradient"
        arrays = [
            f"{n} = in_global(reinterpret_cast<{kind} *>({address[n]}));"
            for n, kind in types.items()
        ]
        declared = [f"{kind} *{n}" for n, kind in types.items()]
        together = "\n            | ".join(
            f"reinterpret_cast<size_t>({n} + start)" for n in self.types
        )
        made = "Update(const unsigned long long *addresses, unsigned long long gradient)"
        page = [f"{key} = key_at({key}, start);" for key in ("first_key", "second_key")]
        page *= run.formats.random
        methods = [
            _method(made, arrays),
            *run.scalars("long long key, Step number"),
            _method("size_t addresses(long long start) const", [f"return {together};"]),
        ]
        if run.formats.block:
            head = "void update_block(long long start, int at, long long block, int n)"
            methods.append(_method(head, [run.block()]))
        else:
            methods.append(_method("void use_page(long long start)", page))
            methods += _elements(
                run,
                run.arguments,
                "long long j",
                "long long first",
                ["first_key", "second_key"],
                lambda name: f"{name}[j]",
                (),
                (),
            )
        lines = [
            f"typedef {TYPES[run.compute]} F;", "typedef number<F> T;",
            "struct Update {", indented(run.members(declared), 4), *methods, "};",
        ]  # fmt: skip
        return namespace("\n".join(lines))


def _pack(kind: str, count: str) -> str:
    """Write the type of so many elements in registers."""
    return f"halves<{count}>" if kind == TYPES["uint16"] else f"pack<{kind}, {count}>"


def _member(pack: str) -> str:
    """Write what comes between an object of a type of `_pack` and an element's number."""
    return "" if pack.startswith("halves") else ".at"


def _elements(
    run: Run,
    arguments: Sequence[Named],
    place: str,
    applied_to: str,
    keys: Sequence[str],
    at: Callable[[str], str],
    numbers: Sequence[str],
    mean: Sequence[str],
) -> list[str]:
    """Write `Elements`, `load`, `apply` and `store` of a ``struct Update``.

    Parameters
    ----------
    arguments : sequence of Named
        Arguments of the rule that are loaded, an element of each at a time.
    place : str
        Arguments of `load` and `store` that say where the elements are.
    applied_to : str
        Arguments of `apply` beside the elements and which of them it is; ``first``, the number of
        the first of them, for their random bits.
    keys : sequence of str
        The two keys of their random bits.
    at : function of an array's name
        Writes the first of the elements in memory.
    numbers : sequence of str
        Lines that make the rule's other arguments.
    mean : sequence of str
        The mean of squares, of a rule that takes one.
    """
    head, types = "    template <int N>\n", run.types(arguments)

    packs = {name: _pack(kind, "N") for name, kind in types.items()}

    def register(name: str) -> str:
        return f"x.{name}{_member(packs[name])}[k]"

    given = run.arguments[1].arrays[0]
    there = {
        n: f"*reinterpret_cast<{'const ' * (n == given)}{pack} *>(&{at(n)})"
        for n, pack in packs.items()
    }
    hints = {n: f"(GA_STREAMING > {0 if n == given else 1})" for n in types}
    loaded = [f"x.{n} = load_pack<{hints[n]}>({there[n]});" for n in types if n in run.read()]
    updated = [one for one in arguments if one in run.updated]
    stored = [f"store_pack<{hints[n]}>({there[n]}, x.{n});" for one in updated for n in one.arrays]
    applied = [f"const U random = random_at<N>(first, k, {', '.join(keys)});"] * run.formats.random
    applied += ["const bool lower = has_lower_half<N>(first, k);"] * run.formats.paired
    applied += [*loads(arguments, run.compute, register), *numbers]
    half = "lower" if run.formats.paired else 0
    applied += [run.call(mean), *stores(updated, run.compute, register, half)]
    members = indented([f"{pack} {n};" for n, pack in packs.items()], 8)
    return [
        f"    template <int N> struct Elements {{\n{members}\n    }};",
        head + _method(
            f"Elements<N> load({place}) const", ["Elements<N> x;", *loaded, "return x;"]
        ),
        head + _method(f"void apply(Elements<N> &x, int k, {applied_to})", applied),
        head + _method(f"void store(const Elements<N> &x, {place}) const", stored),
    ]  # fmt: skip


def _method(head: str, lines: Sequence[str]) -> str:
    """Write a method; empty lines are left out."""
    return f"    __device__ {head} {{\n{indented((n for n in lines if n), 8)}\n    }}"


class ClosedForm:
    """Writes what ``closed_form.cuh`` needs of a rule, for float32 and rows without gaps."""

    def __init__(self, rule: Rule, plan: CatchUpPlan) -> None:
        self.rule, self.plan = rule, plan
        self.packs = {
            name: f"*reinterpret_cast<pack<T, N> *>(&update.{name}_[row * width + j])"
            for name in (rule.parameter, *rule.states)
            if name not in rule.row_states
        }

    def macros(self) -> dict[str, object]:
        """Return the macros of the file."""
        plan = self.plan
        return {name: repr(getattr(catchup, name)) for name in catchup.OF_ROWS} | {
            "states": len(self.rule.states),
            "moves": int(plan.displacement is not None or plan.shrinks),
        }

    def text(self) -> str:
        """Write the functions and the rules."""
        rule, plan = self.rule, self.plan
        states = list(enumerate(rule.states))
        parts = [function(part) for part in (plan.displacement, plan.inverse) if part]
        parts.append("constexpr int STATES = GA_STATES > 0 ? GA_STATES : 1;")
        parts.append("template <int N> struct Values { pack<T, N> parameter, states[STATES]; };")
        parts.append(_test("decays", [k for k, _ in states if plan.decays(k)]))
        parts.append(_test("by_row", [k for k, name in states if name in rule.row_states]))
        parts += self._memory()
        column = history_layout(rule, plan).displacement
        parts.append(_displacement(plan.displacement, column, len(states)))
        parts.append(
            _method("inline T inverse(const T *states)", _value(plan.inverse, 1, len(states)))
        )
        return namespace("\n".join(parts))

    def _memory(self) -> list[str]:
        """Write `load`, `store` and `store_row_state`."""
        place = "long long row, long long width, long long j"
        names = {"parameter": self.rule.parameter}
        names |= {f"states[{k}]": name for k, name in enumerate(self.rule.states)}
        load, store, by_row = ["Values<N> x;"], list[str](), list[str]()
        for k, (member, name) in enumerate(names.items()):
            if name in self.packs:
                load.append(f"x.{member} = {self.packs[name]};")
                store.append(f"{self.packs[name]} = x.{member};")
            else:
                load.append(f"const T {name}_s = T(update.{name}_[row]);")
                load.append(f"for (int k = 0; k < N; ++k) {{ x.{member}.at[k] = {name}_s; }}")
                by_row.append(f"if (q == {k - 1}) {{ update.{name}_[row] = value.value; }}")
        return [
            "template <int N>\n"
            + _method(
                f"inline Values<N> load(const Update &update, {place})", [*load, "return x;"]
            ),
            "template <int N>\n"
            + _method(f"inline void store(Update &update, {place}, const Values<N> &x)", store),
            _method(
                "inline void store_row_state(Update &update, long long row, int q, T value)", by_row
            ),
        ]


def _test(name: str, numbers: Sequence[int]) -> str:
    """Write a function that is true for some numbers of states."""
    tests = " || ".join(f"k == {number}" for number in numbers) or "false"
    return f"__device__ inline bool {name}(int k) {{ return {tests}; }}"


def _value(rule: Rule | None, otherwise: int, states: int) -> list[str]:
    """Write the lines that return a rule's value from states; ``otherwise`` without a rule."""
    if rule is None:
        return [f"return T({otherwise});"]
    numbers = ["x", *(f"states[{k}]" for k in range(states)), *rule.coefficients]
    return ["T x = T(0);", f"{rule.symbol}<T>({', '.join(numbers)});", "return x;"]


def _displacement(rule: Rule | None, column: int, states: int) -> str:
    """Write a displacement in a step, whose coefficients begin at a column of the history."""
    coefficients = [] if rule is None else list(rule.coefficients)
    members = [f"T {name};" for name in coefficients]
    read = [
        f"ieee::narrow(at_step(history, mask, {column + k}, step), {name}.value);"
        for k, name in enumerate(coefficients)
    ]
    return "\n".join(
        [
            "struct Displacement {",
            indented(members, 4),
            _method("Displacement(const double *history, long long mask, long long step)", read),
            _method("T operator()(const T *states) const", _value(rule, 0, states)),
            "};",
        ]
    )
