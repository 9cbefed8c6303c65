"""The writer of CPU kernels: the head that depends on a rule and its formats.

Everything else is in `loops/`, whose `interface` says what a head defines. In a head ``p_`` is the
array of an argument ``p``, and ``p_scale__`` an array beside it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..catchup import plan as catchup
from ..catchup.plan import CatchUpPlan, history_layout
from ..formats import BLOCK, PLAIN, Conversion, Format, Formats, Named, load, named, needed, scaling
from ..language import primitives
from ..language.emit import indented
from ..language.rule import Rule
from ..language.scaling import Scaling
from ..numerics.summation import LANES, SUMS
from . import compile


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
    # The tuple of a thread's arguments would be copied at each call, and LLVM vectorizes no loop
    # that calls a function for each element i.
    options = "INLINE" if {"arguments", "i"} & set(arguments) else "OPTIONS"
    head = f"def {name}({', '.join(arguments)}):"
    return "\n".join(["", "", f"@njit(**{options})", head, indented(lines or ["pass"], 4), ""])


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def _reading(names: Iterable[str], source: str, lines: Sequence[str]) -> list[str]:
    """The lines, after others that read those elements of a tuple which they use.

    Numba takes its time for every element that is read.
    """
    used = {word for line in lines for word in re.findall(r"\w+", line)}
    read = [f"{name} = {source}[{k}]" for k, name in enumerate(names) if name in used]
    return [*read, *lines]


def _accessors(returned: Mapping[str, str], names: Iterable[str], source: str) -> str:
    """Functions that return what expressions make of the elements of a tuple."""
    text, names = "", list(names)
    for head, value in returned.items():
        name, _, arguments = head.rstrip(")").partition("(")
        text += _function(name, arguments.split(", "), _reading(names, source, [f"return {value}"]))
    return text


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
    coded : list of Named
        The states in 8 bits.
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
        self.coded = [one for one in self._updated if one.format.block]
        self._short = [
            name
            for one in self.arguments
            for name, (_, dtype) in zip(one.arrays, one.format.parts, strict=True)
            if dtype == "uint16"
        ]
        if formats.block:
            quick = any(one.format.quick for one in self.coded)
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
                [
                    # Without compilation U refuses integers that do not fit.
                    "first, second = U(key & 0xFFFFFFFF), U(key >> 32 & 0xFFFFFFFF)",
                    "return key_of(first, step), key_of(second, step)",
                ],
            )
        if self.formats.block:
            return text + self._blocks()
        text += _function("update", ["i", "arrays", "scalars", "random"], self._update())
        return text + (self._update_pair() if self.formats.paired else "")

    def _views(self) -> str:
        """``size_of``, ``slice_of`` and ``row_states``; of pairs ``pairs_of`` and their count."""
        whole = {*self._by_row, *(one.arrays[1] for one in self.coded)}
        sliced = [name if name in whole else f"{name}[start:stop]" for name in self.arrays]
        size = self.arguments[1].arrays[0]
        returned = {
            "size_of(arrays)": f"{size}.size",
            "slice_of(arrays, start, stop)": _tuple(sliced),
            "row_states(arrays)": _tuple(self._by_row),
        }
        if self.formats.paired:
            words = [f"pairs({name})" if name in self._short else name for name in self.arrays]
            word = next(name for name in self._short if name != size)
            returned |= {"pairs_of(arrays)": _tuple(words), "pair_count(arrays)": f"{word}.size"}
        return _accessors(returned, self.arrays, "arrays")

    def _reading(self, lines: Sequence[str]) -> list[str]:
        """The lines of a function of an update's arrays and scalars."""
        return _reading(self.arrays, "arrays", _reading(self.scalars, "scalars", lines))

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

    def _update(self) -> list[str]:
        """Lines that update element ``i``."""
        lines = [self._call()]
        for one in self._updated:
            if one in self.coded:
                lines.append(f"{one.name}_buffer[i] = _new_{one.name}")
            elif one.arrays[0] not in self._by_row:
                lines += self._stores(one)
        return self._reading([*lines, f"return {_tuple(self._new_row_states)}"])

    def _update_pair(self) -> str:
        """The update of two neighbours; those of 16 bits are the halves of a word."""
        lines = list[str]()
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
        return _function("update_pair", ["i", "arrays", "scalars", "random"], self._reading(lines))

    def _blocks(self) -> str:
        """The functions of `loops.blocks`: update into buffers, find scales, encode."""

        def function(name: str, arguments: str, lines: Sequence[str]) -> str:
            lines = _reading(buffers, "buffers", _reading(bases, "bases", lines))
            return _function(name, arguments.split(), _reading(self.arrays, "arrays", lines))

        coded = self.coded
        bases = [f"{one.name}_base" for one in coded]
        buffers = [f"{one.name}_buffer" for one in coded]
        scales = [f"{one.arrays[1]}[block]" for one in coded]
        found = [
            f"{one.format.block}_base({scale})" for one, scale in zip(coded, scales, strict=True)
        ]
        store = [
            f"{scale} = {one.format.block}_scale(largest_of({one.name}_buffer, size))"
            for one, scale in zip(coded, scales, strict=True)
        ]
        every = [
            f"all_quick(smallest_of({one.name}_buffer, size), {one.name}_base)"
            for one in coded
            if one.format.quick
        ]
        text = function("update_buffered", "i arrays bases buffers scalars random", self._update())
        text += function("bases_of", "arrays block", [f"return {_tuple(found)}"])
        text += function("store_scales", "arrays block buffers size", store)
        text += function(
            "is_quick", "buffers bases size", [f"return {' and '.join(every) or 'False'}"]
        )
        for quick in (False, True):
            lines = []
            for one in coded:
                at = ["", f"{one.name}_base"]
                (code,) = one.store(self.formats.compute, at, f"{one.name}_buffer[i]", quick=quick)
                lines.append(f"{one.arrays[0]}[i] = {code}")
            name = "encode_quickly" if quick else "encode"
            text += function(name, "i arrays bases buffers random", lines)
        return text


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
    text = [rule_preamble(rule, formats), f"\n\nTABLES, BLOCK = {len(formats.tables)}, {BLOCK}\n"]
    text += [elements.text(), _arrays_at(elements), _coefficients_at(rule, elements.wide)]
    keys = f"keys_of(tables[0][array], U(numbers[offset + {len(rule.coefficients)}]))"
    text.append(
        _function(
            "keys_at",
            ["tables", "array", "numbers", "offset"],
            [f"return {keys}" if formats.random else "return ()"],
        )
    )
    buffers = [f"{one.name}_buffer" for one in elements.coded]
    new = _tuple([f"np.empty({BLOCK}, T)" for _ in buffers])
    views = _tuple([f"borrowed({name})" for name in buffers])
    text.append(_function("block_buffers", [], [f"return {new}"]))
    text.append(_accessors({"views_of(buffers)": views}, buffers, "buffers"))
    chunk = "chunk"
    if formats.block:
        chunk = "chunk_of_blocks"
        text.append(_function("width_of", ["tables", "array"], ["return tables[-1][array]"]))
    elif prefetched and formats.uniform:
        chunk = "chunk_prefetched"
        itemsize = formats.itemsize
        text.append(f"AHEAD, LINE = {ahead // itemsize}, {compile.LINE // itemsize}\n")
        lines = [f"prefetch({name}, index)" for name in elements.arrays]
        lines = _reading(elements.arrays, "arrays", lines)
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
    text = [preamble(compute, needed(form.conversions)), f"\n\nLANES = {LANES}\n"]
    text.append(
        _function(
            "elements_at",
            ["address", "start", "size"],
            [f"return memory(np.{dtype}, address + start * {np.dtype(dtype).itemsize}, size)"],
        )
    )
    text.append(_function("value_of", ["x", "k"], [f"return {load(form, compute, ['x[k]'])}"]))
    return compile.link(f"{name}, {compute}{of}", "".join(text), name, "scheduling")


