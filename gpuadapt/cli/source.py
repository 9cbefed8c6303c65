"""`gpuadapt source`."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "print the kernel of a rule, or what it is compiled to"

FORMS = {
    "llvm": ("cpu", "the LLVM IR of the loop over elements, for this processor"),
    "asm": ("cpu", "the assembly of the loop over elements, for this processor"),
    "ptx": ("cuda", "the PTX; needs NVRTC, no GPU"),
    "sass": ("cuda", "the machine code of a GPU; needs NVRTC and nvdisasm, no GPU"),
}
"""By form: its backend, and what is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the rule, and what of it to print."""
    parser.add_argument(
        "rule",
        metavar="RULE",
        help="a method (Adam: its rule with default options), a rule (adam), or FILE.py:NAME",
    )
    parser.add_argument(
        "--backend",
        choices=("cpu", "cuda", "javascript"),
        help="Python for Numba, CUDA C, or JavaScript for one element (default: cpu, or that of "
        "the form)",
    )
    parser.add_argument(
        "--traversal",
        choices=("many", "dense", "rows", "exact"),
        help="many contiguous arrays, one array of any strides, rows of a table, or rows that "
        "catch up with skipped steps (default: many)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "float16", "bfloat16"),
        default="float32",
        help="element type of the parameter and its gradient (default: float32)",
    )
    parser.add_argument(
        "--state-dtype",
        choices=("float64", "float32", "bfloat16", "float16", "8bit"),
        help="how states are stored (default: in the type of the arithmetic)",
    )
    forms = parser.add_mutually_exclusive_group()
    for form, (_, text) in FORMS.items():
        forms.add_argument(f"--{form}", action="store_const", const=form, dest="form", help=text)
    parser.add_argument("--arch", help="compute capability of --ptx and --sass (default: sm_90)")


def run(given: argparse.Namespace) -> int:
    """Print the text."""
    from ..hyperparameters import SETTINGS
    from ..rule_files import load_rule
    from ..state_formats import formats_of

    rule = load_rule(given.rule)
    settings = SETTINGS | {"state_dtype": given.state_dtype}
    formats = formats_of(rule, "p", given.dtype, settings, {})
    backend: Any = given.backend or FORMS.get(given.form, ("cpu",))[0]
    text = rule.source(
        backend,
        given.traversal,
        formats,
        form=given.form or "source",
        arch=given.arch,
    )
    print(text, end="" if text.endswith("\n") else "\n")
    return 0
