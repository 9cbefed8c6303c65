"""CUDA C of a rule: its function, loads and stores, its coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..formats import Conversion, Formats, Named, scaling
from ..language.rule import Rule
from ..language.scaling import Scaling
from .compile import read

TYPES = {
    "float32": "float",
    "float64": "double",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
}

CLOSED = "\n}  // namespace gpuadapt\n"

PREAMBLE = read("ieee.cuh").removesuffix(CLOSED)
"""Exact numbers, with its namespace left open."""

PLACE = read("layout.cuh").split("namespace gpuadapt {\n")[1].removesuffix(CLOSED)
"""Where an element is; for within the namespace."""


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
    for target, expression in wide.rest if wide else rule.lines:
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


def stores(arguments: Sequence[Named], compute: str, at: Callable[[str], str]) -> list[str]:
    """Lines that write ``<name>_n`` to memory."""
    lines = []
    for one in arguments:
        elements = [at(array) for array in one.arrays]
        texts = one.store(compute, elements, f"{one.name}_n")
        for place, text, (_, dtype) in zip(elements, texts, one.format.parts, strict=True):
            value = ".value" if dtype.startswith("float") else ""
            lines.append(f"{place} = {text}{value};")
    return lines


def coefficients(rule: Rule, first: str, ctype: str, wide: Mapping[str, int] | None = None) -> str:
    """Lines that read a rule's coefficients from a step's scalars, rounded.

    And some of them, by name, as they are.
    """
    lines = []
    for k, name in enumerate(rule.coefficients):
        lines.append(f"    gpuadapt::number<{ctype}> {name};")
        lines.append(f"    gpuadapt::ieee::narrow(numbers[{first} + {k}], {name}.value);")
    for name, k in (wide or {}).items():
        lines.append(f"    const gpuadapt::number<double> {name} = numbers[{first} + {k}];")
    return "\n".join(lines)