# Rows of a table.

RANDOM_KEYS = "random_keys = keys_of(key, U(step))"

PREFETCHED = 1024
"""Bytes of a row that are asked for; the hardware follows along longer ones."""


HISTORY = {
    "last_step": "types.Array(types.int64, 1, 'C')",
    "history": "types.Array(types.{compute}, 2, 'C')",
    "moments": "types.Array(types.float64, 2, 'C')",
    "ends": "types.Array(types.int64, 1, 'C')",
    "now": "types.int64",
    "no_gradient": "types.Array(types.{merged}, 2, 'C', readonly=True)",
    "reading": "types.boolean",
    "out": "types.Array(types.{parameter}, 2, 'C')",
}
"""Arguments of exact rows and their types: the arrays of `step_history.StepHistory`, the number of
steps, a gradient of zeros, and whether rows are only read, to ``out`` (occurrences, width)."""


class RowUpdate:
    """The functions of a head that update a row of a table.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    exact : bool
        Rows catch up with the history of their table.
    plan : CatchUpPlan, optional
        The closed form of skipped steps; they are replayed by default.
    """

    def __init__(
        self, rule: Rule, formats: Formats, exact: bool = False, plan: CatchUpPlan | None = None
    ) -> None:
        self.rule, self.formats, self.exact, self.plan = rule, formats, exact, plan
        # A row's gradient is merged, and plain, before the update.
        plain = formats._replace(gradient=PLAIN[formats.wide])
        self.elements = Elements(rule, plain, rule.row_states)
        self._gradient = self.elements.arguments[1].arrays[0]
        self.arguments = {
            name: f"types.Array(types.{dtype}, {1 if one.name in rule.row_states else 2}, 'C')"
            for one in self.elements.arguments
            for name, (_, dtype) in zip(one.arrays, one.format.parts, strict=True)
            if name != self._gradient
        }
        numbers = [*rule.coefficients, *self.elements.wide]
        self.arguments |= dict.fromkeys(numbers, "types.float64")
        if formats.random:
            self.arguments |= {"key": "types.int64", "step": "types.float64"}
            self.arguments["origin"] = "types.Array(types.int64, 1, 'C')"
        if exact:
            ((_, parameter), *_) = formats.parameter.parts
            types_ = {"compute": formats.compute, "merged": formats.wide, "parameter": parameter}
            self.arguments |= {name: type_.format(**types_) for name, type_ in HISTORY.items()}
        # What a thread has beside its arguments: numbers, and memory, which it keeps while
        # everything else has views of it.
        self._numbers = {"random_keys": RANDOM_KEYS.partition(" = ")[2]} if formats.random else {}
        self._storage = {
            f"{one.name}_buffer": f"np.empty({BLOCK}, T)" for one in self.elements.coded
        }
        if exact:
            self._numbers["mask"] = "np.uint64(history.shape[0] - 1)"
        if plan:
            self._storage["buffer"] = "np.empty((1, no_gradient.shape[1]), T)"
        self._names = [*self.arguments, *self._numbers, *self._storage]

    def text(self) -> str:
        """Return the functions of `loops.interface` that `loops.rows` calls, and their types."""
        types_ = ", ".join(self.arguments.values())
        text = f"\n\nARGUMENTS = types.Tuple([{types_}])\n"
        text += self._thread_arguments()
        text += self._function("prefetch_row", "arguments row width", self._prefetches())
        lines = [f"width = {self._gradient}.size", *self.lines()]
        text += self._function("update_row", f"arguments row {self._gradient} sums", lines)
        return text + (self._catch_up() if self.exact else "")

    def _function(self, name: str, arguments: str, lines: Sequence[str]) -> str:
        return _function(name, arguments.split(), _reading(self._names, "arguments", lines))

    def _catch_up(self) -> str:
        """The functions that `loops.exact_row`, `replay` and `closed_form` call."""
        rule = self.rule
        past = {name: f"history[past, {k}]" for k, name in enumerate(rule.coefficients)}
        past |= {name: f"D(history[past, {k}])" for name, k in self.elements.wide.items()}
        step = [
            "past = np.uint64(past_step) & mask",
            f"{self._gradient} = part(no_gradient, 0, 0, no_gradient.shape[1])",
            "width = no_gradient.shape[1]",
            *[RANDOM_KEYS.replace("step", "past_step")] * self.formats.random,
            *self.lines(past),
        ]
        returned = {
            "history_of(arguments)": "last_step, now, mask, ends",
            "output_of(arguments)": "reading, out",
            "parameter_row(arguments, row)": _row_of(rule.parameter),
        }
        text = _accessors(returned, self._names, "arguments")
        text += self._function("replay_step", "arguments row past_step sums", step)
        return text + (ClosedForm(rule, self.plan, self._names).text() if self.plan else "")

    def _thread_arguments(self) -> str:
        arrays = [name for name, type_ in self.arguments.items() if "Array" in type_]
        lines = [f"{name} = borrowed({name})" for name in (*arrays, *self._storage)]
        lines += [f"{name} = T(opaque({name}))" for name in self.rule.coefficients]
        lines += [f"{name} = {value}" for name, value in self._numbers.items()]
        lines = _reading(self._storage, "storage", [*lines, f"return {_tuple(self._names)}"])
        lines = _reading(self.arguments, "arguments", lines)
        new = {"thread_storage(arguments)": _tuple([*self._storage.values()])}
        text = _accessors(new, self.arguments, "arguments")
        return text + _function("thread_arguments", ["arguments", "storage"], lines)

    def _prefetches(self) -> list[str]:
        """Lines that ask for a row's elements: its beginning, and its last line."""
        first, last = ["begin = row * width"], list[str]()
        for one in self.elements.arguments:
            if one.name in (self.rule.gradient, *self.rule.row_states):
                continue
            for name, (part, dtype) in zip(one.arrays, one.format.parts, strict=True):
                if part == "scale":
                    first.append(f"prefetch({name}, row * {name}.shape[1])")
                    continue
                size = np.dtype(dtype).itemsize
                stop, line = f"min(width, {PREFETCHED // size})", compile.LINE // size
                first.append(f"for j in range(0, {stop}, {line}):")
                first.append(f"    prefetch({name}, begin + j)")
                last.append(f"prefetch({name}, begin + width - 1)")
        exact = ["prefetch(last_step, row)"] * self.exact
        return [*first, *exact, *last]

    def lines(self, coefficients: Mapping[str, str] | None = None) -> list[str]:
        """Return the lines that update row ``row`` by its gradient.

        Parameters
        ----------
        coefficients : mapping of str to str, optional
            The expressions that stand for coefficients, instead of their names.
        """
        known, elements, rule = coefficients or {}, self.elements, self.rule
        parts = dict[str, str]()
        for one in elements.arguments:
            for name, (part, _) in zip(one.arrays, one.format.parts, strict=True):
                last = f"{name}.shape[1]" if part == "scale" else "width"
                parts[name] = f"part({name}, row, 0, {last})"
        states = [f"{name}_[row]" for name in rule.row_states]
        parts |= {f"{name}_": f"{name}_[row]" for name in rule.row_states}
        parts[self._gradient] = self._gradient
        lines = ["begin = 0"]
        if rule.squared is not None:
            arrays = [parts[name] for name in elements.arguments[0].arrays] + [self._gradient]
            names = [*rule.squared_coefficients, *elements.wide]
            numbers = _tuple([known.get(name, name) for name in names])
            squares = f"row_squares({_tuple(arrays)}, {numbers}, sums)"
            lines.append(f"mean_square = T({squares} / width)")
        if self.formats.random:
            lines[0] = "begin = (row if origin.size == 0 else np.intp(origin[row])) * width"
        scalars = _tuple([known.get(name, name) for name in elements.scalars])
        keys = "random_keys" if self.formats.random else "()"
        buffers = _tuple([f"{one.name}_buffer" for one in elements.coded])
        arrays = [parts[name] for name in elements.arrays]
        call = f"update_span({_tuple(arrays)}, {scalars}, begin, {keys}, {buffers})"
        return [*lines, f"{_tuple(states)} = {call}" if states else call]

    def squared_value(self) -> str:
        """Return the function of the expression that is squared and averaged over a row."""
        if self.rule.squared is None:
            return ""
        elements, squared = self.elements, self.rule.squared
        arguments, scalars = elements.arguments[:2], [*self.rule.squared_coefficients]
        numbers = [
            one.load(self.formats.compute, [f"{name}[i]" for name in one.arrays])
            for one in arguments
        ]
        lines = [f"return {squared.symbol}({', '.join([*numbers, *scalars])})"]
        lines = _reading([*scalars, *elements.wide], "scalars", lines)
        lines = _reading([name for one in arguments for name in one.arrays], "arrays", lines)
        function = rule_function(squared, elements.formats)
        return function + _function("squared_value", ["i", "arrays", "scalars"], lines)


