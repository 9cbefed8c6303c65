"""float32 and float64: numbers as arithmetic has them."""

from .format import Format

FLOAT32 = Format("float32", (("", "float32"),), "S({0})", ("S({x})",))
FLOAT64 = Format("float64", (("", "float64"),), "D({0})", ("D({x})",))
