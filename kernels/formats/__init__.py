"""Formats: how parameters, gradients and states are kept in memory.

A file has one way to keep numbers, with its conversions. `conversion` is the language they are
written in, `arguments` joins formats with the arguments of a rule. `registry`
says which formats there are for what a user asks for.
"""

from .arguments import Formats, Named, Operand, load, named, scaling, tables, traffic, uniform
from .block8 import SIGNED8, UNSIGNED8, Block8, Quantized
from .conversion import Conversion, needed
from .float import FLOAT32, FLOAT64
from .format import BITS, BLOCK, NARROW, Format, block_width, blocks
from .random_bits import DRAWN, parameter_key
from .registry import MASTERS, NONNEGATIVE, PLAIN, ROUNDINGS, SHORT, STATES, of_state

__all__ = [
    "BITS", "BLOCK", "DRAWN", "FLOAT32", "FLOAT64", "MASTERS", "NARROW", "NONNEGATIVE",
    "PLAIN", "ROUNDINGS", "SHORT", "SIGNED8", "STATES", "UNSIGNED8", "Block8", "Conversion",
    "Format", "Formats", "Named", "Operand", "Quantized", "block_width", "blocks", "load",
    "named", "needed", "of_state", "parameter_key", "scaling", "tables", "traffic", "uniform",
]  # fmt: skip