def _row_of(name: str) -> str:
    return f"part({name}_, row, 0, no_gradient.shape[1])"


class ClosedForm:
    """The functions of a head that take skipped steps at once; see `loops.closed_form`."""

    def __init__(self, rule: Rule, plan: CatchUpPlan, names: Sequence[str]) -> None:
        self.rule, self.plan, self.names = rule, plan, names
        self.layout = history_layout(rule, plan)

    def text(self) -> str:
        """Return the functions."""
        plan, states = self.plan, self.rule.states
        text = "\n\n" + _constants(catchup.OF_ROWS) + f"STATES = {len(states)}\n"
        text += f"MOVES = {plan.displacement is not None or plan.shrinks}\n"
        rows = [
            f"{name}_[row]" if name in self.rule.row_states else _row_of(name) for name in states
        ]
        count = len(plan.displacement.coefficients) if plan.displacement else 0
        first = "np.uint64(step) & mask"
        past = [f"history[{first}, {self.layout.displacement + k}]" for k in range(count)]
        returned = {
            "moments_of(arguments, step)": f"part(moments, {first}, 0, moments.shape[1])",
            "buffer_of(arguments)": "buffer",
            "state_rows(arguments, row)": _tuple(rows),
            "displacement_coefficients(arguments, step)": _tuple(past),
        }
        text += _accessors(returned, self.names, "arguments")
        text += self._of_element("displacement_at", plan.displacement, "T(0)")
        text += self._of_element("inverse_at", plan.inverse, "T(1)")
        lines = _reading(self.names, "arguments", self._decay(first))
        return text + _function("decay_states", ["arguments", "row", "step"], lines)

    def _decay(self, first: str) -> list[str]:
        """Lines that multiply states by the products of their decay factors."""
        lines = []
        for k, state in enumerate(self.rule.states):
            product = f"moments[{first}, {k}]"
            if self.plan.decays(k) and state in self.rule.row_states:
                lines.append(f"{state}_[row] = decayed({state}_[row], {product})")
            elif self.plan.decays(k):
                lines.append(f"decay({_row_of(state)}, {product})")
        return lines

    def _of_element(self, name: str, rule: Rule | None, otherwise: str) -> str:
        """The function of a rule of an element's states."""
        arguments = ["i", "states", "coefficients"]
        if rule is None:
            return _function(name, arguments, [f"return {otherwise}"])
        states = [f"{state}_" for state in self.rule.states]
        numbers = [
            given if state in self.rule.row_states else f"{given}[i]"
            for state, given in zip(self.rule.states, states, strict=True)
        ]
        lines = [f"return {rule.symbol}({', '.join(['T(0)', *numbers, *rule.coefficients])})"]
        lines = _reading(rule.coefficients, "coefficients", lines)
        lines = _reading(states, "states", lines)
        return rule_function(rule) + _function(name, arguments, lines)


