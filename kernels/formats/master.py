"""A 16-bit parameter with a float32 copy, which the rule sees as long as the two agree."""

from .bfloat16 import bfloat16_load, bfloat16_store
from .conversion import Conversion, S, U, conversion, where
from .float16 import float16_load, float16_store
from .format import Format


@conversion
def bfloat16_master(code: U, copy: S) -> S:
    """Return the copy, or the parameter where its owner has written another number."""
    return where(bfloat16_store(copy) == code, copy, bfloat16_load(code))


@conversion
def float16_master(code: U, copy: S) -> S:
    """Return the copy, or the parameter where its owner has written another number."""
    return where(float16_store(copy) == code, copy, float16_load(code))


def _master(dtype: str, load: Conversion, store: Conversion) -> Format:
    return Format(
        f"{dtype}, master",
        (("", "uint16"), ("master", "float32")),
        f"{load.name}(U({{0}}), S({{1}}))",
        (f"{store.name}(S({{x}}))", "S({x})"),
        (load, store),
        copied=True,
    )


MASTER = {
    "bfloat16": _master("bfloat16", bfloat16_master, bfloat16_store),
    "float16": _master("float16", float16_master, float16_store),
}