def rows(rule: Rule, formats: Formats, exact: bool = False, plan: CatchUpPlan | None = None) -> str:
    """Return the module of `loops.rows`.

    Parameters
    ----------
    rule : Rule
    formats : Formats
    exact : bool
        Rows catch up with the history of their table.
    plan : CatchUpPlan, optional
        The closed form of skipped steps; they are replayed by default.
    """
    update = RowUpdate(rule, formats, exact, plan)
    merged = "T" if formats.wide == formats.compute else "D"
    head = rule_preamble(rule, formats) + _row_gradients(formats.wide, formats.gradient, merged)
    head += update.squared_value() + update.elements.text() + update.text()
    files = [*update.elements.loops, *["mean_square"] * (rule.squared is not None)]
    if plan:
        decays = any(plan.decays(k) for k in range(len(rule.states)))
        files += [*["decay"] * decays, "closed_form"]
    elif exact:
        files.append("replay")
    files.append("exact_row" if exact else "lazy_row")
    return compile.link(title(rule, formats, "rows"), head, *files, "rows")


def row_squares(compute: str, form: Format) -> str:
    """Return the module of `loops.rows` that measures gradients; see `loops.row_squares`."""
    return _of_gradients("squares of rows", compute, form, "row_squares", "rows")


def hot_rows(compute: str, form: Format) -> str:
    """Return the module of `loops.hot_rows`."""
    return _of_gradients("hot rows", compute, form, "hot_rows")


def _of_gradients(name: str, compute: str, form: Format, *loops: str) -> str:
    """A module without a rule, for gradients in a format that are merged in a type."""
    head = preamble(compute, needed(form.conversions)) + _row_gradients(compute, form, "T")
    of = f" of {form.name}" * (form.name != compute)
    return compile.link(f"{name}, {compute}{of}", head, *loops)


def _row_gradients(wide: str, form: Format, merged: str) -> str:
    """The type in which gradients are merged, and its name, and how they are read."""
    ((_, dtype),) = form.parts
    plain = form == PLAIN[wide]
    row = "values, position" if plain else "merged, k"
    lines = [
        f"W, SUMS, BLOCK = {merged}, {SUMS}, {BLOCK}",
        f"PLAIN, LINE = {plain}, {compile.LINE // np.dtype(dtype).itemsize}",
        f'GRADIENTS = types.Array(types.{dtype}, 2, "C", readonly=True)',
        f'MERGED = types.Array(types.{wide}, 2, "C")',
    ]
    value = _function("value_of", ["x", "k"], [f"return {load(form, wide, ['x[k]'])}"])
    unmerged = _function(
        "unmerged",
        ["values", "merged", "position", "k"],
        [f"return part({row}, 0, values.shape[1])"],
    )
    return "\n\n" + "\n".join(lines) + "\n" + value + unmerged


def history() -> str:
    """Return the module of `loops.history`."""
    return compile.link("the history of exact rows", _constants(catchup.OF_HISTORY), "history")


def _constants(names: Sequence[str]) -> str:
    """Definitions of constants of `catchup.plan`."""
    return "".join(f"{name} = {getattr(catchup, name)!r}\n" for name in names)
